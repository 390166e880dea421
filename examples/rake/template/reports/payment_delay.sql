SELECT
    customers.name AS customer,
    count(*) AS paid,
    count(*) FILTER (WHERE paid_on > due_on) AS late,
    round(avg(paid_on - issued_on), 1) AS average_days
FROM invoices JOIN customers ON customers.id = customer_id
WHERE paid_on IS NOT NULL
GROUP BY customers.id
ORDER BY customers.id
