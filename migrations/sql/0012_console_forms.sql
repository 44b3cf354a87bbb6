-- One row for each form that was sent: the primary key decides who is first.
CREATE TABLE console_forms (form_id uuid PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts,
  sent_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX console_forms_age ON console_forms (sent_at);
GRANT SELECT, INSERT, DELETE ON console_forms TO mediagate_app;
