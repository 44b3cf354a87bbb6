-- What operators see and do when a task is in trouble, and what workers count for the metrics.

-- Every state a task ever had: when, where, and which process moved it. No foreign key: tasks are never deleted.
CREATE TABLE task_events (task_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(), status text NOT NULL,
  pool text NOT NULL, attempt_no int NOT NULL, owner text);
CREATE INDEX task_events_task ON task_events (task_id);
CREATE FUNCTION tasks_moved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$ BEGIN
  INSERT INTO task_events (task_id, status, pool, attempt_no, owner)
  VALUES (NEW.id, NEW.status, NEW.pool, NEW.attempt_no, coalesce(NEW.lease_owner, OLD.lease_owner));
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tasks_moved FROM PUBLIC;
CREATE TRIGGER tasks_moved AFTER UPDATE ON tasks FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
  EXECUTE FUNCTION tasks_moved();

-- A task's lines in the ledger, an upstream's id for a job, failures by reason: what operators search for.
CREATE INDEX ledger_task ON ledger (task_id) WHERE kind IN ('capture','refund');
CREATE INDEX attempts_upstream ON task_attempts (upstream_id) WHERE upstream_id IS NOT NULL;
CREATE INDEX tasks_failed ON tasks (error_code, id) WHERE status = 'failed';
CREATE INDEX attempts_late ON task_attempts (provider) WHERE late_at IS NOT NULL;
CREATE INDEX tasks_settled ON tasks (settled_at) WHERE settled_at IS NOT NULL;

-- JSON numbers keep their last digit up to here. Sums, too, must not pass it.
ALTER TABLE accounts ADD CONSTRAINT accounts_posted_max CHECK (posted <= 9007199254740991);

-- REFUND: gives back p_amount of what a task captured; NULL: all that is left of it. The same reference gives back once.
-- MG404: no such task; MG410: nothing is left to give back; MG409: too much, or the reference was used for another refund.
CREATE FUNCTION mg_refund(p_task uuid, p_amount bigint, p_ref text, p_actor text, p_note text, OUT entry bigint,
  OUT amount bigint, OUT is_new boolean) LANGUAGE plpgsql AS $$
DECLARE v_account bigint; v_left bigint; l ledger; BEGIN
  SELECT account_id INTO v_account FROM tasks WHERE id = p_task;
  IF NOT FOUND THEN RAISE EXCEPTION 'task' USING ERRCODE = 'MG404'; END IF;
  PERFORM 1 FROM accounts WHERE id = v_account FOR NO KEY UPDATE;          -- refunds of an account take turns
  SELECT * INTO l FROM ledger WHERE kind = 'refund' AND external_ref = p_ref;
  IF FOUND THEN
    IF l.task_id IS DISTINCT FROM p_task OR l.amount <> coalesce(p_amount, l.amount) THEN
      RAISE EXCEPTION 'reference reused' USING ERRCODE = 'MG409'; END IF;
    entry := l.id; amount := l.amount; is_new := false; RETURN;
  END IF;
  SELECT coalesce(sum(-x.amount), 0) INTO v_left FROM ledger x WHERE x.task_id = p_task AND x.kind IN ('capture','refund');
  IF v_left <= 0 THEN RAISE EXCEPTION 'nothing left' USING ERRCODE = 'MG410'; END IF;
  amount := coalesce(p_amount, v_left); is_new := true;
  entry := mg_post(v_account, 'refund', 'revenue', amount, p_ref, p_actor, NULL, p_task, p_note);
END $$;
ALTER FUNCTION mg_refund SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp;
REVOKE ALL ON FUNCTION mg_refund FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mg_refund TO mediagate_app;

-- Running totals of what has ended, so that a scrape reads a few rows and not all tasks. One worker at a time adds to them.
CREATE TABLE task_counts (model text NOT NULL, status text NOT NULL, reason text NOT NULL, tasks bigint NOT NULL,
  credits bigint NOT NULL, PRIMARY KEY (model, status, reason));
CREATE TABLE attempt_counts (provider text NOT NULL, state text NOT NULL, attempts bigint NOT NULL,
  credits bigint NOT NULL,                         -- the holds of their tasks: what a lost one is worth
  PRIMARY KEY (provider, state));
CREATE TABLE watch (is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  counted_to timestamptz NOT NULL DEFAULT '-infinity', audited_at timestamptz, audit_s float8, violations jsonb);
INSERT INTO watch DEFAULT VALUES;

GRANT SELECT ON task_events TO mediagate_app;
GRANT SELECT, INSERT, UPDATE ON task_counts, attempt_counts TO mediagate_app;
GRANT SELECT, UPDATE ON watch TO mediagate_app;
