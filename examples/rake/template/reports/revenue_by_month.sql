SELECT to_char(issued_on, 'YYYY-MM') AS month, count(DISTINCT invoices.id) AS invoices, sum(net) AS revenue
FROM invoices JOIN billed_lines ON invoice_id = invoices.id
GROUP BY 1
ORDER BY 1
