-- Upstream accounts and routes as rows that administrators change at run time, and the audit of what they did.

-- What every change locks and counts up first: changes take turns, and processes see at a glance that there was one.
CREATE TABLE upstream_book (is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only), revision bigint NOT NULL DEFAULT 0,
  secrets_key_id text);                            -- the key the secrets are sealed with: another one is a mistake
INSERT INTO upstream_book DEFAULT VALUES;

-- A deleted row stays, so that the configuration file never brings the account back.
CREATE TABLE upstreams (name text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
  provider text NOT NULL, concurrency int NOT NULL CHECK (concurrency > 0),
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active','draining','disabled','deleted')),
  newest int NOT NULL DEFAULT 1,                   -- the version for new tasks; numbers are never used twice
  seed_mark bytea, seed_nonce bytea, seed_key_id text, -- sealed SHA-256 of the environment's secret when we last took it
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());

-- All that a running task needs to find its job again, frozen: a new secret, address or option is a new version.
CREATE TABLE upstream_credentials (upstream text NOT NULL REFERENCES upstreams, version int NOT NULL CHECK (version > 0),
  base_url text, options jsonb NOT NULL DEFAULT '{}',
  ciphertext bytea, nonce bytea, key_id text,      -- AES-256-GCM; all NULL: an account without a secret
  created_at timestamptz NOT NULL DEFAULT now(), retired_at timestamptz, PRIMARY KEY (upstream, version),
  CHECK (num_nulls(ciphertext, nonce, key_id) IN (0, 3)));

-- A removed row stays too: for the options of tasks that run, and so that the file never brings the route back.
CREATE TABLE routes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, model text NOT NULL,
  upstream text NOT NULL REFERENCES upstreams, upstream_model text NOT NULL CHECK (upstream_model <> ''),
  priority int NOT NULL DEFAULT 0, weight int NOT NULL DEFAULT 1 CHECK (weight > 0),
  is_enabled boolean NOT NULL DEFAULT true, needs_permission boolean NOT NULL DEFAULT false,
  operations text[], options jsonb NOT NULL DEFAULT '{}', removed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (model, upstream, upstream_model));

CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(),
  actor text NOT NULL, action text NOT NULL, target text NOT NULL, before jsonb, after jsonb, request_id text);
CREATE INDEX audit_target ON audit (target, id DESC);
CREATE TRIGGER audit_fixed BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION no_rewrite();
CREATE TRIGGER audit_kept BEFORE TRUNCATE ON audit EXECUTE FUNCTION no_rewrite();

-- The version that took the task; NULL: none yet, or the newest.
ALTER TABLE tasks ADD COLUMN credential int;

GRANT SELECT ON upstream_book, upstreams, upstream_credentials, routes, audit TO mediagate_app;
GRANT UPDATE (revision, secrets_key_id) ON upstream_book TO mediagate_app;
GRANT INSERT, UPDATE ON upstreams, routes TO mediagate_app;
GRANT INSERT, UPDATE, DELETE ON upstream_credentials TO mediagate_app;
GRANT INSERT ON audit TO mediagate_app;
GRANT UPDATE (credential) ON tasks TO mediagate_app;
