-- Forty tenants, each in a schema of its own. Everything follows from the numbers of tenant and row: no chance, no clock.
-- Run it in an empty database, in one transaction:  psql -1 -v ON_ERROR_STOP=1 -f seed.sql
DO $$
DECLARE
    tenant int;
BEGIN
    FOR tenant IN 1..40 LOOP
        EXECUTE format('CREATE SCHEMA tenant_%s', to_char(tenant, 'FM000'));
        EXECUTE format('SET LOCAL search_path TO tenant_%s', to_char(tenant, 'FM000'));

        CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL UNIQUE);
        CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL UNIQUE, cost numeric(10, 4) NOT NULL);
        CREATE TABLE invoices (
            id int PRIMARY KEY,
            customer_id int NOT NULL REFERENCES customers,
            issued_on date NOT NULL,
            due_on date NOT NULL,
            paid_on date
        );
        CREATE TABLE invoice_lines (
            invoice_id int REFERENCES invoices,
            position int,
            product_id int NOT NULL REFERENCES products,
            quantity numeric(8, 3) NOT NULL,
            unit_price numeric(10, 4) NOT NULL,
            tax_rate numeric(4, 2) NOT NULL,
            PRIMARY KEY (invoice_id, position)
        );
        CREATE TABLE expenses (
            id int PRIMARY KEY,
            category text NOT NULL,
            booked_on date NOT NULL,
            amount numeric(12, 2) NOT NULL
        );
        CREATE VIEW billed_lines AS
            SELECT invoice_id, position, product_id, tax_rate, round(quantity * unit_price, 2) AS net
            FROM invoice_lines;

        INSERT INTO customers
            SELECT id, 'Customer ' || to_char(id, 'FM00') FROM generate_series(1, 20) AS id;
        INSERT INTO products
            SELECT id, 'Product ' || to_char(id, 'FM00'), 3.5 + id * 1.75 + tenant * 0.0125
            FROM generate_series(1, 12) AS id;
        INSERT INTO invoices
            SELECT id, 1 + (id * 7 + tenant) % 20, issued_on, issued_on + 30,
                CASE WHEN (id * 13 + tenant) % 10 < 8 THEN issued_on + 3 + (id * 11 + tenant) % 50 END
            FROM generate_series(1, 120) AS id, LATERAL (SELECT date '2024-01-01' + (id * 3 + tenant) % 364) AS d (issued_on);
        INSERT INTO invoice_lines
            SELECT id, position, product, 0.5 + (id * position + tenant) % 9,
                -- tenant 17 gives its last product away
                CASE WHEN tenant = 17 AND product = 12 THEN 0 ELSE (5 + product * 2.1) * (1 + tenant * 0.0037) END,
                (ARRAY[0.00, 0.07, 0.19])[1 + (product + tenant) % 3]
            FROM generate_series(1, 120) AS id, generate_series(1, 3) AS position,
                LATERAL (SELECT 1 + (id * 5 + position * 3 + tenant) % 12) AS p (product);
        INSERT INTO expenses
            SELECT id, (ARRAY['rent', 'wages', 'energy', 'travel', 'software'])[1 + (id + tenant) % 5],
                date '2024-01-01' + (id * 6 + tenant) % 366, 40 + (id * 37 + tenant * 11) % 900 + id * 0.07
            FROM generate_series(1, 60) AS id;
    END LOOP;
END
$$;
