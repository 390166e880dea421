SELECT customers.name AS customer, count(DISTINCT invoices.id) AS invoices, sum(net) AS revenue
FROM customers
    JOIN invoices ON customer_id = customers.id
    JOIN billed_lines ON invoice_id = invoices.id
GROUP BY customers.id
ORDER BY customers.id
