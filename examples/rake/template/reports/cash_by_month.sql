WITH movements (month, amount) AS (
    SELECT to_char(paid_on, 'YYYY-MM'), net + round(net * tax_rate, 2)
    FROM invoices JOIN billed_lines ON invoice_id = invoices.id
    WHERE paid_on IS NOT NULL
    UNION ALL
    SELECT to_char(booked_on, 'YYYY-MM'), -amount
    FROM expenses
)
SELECT month, sum(amount) AS change, sum(sum(amount)) OVER (ORDER BY month) AS balance
FROM movements
GROUP BY 1
ORDER BY 1
