-- The application works as mediagate_app: it may call the money functions, it cannot touch money by itself.
-- The role is one of the cluster, so another database of the same cluster may have made it already.
DO $$ BEGIN
  CREATE ROLE mediagate_app NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
DO $$ BEGIN EXECUTE format('GRANT mediagate_app TO %I', current_user); END $$;
GRANT USAGE ON SCHEMA public TO mediagate_app;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO mediagate_app;
GRANT INSERT (name, email, is_admin, state, max_in_flight), UPDATE (name, state, max_in_flight) ON accounts TO mediagate_app;
GRANT INSERT, UPDATE ON api_keys TO mediagate_app;
GRANT INSERT (api_key_id, limit_amount, period, max_in_flight), UPDATE (limit_amount, period, max_in_flight)
  ON key_budgets TO mediagate_app;
GRANT UPDATE (pool, status, rank, wake_at, lease_owner, lease_token, claims, attempt_no, upstream_id, deadline_at,
  cancel_requested_at, fingerprint, delivered_at, error_code, error_detail, result, progress, started_at, deleted_at,
  updated_at) ON tasks TO mediagate_app;
GRANT INSERT, UPDATE ON task_attempts TO mediagate_app;
GRANT INSERT ON deployment TO mediagate_app;
GRANT INSERT, UPDATE, DELETE ON idempotency, files TO mediagate_app;

-- SECURITY DEFINER with a pinned search_path: the functions act as their owner, whoever calls.
DO $$ DECLARE f regprocedure; BEGIN
  FOR f IN SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND p.proname LIKE 'mg\_%' LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION mg_accept, mg_begin, mg_finish, mg_fail, mg_settle, mg_post TO mediagate_app;
