-- The only code that moves credits, and the guards that refuse what code forgot.
-- Lock order, always: task -> key_budgets -> accounts.
CREATE FUNCTION tasks_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF OLD.settled_at IS NOT NULL AND (NEW.status, NEW.charge, NEW.settled_at)
     IS DISTINCT FROM (OLD.status, OLD.charge, OLD.settled_at) THEN
    RAISE EXCEPTION 'task % is settled', OLD.id USING ERRCODE = 'MG001'; END IF;
  IF (NEW.hold, NEW.account_id, NEW.api_key_id) IS DISTINCT FROM (OLD.hold, OLD.account_id, OLD.api_key_id) THEN
    RAISE EXCEPTION 'hold and owner are fixed' USING ERRCODE = 'MG002'; END IF;
  IF NEW.status <> OLD.status AND NOT EXISTS (SELECT 1 FROM task_transitions
     WHERE from_status = OLD.status AND to_status = NEW.status) THEN
    RAISE EXCEPTION 'illegal % -> %', OLD.status, NEW.status USING ERRCODE = 'MG003'; END IF;
  IF NEW.lease_token < OLD.lease_token THEN RAISE EXCEPTION 'lease token went back' USING ERRCODE = 'MG004'; END IF;
  NEW.updated_at := now(); RETURN NEW;
END $$;
CREATE TRIGGER tasks_guard BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION tasks_guard();
CREATE FUNCTION no_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'MG005'; END $$;
CREATE TRIGGER ledger_fixed BEFORE UPDATE OR DELETE ON ledger FOR EACH ROW EXECUTE FUNCTION no_rewrite();
CREATE TRIGGER ledger_kept BEFORE TRUNCATE ON ledger EXECUTE FUNCTION no_rewrite();
-- RESERVE: also the last word on key revocation, budget and concurrency. Task id is made by the caller.
CREATE FUNCTION mg_reserve(p_task uuid, p_key bigint, p_kind text, p_model text, p_pool text, p_hold bigint,
  p_deadline timestamptz, p_request jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE k api_keys; b key_budgets; v_rank timestamptz; v_start date; BEGIN
  SELECT * INTO k FROM api_keys WHERE id = p_key AND revoked_at IS NULL   -- FOR SHARE: a committed revocation wins
     AND (expires_at IS NULL OR expires_at > now()) FOR SHARE;
  IF NOT FOUND THEN RAISE EXCEPTION 'key' USING ERRCODE = 'MG401'; END IF;
  SELECT * INTO b FROM key_budgets WHERE api_key_id = p_key FOR NO KEY UPDATE;
  v_start := CASE b.period WHEN 'day' THEN (now() AT TIME ZONE 'UTC')::date
     WHEN 'month' THEN date_trunc('month', now() AT TIME ZONE 'UTC')::date ELSE '-infinity' END;
  IF b.period_start < v_start THEN b.spent := 0; END IF;
  IF b.limit_amount IS NOT NULL AND b.spent + b.held + p_hold > b.limit_amount THEN
    RAISE EXCEPTION 'key budget' USING ERRCODE = 'MG403'; END IF;
  IF b.in_flight >= b.max_in_flight THEN RAISE EXCEPTION 'key busy' USING ERRCODE = 'MG429'; END IF;
  UPDATE key_budgets SET held = held + p_hold, in_flight = in_flight + 1, spent = b.spent, period_start = v_start
   WHERE api_key_id = p_key;
  PERFORM 1 FROM accounts WHERE id = k.account_id AND state <> 'active';
  IF FOUND THEN RAISE EXCEPTION 'suspended' USING ERRCODE = 'MG411'; END IF;
  UPDATE accounts SET held = held + p_hold, in_flight = in_flight + 1
   WHERE id = k.account_id AND state = 'active' AND posted - held >= p_hold AND in_flight < max_in_flight RETURNING clock_timestamp() + in_flight * interval '1 second' INTO v_rank;
  IF NOT FOUND THEN
    PERFORM 1 FROM accounts WHERE id = k.account_id AND posted - held >= p_hold;
    IF FOUND THEN RAISE EXCEPTION 'busy' USING ERRCODE = 'MG429'; END IF;
    RAISE EXCEPTION 'credit' USING ERRCODE = 'MG402'; END IF;
  INSERT INTO tasks (id, account_id, api_key_id, kind, model, pool, hold, rank, deadline_at, request)
  VALUES (p_task, k.account_id, p_key, p_kind, p_model, p_pool, p_hold, v_rank, p_deadline, p_request);
END $$;
CREATE FUNCTION mg_burn(p_account bigint, p_amount bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE l record; v_left bigint := p_amount; v_take bigint; BEGIN             -- soonest expiry first
  FOR l IN SELECT id, remaining FROM credit_lots WHERE account_id = p_account AND remaining > 0 ORDER BY expires_at, id LOOP
    EXIT WHEN v_left = 0;
    v_take := least(v_left, l.remaining); v_left := v_left - v_take;
    UPDATE credit_lots SET remaining = remaining - v_take WHERE id = l.id;
  END LOOP;
END $$;
-- CAPTURE and RELEASE are one call: charge 0 releases all, 0 < charge < hold is a partial capture.
-- false = somebody settled it already, or our lease is gone: the caller stops, it is not an error.
CREATE FUNCTION mg_settle(p_task uuid, p_token bigint, p_status text, p_charge bigint, p_error text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE t tasks; a accounts; BEGIN
  UPDATE tasks SET status = p_status, charge = p_charge, settled_at = now(), error_code = p_error, lease_owner = NULL,
         lease_token = lease_token + 1                       -- fences a worker that still holds the old lease
   WHERE id = p_task AND settled_at IS NULL AND (p_token IS NULL OR lease_token = p_token) RETURNING * INTO t;
  IF NOT FOUND THEN RETURN false; END IF;
  UPDATE task_attempts SET resolved_at = now(), state = CASE WHEN p_status = 'succeeded' THEN 'done'
         WHEN state = 'accepted' THEN 'failed' ELSE 'lost' END
   WHERE task_id = p_task AND state IN ('sending','accepted','uncertain');
  UPDATE key_budgets b SET held = held - t.hold, in_flight = in_flight - 1, period_start = greatest(b.period_start, p.start),
         spent = CASE WHEN b.period_start < p.start THEN 0 ELSE b.spent END + p_charge
    FROM (SELECT api_key_id, CASE period WHEN 'day' THEN (now() AT TIME ZONE 'UTC')::date
          WHEN 'month' THEN date_trunc('month', now() AT TIME ZONE 'UTC')::date ELSE '-infinity' END::date AS start
          FROM key_budgets WHERE api_key_id = t.api_key_id) p WHERE b.api_key_id = p.api_key_id;
  UPDATE accounts SET held = held - t.hold, posted = posted - p_charge, in_flight = in_flight - 1,
         entry_seq = entry_seq + (p_charge > 0)::int, expiring = greatest(expiring - p_charge, 0)
   WHERE id = t.account_id RETURNING * INTO a;
  IF p_charge > 0 THEN
    INSERT INTO ledger (account_id, seq, contra, kind, amount, balance, task_id, api_key_id)
    VALUES (t.account_id, a.entry_seq, 'revenue', 'capture', -p_charge, a.posted, t.id, t.api_key_id);
    PERFORM mg_burn(t.account_id, p_charge);
  END IF;
  RETURN true;
END $$;
-- TOP-UP, GRANT, ADJUST, REFUND: idempotent by (kind, external_ref); same ref with other content is MG409.
CREATE FUNCTION mg_post(p_account bigint, p_kind text, p_contra text, p_amount bigint, p_ref text, p_actor text,
  p_expires timestamptz DEFAULT NULL, p_task uuid DEFAULT NULL, p_note text DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE a accounts; l ledger; v_id bigint; BEGIN
  SELECT * INTO a FROM accounts WHERE id = p_account FOR NO KEY UPDATE;
  SELECT * INTO l FROM ledger WHERE kind = p_kind AND external_ref = p_ref;
  IF FOUND THEN
    IF l.account_id = p_account AND l.amount = p_amount THEN RETURN l.id; END IF;
    RAISE EXCEPTION 'reference reused' USING ERRCODE = 'MG409'; END IF;
  IF a.posted - a.held + p_amount < 0 THEN RAISE EXCEPTION 'credit' USING ERRCODE = 'MG402'; END IF;
  IF p_kind = 'refund' AND p_amount > (SELECT coalesce(sum(-amount), 0) FROM ledger
       WHERE account_id = p_account AND task_id = p_task AND kind IN ('capture','refund')) THEN
    RAISE EXCEPTION 'refund above capture' USING ERRCODE = 'MG409'; END IF;
  UPDATE accounts SET posted = posted + p_amount, entry_seq = entry_seq + 1, expiring = greatest(expiring +
         CASE WHEN p_amount < 0 OR p_expires IS NOT NULL THEN p_amount ELSE 0 END, 0)
   WHERE id = p_account RETURNING * INTO a;
  INSERT INTO ledger (account_id, seq, contra, kind, amount, balance, external_ref, actor, task_id, note) VALUES (p_account, a.entry_seq, p_contra, p_kind, p_amount, a.posted, p_ref, p_actor, p_task, p_note) RETURNING id INTO v_id;
  IF p_amount < 0 THEN PERFORM mg_burn(p_account, -p_amount);
  ELSIF p_expires IS NOT NULL THEN INSERT INTO credit_lots (account_id, ledger_id, amount, remaining, expires_at)
    VALUES (p_account, v_id, p_amount, p_amount, p_expires); END IF;
  RETURN v_id;
END $$;
-- EXPIRE: takes only what is not held; what a hold still needs expires after that hold is settled.
CREATE FUNCTION mg_expire(p_lot bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE c credit_lots; a accounts; v bigint; BEGIN
  SELECT * INTO c FROM credit_lots WHERE id = p_lot;
  SELECT * INTO a FROM accounts WHERE id = c.account_id FOR NO KEY UPDATE;
  SELECT * INTO c FROM credit_lots WHERE id = p_lot;                 -- re-read under the lock
  v := least(c.remaining, a.posted - a.held);
  IF c.expires_at > now() OR v <= 0 THEN RETURN 0; END IF;
  UPDATE credit_lots SET remaining = remaining - v WHERE id = p_lot;
  UPDATE accounts SET posted = posted - v, expiring = expiring - v, entry_seq = entry_seq + 1 WHERE id = a.id RETURNING * INTO a;
  INSERT INTO ledger (account_id, seq, contra, kind, amount, balance, note) VALUES (a.id, a.entry_seq, 'expired', 'expire', -v, a.posted, 'lot ' || p_lot);
  RETURN v;
END $$;
