-- A task is made once for each Idempotency-Key. The key's row, the hold and the task are one transaction: a duplicate
-- waits at the key's row until the first one is committed, and then means its task, or is rolled back, and then tries
-- by itself.
ALTER TABLE tasks ADD COLUMN joins int NOT NULL DEFAULT 0 CHECK (joins >= 0);
COMMENT ON COLUMN tasks.joins IS 'retries without a key that were answered with this task instead of a new one';
GRANT UPDATE (joins) ON tasks TO mediagate_app;
CREATE INDEX idempotency_age ON idempotency (created_at);

-- MEANT: the task this key stands for: p_task, when the key is new. No money moves here; a key that was used for another
-- request is MG400. Every statement sees what was committed before it, so the SELECT finds what the INSERT waited for.
-- Without a key a retry finds the task by its fingerprint (mg_join), and its lock waits until the holds of that request
-- that are on their way are committed. They take it before any other lock, and do not wait for each other.
CREATE FUNCTION mg_meant(p_task uuid, p_key bigint, p_idem text, p_print bytea) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE v_account bigint; i idempotency; BEGIN
  IF p_idem IS NULL THEN
    IF p_print IS NOT NULL THEN
      PERFORM pg_advisory_xact_lock_shared(hashtextextended(encode(p_print, 'hex'), p_key)); END IF;
    RETURN p_task;
  END IF;
  SELECT account_id INTO v_account FROM api_keys WHERE id = p_key;
  IF NOT FOUND THEN RAISE EXCEPTION 'key' USING ERRCODE = 'MG401'; END IF;
  LOOP
    INSERT INTO idempotency (account_id, idem_key, fingerprint, task_id) VALUES (v_account, p_idem, p_print, p_task)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN RETURN p_task; END IF;
    SELECT * INTO i FROM idempotency WHERE account_id = v_account AND idem_key = p_idem;
    CONTINUE WHEN NOT FOUND;                       -- pruned just now
    IF i.fingerprint <> p_print THEN RAISE EXCEPTION 'idempotency key reused' USING ERRCODE = 'MG400'; END IF;
    RETURN i.task_id;
  END LOOP;
END $$;

DROP FUNCTION mg_begin(uuid, bigint, text, text, text, bigint, float8, jsonb, jsonb, text, text, float8, float8, int);
DROP FUNCTION mg_accept(uuid, bigint, text, text, text, bigint, float8, jsonb, jsonb);

-- ACCEPT: the key's row, the hold, the task row and the rows of its inputs. Inputs lie complete in the storage before
-- this call. Returns the task that is meant: another one than p_task when the key was used before, and then nothing was
-- done, and the caller's files belong to nobody.
-- p_inputs: [{"id", "role", "position", "field", "storage_key", "mime", "bytes", "sha256" (hex), "width", "height",
-- "duration_ms", "ttl_s"}]
-- p_wait_s: how long it may stay queued. Times are counted by the database's clock only.
CREATE FUNCTION mg_accept(p_task uuid, p_key bigint, p_kind text, p_model text, p_pool text, p_hold bigint,
  p_wait_s float8, p_request jsonb, p_inputs jsonb, p_idem text DEFAULT NULL, p_print bytea DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql AS $$ DECLARE v_meant uuid; BEGIN
  v_meant := mg_meant(p_task, p_key, p_idem, p_print);
  IF v_meant <> p_task THEN RETURN v_meant; END IF;
  PERFORM mg_reserve(p_task, p_key, p_kind, p_model, p_pool, p_hold, now() + p_wait_s * interval '1 second', p_request);
  PERFORM mg_put_files(p_task, p_inputs);
  IF p_print IS NOT NULL THEN UPDATE tasks SET fingerprint = p_print WHERE id = p_task; END IF;
  RETURN p_task;
END $$;

-- BEGIN: accept, claim and the first attempt row, for work the calling process does itself. token: that of the lease, or
-- 0 when the upstream has p_slots tasks of this pool already: then the task is queued like any other. NULL when another
-- task is meant.
CREATE FUNCTION mg_begin(p_task uuid, p_key bigint, p_kind text, p_model text, p_pool text, p_hold bigint,
  p_wait_s float8, p_request jsonb, p_inputs jsonb, p_provider text, p_owner text, p_lease_s float8, p_deadline_s float8,
  p_slots int, p_idem text DEFAULT NULL, p_print bytea DEFAULT NULL, OUT meant uuid, OUT token bigint)
LANGUAGE plpgsql AS $$ BEGIN
  meant := mg_meant(p_task, p_key, p_idem, p_print);          -- as mg_accept, and the row is updated once
  IF meant <> p_task THEN RETURN; END IF;
  PERFORM mg_reserve(p_task, p_key, p_kind, p_model, p_pool, p_hold, now() + p_wait_s * interval '1 second', p_request);
  PERFORM mg_put_files(p_task, p_inputs);
  token := 0;
  IF (SELECT count(*) FROM tasks WHERE pool = p_pool AND settled_at IS NULL
      AND status IN ('submitting', 'uncertain', 'running')) >= p_slots THEN
    UPDATE tasks SET fingerprint = p_print WHERE id = p_task; RETURN; END IF;
  UPDATE tasks SET status = 'submitting', lease_owner = p_owner, lease_token = 1, claims = 1, attempt_no = 1,
         started_at = now(), wake_at = now() + p_lease_s * interval '1 second',
         deadline_at = now() + p_deadline_s * interval '1 second', fingerprint = p_print WHERE id = p_task;
  INSERT INTO task_attempts (task_id, attempt_no, provider, client_token) VALUES (p_task, 1, p_provider, p_task || ':1');
  token := 1;
END $$;

-- JOIN: the task that an SDK's own retry, which has no key, repeats: same API key, same request, young, and its answer
-- never left. Of several the one that was joined least. The lock makes the retries of identical requests take turns,
-- and waits for a first request whose hold is not committed yet.
CREATE FUNCTION mg_join(p_key bigint, p_print bytea, p_window_s float8) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE v_task uuid; BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(encode(p_print, 'hex'), p_key));
  SELECT id INTO v_task FROM tasks WHERE api_key_id = p_key AND fingerprint = p_print AND delivered_at IS NULL
     AND created_at > now() - p_window_s * interval '1 second' AND status <> 'cancelled'
     AND cancel_requested_at IS NULL AND deleted_at IS NULL ORDER BY joins, created_at LIMIT 1 FOR NO KEY UPDATE;
  IF FOUND THEN UPDATE tasks SET joins = joins + 1 WHERE id = v_task; END IF;
  RETURN v_task;
END $$;

DO $$ DECLARE f regprocedure; BEGIN
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND p.proname IN ('mg_meant', 'mg_accept', 'mg_begin', 'mg_join') LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION mg_accept, mg_begin, mg_join TO mediagate_app;
