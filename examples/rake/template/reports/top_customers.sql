SELECT rank() OVER (ORDER BY sum(net) DESC) AS rank, customers.name AS customer, sum(net) AS revenue
FROM customers
    JOIN invoices ON customer_id = customers.id
    JOIN billed_lines ON invoice_id = invoices.id
GROUP BY customers.id
ORDER BY 1, customers.id
LIMIT 5
