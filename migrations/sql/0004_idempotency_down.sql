-- Back to the functions of 0001: no key, no fingerprint.
DROP FUNCTION mg_join, mg_begin, mg_accept, mg_meant;
CREATE FUNCTION mg_accept(p_task uuid, p_key bigint, p_kind text, p_model text, p_pool text, p_hold bigint,
  p_wait_s float8, p_request jsonb, p_inputs jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  PERFORM mg_reserve(p_task, p_key, p_kind, p_model, p_pool, p_hold, now() + p_wait_s * interval '1 second', p_request);
  PERFORM mg_put_files(p_task, p_inputs);
END $$;
CREATE FUNCTION mg_begin(p_task uuid, p_key bigint, p_kind text, p_model text, p_pool text, p_hold bigint,
  p_wait_s float8, p_request jsonb, p_inputs jsonb, p_provider text, p_owner text, p_lease_s float8, p_deadline_s float8,
  p_slots int) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
  PERFORM mg_accept(p_task, p_key, p_kind, p_model, p_pool, p_hold, p_wait_s, p_request, p_inputs);
  IF (SELECT count(*) FROM tasks WHERE pool = p_pool AND settled_at IS NULL
      AND status IN ('submitting', 'uncertain', 'running')) >= p_slots THEN RETURN 0; END IF;
  UPDATE tasks SET status = 'submitting', lease_owner = p_owner, lease_token = 1, claims = 1, attempt_no = 1,
         started_at = now(), wake_at = now() + p_lease_s * interval '1 second',
         deadline_at = now() + p_deadline_s * interval '1 second' WHERE id = p_task;
  INSERT INTO task_attempts (task_id, attempt_no, provider, client_token) VALUES (p_task, 1, p_provider, p_task || ':1');
  RETURN 1;
END $$;
DO $$ DECLARE f regprocedure; BEGIN
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND p.proname IN ('mg_accept', 'mg_begin') LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION mg_accept, mg_begin TO mediagate_app;
DROP INDEX idempotency_age;
ALTER TABLE tasks DROP COLUMN joins;
