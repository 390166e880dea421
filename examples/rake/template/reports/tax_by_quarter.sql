SELECT
    to_char(issued_on, 'YYYY"Q"Q') AS quarter,
    tax_rate,
    sum(net) AS net,
    sum(round(net * tax_rate, 2)) AS tax
FROM invoices JOIN billed_lines ON invoice_id = invoices.id
GROUP BY 1, 2
ORDER BY 1, 2
