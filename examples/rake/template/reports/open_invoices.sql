SELECT invoices.id AS invoice, customers.name AS customer, issued_on, due_on, sum(net) AS net
FROM invoices
    JOIN customers ON customers.id = customer_id
    JOIN billed_lines ON invoice_id = invoices.id
WHERE paid_on IS NULL
GROUP BY invoices.id, customers.id
ORDER BY invoices.id
