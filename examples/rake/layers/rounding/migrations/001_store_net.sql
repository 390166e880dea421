-- Round each line once, when it is written, and not in every report again.
ALTER TABLE invoice_lines ADD COLUMN net numeric GENERATED ALWAYS AS (round(quantity * unit_price, 2)) STORED;
CREATE OR REPLACE VIEW billed_lines AS
    SELECT invoice_id, position, product_id, tax_rate, net
    FROM invoice_lines;
