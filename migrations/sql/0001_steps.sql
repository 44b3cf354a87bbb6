-- Compositions of the five money functions: one round trip and one transaction for each step of a task.

-- ACCEPT: the hold, the task row and the rows of its inputs. Inputs lie complete in the storage before this call.
-- p_inputs: [{"id", "role", "position", "field", "storage_key", "mime", "bytes", "sha256" (hex), "width", "height",
-- "duration_ms", "ttl_s"}]
-- p_wait_s: how long it may stay queued. Times are counted by the database's clock only.
CREATE FUNCTION mg_accept(p_task uuid, p_key bigint, p_kind text, p_model text, p_pool text, p_hold bigint,
  p_wait_s float8, p_request jsonb, p_inputs jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
  PERFORM mg_reserve(p_task, p_key, p_kind, p_model, p_pool, p_hold, now() + p_wait_s * interval '1 second', p_request);
  PERFORM mg_put_files(p_task, p_inputs);
END $$;

CREATE FUNCTION mg_put_files(p_task uuid, p_files jsonb) RETURNS void LANGUAGE sql AS $$
  INSERT INTO files (id, account_id, task_id, role, position, field, storage_key, state, mime, bytes, sha256, width,
                     height, duration_ms, expires_at)
  SELECT f.id, t.account_id, t.id, f.role, f.position, f.field, f.storage_key, 'ready', f.mime, f.bytes,
         decode(f.sha256, 'hex'), f.width, f.height, f.duration_ms, now() + f.ttl_s * interval '1 second'
    FROM jsonb_to_recordset(p_files) AS f(id uuid, role text, position smallint, field text, storage_key text, mime text,
         bytes bigint, sha256 text, width int, height int, duration_ms int, ttl_s float8),
         tasks t WHERE t.id = p_task
  ON CONFLICT (id) DO UPDATE SET state = 'ready', mime = excluded.mime, bytes = excluded.bytes,
     sha256 = excluded.sha256, width = excluded.width, height = excluded.height, duration_ms = excluded.duration_ms,
     expires_at = excluded.expires_at WHERE files.task_id = p_task AND files.state <> 'deleted'
$$;

-- BEGIN: accept, claim and the first attempt row, for work the calling process does itself. Returns the lease token, or
-- 0 when the upstream has p_slots tasks of this pool already: then the task is queued like any other.
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

-- FINISH: the result's file rows, the result, and the capture. The bytes lie complete in the storage before this call.
-- false = the lease is gone, or somebody settled it: the caller's files belong to nobody, it removes them. A repeat after
-- a COMMIT whose answer was lost finds its own files and is true: file ids are made anew for every delivery.
CREATE FUNCTION mg_finish(p_task uuid, p_token bigint, p_charge bigint, p_files jsonb, p_result jsonb)
RETURNS boolean LANGUAGE plpgsql AS $$ DECLARE v_status text; BEGIN
  SELECT status INTO v_status FROM tasks WHERE id = p_task AND settled_at IS NULL AND lease_token = p_token FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN EXISTS (SELECT 1 FROM tasks t JOIN files f ON f.task_id = t.id WHERE t.id = p_task
      AND t.status = 'succeeded' AND f.id = (p_files->0->>'id')::uuid); END IF;
  UPDATE tasks SET status = 'storing', progress = 100, result = p_result WHERE id = p_task;
  PERFORM mg_put_files(p_task, p_files);
  RETURN mg_settle(p_task, p_token, 'succeeded', p_charge);
END $$;

-- FAIL: the reason for the caller, and the whole hold released. p_attempt: what became of the open attempt, where that is
-- known ('refused', 'failed'); NULL leaves the judgement to mg_settle.
CREATE FUNCTION mg_fail(p_task uuid, p_token bigint, p_reason text, p_message text, p_attempt text, p_attempt_error text)
RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
  PERFORM 1 FROM tasks WHERE id = p_task AND settled_at IS NULL AND (p_token IS NULL OR lease_token = p_token) FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN false; END IF;
  UPDATE tasks SET error_detail = p_message WHERE id = p_task;
  UPDATE task_attempts SET state = coalesce(p_attempt, state), error = coalesce(p_attempt_error, error),
         resolved_at = CASE WHEN p_attempt IS NULL THEN resolved_at ELSE now() END
   WHERE task_id = p_task AND state IN ('sending','accepted','uncertain');
  RETURN mg_settle(p_task, p_token, 'failed', 0, p_reason);
END $$;
