-- What an attempt cost us, in millionths of a currency; and when an attempt that was given up turned out to be done.
ALTER TABLE task_attempts ADD COLUMN cost_currency text, ADD COLUMN late_at timestamptz;
COMMENT ON COLUMN task_attempts.upstream_cost IS 'millionths of cost_currency';
-- Polls are claimed in batches, the most overdue first.
CREATE INDEX tasks_polls ON tasks (wake_at) WHERE status = 'running';
