SELECT
    products.name AS product,
    sum(net) AS revenue,
    round(sum(quantity * cost), 2) AS cost,
    round(100 * (sum(net) - sum(quantity * cost)) / nullif(sum(net), 0), 1) AS margin_percent
FROM products
    JOIN invoice_lines ON invoice_lines.product_id = products.id
    JOIN billed_lines USING (invoice_id, position)
GROUP BY products.id
ORDER BY products.id
