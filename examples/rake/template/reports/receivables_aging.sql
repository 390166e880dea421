WITH open AS (
    SELECT customer_id, date '2024-12-31' - due_on AS overdue, net
    FROM invoices JOIN billed_lines ON invoice_id = invoices.id
    WHERE paid_on IS NULL OR paid_on > date '2024-12-31'
)
SELECT
    customers.name AS customer,
    coalesce(sum(net) FILTER (WHERE overdue <= 0), 0) AS not_due,
    coalesce(sum(net) FILTER (WHERE overdue BETWEEN 1 AND 30), 0) AS days_1_to_30,
    coalesce(sum(net) FILTER (WHERE overdue BETWEEN 31 AND 90), 0) AS days_31_to_90,
    coalesce(sum(net) FILTER (WHERE overdue > 90), 0) AS days_over_90
FROM open JOIN customers ON customers.id = customer_id
GROUP BY customers.id
ORDER BY customers.id
