WITH bookings (month, revenue, expense) AS (
    SELECT to_char(issued_on, 'YYYY-MM'), net, 0
    FROM invoices JOIN billed_lines ON invoice_id = invoices.id
    UNION ALL
    SELECT to_char(booked_on, 'YYYY-MM'), 0, amount
    FROM expenses
)
SELECT month, sum(revenue) AS revenue, sum(expense) AS expenses, sum(revenue - expense) AS profit
FROM bookings
GROUP BY 1
ORDER BY 1
