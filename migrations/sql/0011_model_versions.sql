-- Models and prices with the time they hold from. The file is what holds where no version does; versions are never rewritten.

-- What every change locks and counts up first: changes take turns, and processes see at a glance that there was one.
CREATE TABLE model_book (is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only), revision bigint NOT NULL DEFAULT 0);
INSERT INTO model_book DEFAULT VALUES;

-- json, not jsonb: the order of an entry's parameters is the order they are shown in.
CREATE TABLE model_versions (model text NOT NULL CHECK (model ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  number int NOT NULL CHECK (number > 0),          -- quotes remember <model>@<number>; a number is never used twice
  kind text NOT NULL CHECK (kind IN ('entry','withdrawn','file')),
  entry json,                                      -- the model's whole entry, without routes: those are rows of their own
  effective_from timestamptz NOT NULL, note text NOT NULL CHECK (note <> ''),
  created_by text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
  cancelled_at timestamptz, cancelled_by text,     -- only before it took effect
  PRIMARY KEY (model, number), CHECK ((kind = 'entry') = (entry IS NOT NULL)),
  CHECK (num_nulls(cancelled_at, cancelled_by) IN (0, 2)), CHECK (cancelled_at < effective_from));

CREATE FUNCTION mg_model_version_fixed() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF OLD.cancelled_at IS NOT NULL OR OLD.effective_from <= clock_timestamp() THEN
    RAISE EXCEPTION 'this model version is history' USING ERRCODE = 'MG005';
  END IF;
  RETURN NEW;                                      -- the role may write nothing but the cancellation
END $$;
REVOKE ALL ON FUNCTION mg_model_version_fixed FROM PUBLIC;
CREATE TRIGGER model_versions_fixed BEFORE UPDATE ON model_versions FOR EACH ROW EXECUTE FUNCTION mg_model_version_fixed();
CREATE TRIGGER model_versions_kept BEFORE DELETE ON model_versions FOR EACH ROW EXECUTE FUNCTION no_rewrite();
CREATE TRIGGER model_versions_whole BEFORE TRUNCATE ON model_versions EXECUTE FUNCTION no_rewrite();

GRANT SELECT ON model_book, model_versions TO mediagate_app;
GRANT UPDATE (revision) ON model_book TO mediagate_app;
GRANT INSERT ON model_versions TO mediagate_app;
GRANT UPDATE (cancelled_at, cancelled_by) ON model_versions TO mediagate_app;
