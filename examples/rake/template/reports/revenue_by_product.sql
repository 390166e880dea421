SELECT products.name AS product, count(*) AS lines, sum(net) AS revenue
FROM products JOIN billed_lines ON product_id = products.id
GROUP BY products.id
ORDER BY products.id
