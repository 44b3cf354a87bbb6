-- A key and its successor share one budget: what the one spends or holds is gone for the other, and so are its places.
ALTER TABLE key_budgets ADD COLUMN family bigint REFERENCES api_keys;
COMMENT ON COLUMN key_budgets.family IS 'the first key of those that share this budget; NULL: this key is alone';
CREATE INDEX key_budgets_family ON key_budgets (family) WHERE family IS NOT NULL;
GRANT INSERT (family), UPDATE (family) ON key_budgets TO mediagate_app;
ALTER TABLE api_keys ADD CONSTRAINT api_keys_rpm CHECK (rpm BETWEEN 1 AND 1000000), ADD COLUMN life interval;
COMMENT ON COLUMN api_keys.life IS 'how long it was to work when it was made, whatever a rotation did to expires_at; NULL: for ever';
-- A key that was rotated has lost its own expiry: the first one at the end of its line still tells it.
WITH RECURSIVE line AS (
  SELECT id, replaces, id AS last FROM api_keys k WHERE NOT EXISTS (SELECT FROM api_keys s WHERE s.replaces = k.id)
  UNION ALL SELECT k.id, k.replaces, l.last FROM line l JOIN api_keys k ON k.id = l.replaces)
UPDATE api_keys k SET life = e.expires_at - e.created_at
  FROM (SELECT id, min(last) AS last FROM line GROUP BY id) l JOIN api_keys e ON e.id = l.last WHERE k.id = l.id;

-- The first day of a budget's present period, as mg_reserve counts it.
CREATE FUNCTION mg_period_start(p_period text) RETURNS date LANGUAGE sql STABLE
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT CASE p_period WHEN 'day' THEN (now() AT TIME ZONE 'UTC')::date
     WHEN 'month' THEN date_trunc('month', now() AT TIME ZONE 'UTC')::date ELSE '-infinity' END
$$;

-- The last word on what a family shares. mg_reserve inserts the task when it holds the lock of the account's row, which all
-- keys of a family have in common: so no two of them look at once, and this one sees what the others have committed.
CREATE FUNCTION mg_family_budget() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE b key_budgets; v_gone bigint; v_busy bigint; BEGIN
  SELECT * INTO b FROM key_budgets WHERE api_key_id = NEW.api_key_id;
  IF b.family IS NULL THEN RETURN NULL; END IF;
  SELECT sum(held + CASE WHEN period_start >= mg_period_start(b.period) THEN spent ELSE 0 END), sum(in_flight)
    INTO v_gone, v_busy FROM key_budgets WHERE family = b.family;
  IF v_gone > b.limit_amount THEN RAISE EXCEPTION 'key budget' USING ERRCODE = 'MG403'; END IF;
  IF v_busy > b.max_in_flight THEN RAISE EXCEPTION 'key busy' USING ERRCODE = 'MG429'; END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER tasks_family_budget AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION mg_family_budget();

REVOKE ALL ON FUNCTION mg_period_start, mg_family_budget FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mg_period_start TO mediagate_app;
