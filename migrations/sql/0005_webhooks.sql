-- Webhooks: an outbox that the settlement itself fills, and what became of each delivery.
-- No foreign key leads to accounts, tasks or endpoints: a settlement never waits for, or fails by, a change of those.
CREATE FUNCTION mg_uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$   -- RFC 9562, version 7: sorts by its millisecond
  SELECT overlay(overlay(replace(gen_random_uuid()::text, '-', '')
    PLACING lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') FROM 1 FOR 12)
    PLACING '7' FROM 13 FOR 1)::uuid $$;

CREATE TABLE webhook_endpoints (id uuid PRIMARY KEY, account_id bigint NOT NULL, name text NOT NULL, url text NOT NULL,
  event_types text[] NOT NULL CHECK (cardinality(event_types) > 0),
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active','disabled','deleted')),
  disabled_reason text CHECK (disabled_reason IN ('by_owner','gone','secret_lost')),
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((state = 'disabled') = (disabled_reason IS NOT NULL)));
CREATE INDEX webhook_endpoints_account ON webhook_endpoints (account_id) WHERE state <> 'deleted';

-- AES-256-GCM, bound to the row. Two live at most: the current one, and the one before it until ends_at.
CREATE TABLE webhook_secrets (id uuid PRIMARY KEY, account_id bigint NOT NULL,
  endpoint_id uuid REFERENCES webhook_endpoints,  -- NULL: the account's own, for one-off URLs
  ciphertext bytea NOT NULL, nonce bytea NOT NULL, key_id text NOT NULL, hint text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(), ends_at timestamptz);
CREATE UNIQUE INDEX webhook_secrets_endpoint ON webhook_secrets (endpoint_id) WHERE ends_at IS NULL AND endpoint_id IS NOT NULL;
CREATE UNIQUE INDEX webhook_secrets_account ON webhook_secrets (account_id) WHERE ends_at IS NULL AND endpoint_id IS NULL;
CREATE INDEX webhook_secrets_old ON webhook_secrets (endpoint_id, account_id) WHERE ends_at IS NOT NULL;

CREATE TABLE webhook_events (id uuid PRIMARY KEY, account_id bigint NOT NULL, type text NOT NULL,
  task_id uuid UNIQUE,                             -- a task ends once, so it has one event
  data jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX webhook_events_age ON webhook_events (created_at);

CREATE TABLE webhook_deliveries (id uuid PRIMARY KEY DEFAULT mg_uuid7(),
  event_id uuid NOT NULL REFERENCES webhook_events ON DELETE CASCADE, account_id bigint NOT NULL,
  endpoint_id uuid, url text,                      -- one of the two: an endpoint, or a task's one-off URL
  lane uuid NOT NULL,                              -- what takes turns with itself only: the endpoint, or the URL's host
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending','delivered','failed')),
  tries int NOT NULL DEFAULT 0,
  due_at timestamptz NOT NULL DEFAULT now(),       -- the next try AND the end of a lease: one clock, the database's
  sending_until timestamptz,                       -- the lease alone: until then a worker may be sending it
  claim bigint NOT NULL DEFAULT 0, last_status int, last_error text, last_ms int,
  delivered_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(),
  CHECK ((endpoint_id IS NULL) <> (url IS NULL)), CHECK ((state = 'delivered') <= (delivered_at IS NOT NULL))
) WITH (fillfactor = 80);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (lane, due_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_log ON webhook_deliveries (account_id, endpoint_id, id);
CREATE INDEX webhook_deliveries_event ON webhook_deliveries (event_id);
CREATE TABLE webhook_attempts (delivery_id uuid NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
  at timestamptz NOT NULL, status int, error text, ms int NOT NULL);
CREATE INDEX webhook_attempts_delivery ON webhook_attempts (delivery_id, at);

-- NULL: no warning. A crossing is told once; only credits that come in arm it again, not a hold that is released. Where holds
-- keep the balance below when they come (low_paid), it is armed when it has risen.
ALTER TABLE accounts ADD COLUMN low_credits bigint CHECK (low_credits > 0), ADD COLUMN low_told boolean NOT NULL DEFAULT false,
  ADD COLUMN low_paid boolean NOT NULL DEFAULT false;

-- One event and one delivery for each endpoint that wants it; nothing when nobody does.
CREATE FUNCTION mg_webhook_event(p_account bigint, p_type text, p_task uuid, p_data jsonb, p_url text) RETURNS void
LANGUAGE plpgsql AS $$ DECLARE v_event uuid := mg_uuid7(); BEGIN
  IF p_url IS NULL AND NOT EXISTS (SELECT FROM webhook_endpoints
     WHERE account_id = p_account AND state = 'active' AND p_type = ANY(event_types)) THEN RETURN; END IF;
  INSERT INTO webhook_events (id, account_id, type, task_id, data) VALUES (v_event, p_account, p_type, p_task, p_data);
  INSERT INTO webhook_deliveries (event_id, account_id, endpoint_id, lane)
  SELECT v_event, p_account, id, id FROM webhook_endpoints
   WHERE account_id = p_account AND state = 'active' AND p_type = ANY(event_types);
  IF p_url IS NOT NULL THEN
    INSERT INTO webhook_deliveries (event_id, account_id, url, lane)
    VALUES (v_event, p_account, p_url, md5(p_account || ' ' || split_part(p_url, '/', 3))::uuid); END IF;
END $$;

-- The settlement is what fires it, whoever settles and however: no code path can forget the event, or send one for nothing.
-- On the path of every task, so it is plain: settled_at is set inside mg_settle alone, as its owner and under its search_path.
CREATE FUNCTION tasks_outbox() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM public.webhook_endpoints WHERE account_id = NEW.account_id AND state <> 'deleted')
     OR NEW.request ? 'webhook_url' THEN
    PERFORM public.mg_webhook_event(NEW.account_id,
      NEW.kind || CASE NEW.status WHEN 'succeeded' THEN '.completed' ELSE '.failed' END,
      NEW.id, '{}', NEW.request->>'webhook_url'); END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER tasks_outbox AFTER UPDATE OF settled_at ON tasks FOR EACH ROW
  WHEN (OLD.settled_at IS NULL AND NEW.settled_at IS NOT NULL) EXECUTE FUNCTION tasks_outbox();

CREATE FUNCTION accounts_low() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  NEW.low_paid := NEW.low_told AND NEW.posted - NEW.held < NEW.low_credits AND NEW.low_credits IS NOT DISTINCT FROM OLD.low_credits;
  NEW.low_told := NEW.posted - NEW.held < NEW.low_credits;
  IF NEW.low_told AND NOT NEW.low_paid THEN
    PERFORM mg_webhook_event(NEW.id, 'credits.low', NULL,
      jsonb_build_object('id', 'acct_' || NEW.id, 'credits', NEW.posted - NEW.held, 'threshold', NEW.low_credits), NULL); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER accounts_low BEFORE UPDATE OF posted, held, low_credits ON accounts FOR EACH ROW
  WHEN (NEW.low_credits IS NOT NULL AND (NEW.low_credits IS DISTINCT FROM OLD.low_credits
    OR (NOT NEW.low_told AND NEW.posted - NEW.held < NEW.low_credits)
    OR (NEW.low_told AND NOT NEW.low_paid AND NEW.posted > OLD.posted)
    OR (NEW.low_paid AND NEW.posted - NEW.held >= NEW.low_credits)))
  EXECUTE FUNCTION accounts_low();

DO $$ DECLARE f regprocedure; BEGIN
  FOREACH f IN ARRAY ARRAY['mg_uuid7()','mg_webhook_event(bigint,text,uuid,jsonb,text)','accounts_low()']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
REVOKE ALL ON FUNCTION tasks_outbox FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mg_uuid7 TO mediagate_app;   -- the default of a column the application inserts
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_endpoints, webhook_secrets, webhook_events, webhook_deliveries, webhook_attempts TO mediagate_app;
GRANT UPDATE (low_credits) ON accounts TO mediagate_app;
