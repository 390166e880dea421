SELECT to_char(booked_on, 'YYYY-MM') AS month, category, sum(amount) AS amount
FROM expenses
GROUP BY 1, 2
ORDER BY 1, 2
