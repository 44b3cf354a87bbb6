-- Accounts, keys, tasks, attempts, ledger, files. Source: the ledger design; the invariants are in app/credits/audit.py.
CREATE TABLE accounts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,
  email text NOT NULL CHECK (length(email) BETWEEN 3 AND 254), is_admin boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active','suspended','closed')),
  posted bigint NOT NULL DEFAULT 0, held bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
  expiring bigint NOT NULL DEFAULT 0,            -- sum of open lots
  entry_seq bigint NOT NULL DEFAULT 0,           -- gapless per account
  in_flight int NOT NULL DEFAULT 0 CHECK (in_flight >= 0), max_in_flight int NOT NULL DEFAULT 20,
  CHECK (posted >= held), CHECK (expiring BETWEEN 0 AND posted)) WITH (fillfactor = 50);
CREATE UNIQUE INDEX accounts_email ON accounts (lower(email));
CREATE TABLE api_keys (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts,
  key_mac bytea NOT NULL UNIQUE CHECK (octet_length(key_mac) = 32), mac_ver smallint NOT NULL DEFAULT 1,
  name text NOT NULL DEFAULT '', last4 text NOT NULL, scopes text[] NOT NULL DEFAULT '{}', models text[], cidrs cidr[],
  rpm int, replaces bigint REFERENCES api_keys,
  expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (id, account_id));
CREATE TABLE key_budgets (   -- apart from api_keys: auth reads never meet this lock
  api_key_id bigint PRIMARY KEY REFERENCES api_keys, limit_amount bigint CHECK (limit_amount >= 0),
  period text NOT NULL DEFAULT 'total' CHECK (period IN ('total','day','month')),
  period_start date NOT NULL DEFAULT '-infinity', spent bigint NOT NULL DEFAULT 0 CHECK (spent >= 0),
  held bigint NOT NULL DEFAULT 0 CHECK (held >= 0), max_in_flight int,
  in_flight int NOT NULL DEFAULT 0 CHECK (in_flight >= 0)) WITH (fillfactor = 50);
CREATE TABLE tasks (id uuid PRIMARY KEY, account_id bigint NOT NULL, api_key_id bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('image','video')), model text NOT NULL, pool text NOT NULL,
  status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued','submitting','uncertain','running',
    'storing','succeeded','failed','cancelled')),
  hold bigint NOT NULL CHECK (hold >= 0), charge bigint, settled_at timestamptz,
  rank timestamptz NOT NULL DEFAULT now(),       -- order inside a pool (fairness)
  wake_at timestamptz NOT NULL DEFAULT now(),    -- next due time AND lease expiry: one clock, the database's
  lease_owner text, lease_token bigint NOT NULL DEFAULT 0, claims int NOT NULL DEFAULT 0,
  attempt_no int NOT NULL DEFAULT 0, upstream_id text, deadline_at timestamptz NOT NULL,
  cancel_requested_at timestamptz, fingerprint bytea, delivered_at timestamptz,
  error_code text, error_detail text, request jsonb NOT NULL DEFAULT '{}', result jsonb,
  operation text NOT NULL GENERATED ALWAYS AS (request->>'operation') STORED,
  progress smallint NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100), started_at timestamptz, deleted_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (api_key_id, account_id) REFERENCES api_keys (id, account_id),
  CHECK ((status IN ('succeeded','failed','cancelled')) = (settled_at IS NOT NULL)),
  CHECK ((settled_at IS NOT NULL) = (charge IS NOT NULL)), CHECK (charge BETWEEN 0 AND hold),
  CHECK (status <> 'failed' OR charge = 0), CHECK (status <> 'running' OR upstream_id IS NOT NULL)
) WITH (fillfactor = 80);
CREATE INDEX tasks_due ON tasks (wake_at) WHERE settled_at IS NULL AND status <> 'queued';
CREATE INDEX tasks_queue ON tasks (pool, rank) WHERE status = 'queued'; CREATE INDEX tasks_acct ON tasks (account_id, created_at DESC);
CREATE INDEX tasks_list ON tasks (account_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX tasks_print ON tasks (api_key_id, fingerprint, created_at) WHERE delivered_at IS NULL;
CREATE UNIQUE INDEX tasks_upstream ON tasks (pool, upstream_id) WHERE upstream_id IS NOT NULL;
CREATE TABLE task_attempts (task_id uuid NOT NULL REFERENCES tasks, attempt_no int NOT NULL, provider text NOT NULL,
  client_token text NOT NULL UNIQUE,             -- '<task>:<n>', sent upstream where it is understood
  state text NOT NULL DEFAULT 'sending' CHECK (state IN
    ('sending','accepted','refused','uncertain','lost','done','failed')),
  upstream_id text, upstream_cost bigint, http_status int, error text,
  sent_at timestamptz NOT NULL DEFAULT now(), resolved_at timestamptz, PRIMARY KEY (task_id, attempt_no));
CREATE UNIQUE INDEX one_open_attempt ON task_attempts (task_id) WHERE state IN ('sending','accepted','uncertain');
CREATE TABLE ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts,
  seq bigint NOT NULL, contra text NOT NULL CHECK (contra IN ('topup','promo','revenue','expired','adjust')),
  kind text NOT NULL CHECK (kind IN ('topup','grant','capture','refund','expire','adjust')),
  amount bigint NOT NULL CHECK (amount <> 0), balance bigint NOT NULL CHECK (balance >= 0),
  task_id uuid REFERENCES tasks, api_key_id bigint REFERENCES api_keys, external_ref text,
  actor text NOT NULL DEFAULT 'system', note text, created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (account_id, seq),
  CHECK ((kind = 'capture') = (contra = 'revenue' AND amount < 0)),
  CHECK (kind NOT IN ('capture','refund') OR task_id IS NOT NULL),
  CHECK (kind NOT IN ('topup','grant','refund') OR amount > 0), CHECK (kind <> 'expire' OR amount < 0),
  CHECK (kind NOT IN ('topup','grant','refund','adjust') OR external_ref IS NOT NULL));
CREATE INDEX ledger_time ON ledger (account_id, created_at);
CREATE UNIQUE INDEX ledger_one_capture ON ledger (task_id) WHERE kind = 'capture';
CREATE UNIQUE INDEX ledger_ref ON ledger (kind, external_ref) WHERE external_ref IS NOT NULL;
CREATE TABLE credit_lots (                        -- only credits that expire; the rest needs no lot
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts,
  ledger_id bigint NOT NULL UNIQUE REFERENCES ledger, amount bigint NOT NULL CHECK (amount > 0),
  remaining bigint NOT NULL CHECK (remaining BETWEEN 0 AND amount), expires_at timestamptz NOT NULL);
CREATE INDEX lots_open ON credit_lots (account_id, expires_at) WHERE remaining > 0;
CREATE TABLE idempotency (account_id bigint NOT NULL REFERENCES accounts, idem_key text NOT NULL CHECK (length(idem_key) BETWEEN 1 AND 255),
  fingerprint bytea NOT NULL, task_id uuid NOT NULL REFERENCES tasks DEFERRABLE INITIALLY DEFERRED,
  created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (account_id, idem_key));
CREATE TABLE files (id uuid PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts, task_id uuid REFERENCES tasks,
  role text NOT NULL CHECK (role IN ('input','mask','result','thumbnail','gif')), position smallint NOT NULL DEFAULT 0,
  field text, width int, height int, duration_ms int, storage_key text NOT NULL UNIQUE,
  state text NOT NULL DEFAULT 'writing' CHECK (state IN ('writing','ready','deleted')), mime text,
  bytes bigint, sha256 bytea, expires_at timestamptz NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
  CHECK (state <> 'ready' OR (sha256 IS NOT NULL AND bytes > 0 AND mime IS NOT NULL)));
CREATE INDEX files_task ON files (task_id); CREATE INDEX files_expiry ON files (expires_at) WHERE state <> 'deleted';
CREATE TABLE task_transitions (from_status text, to_status text, PRIMARY KEY (from_status, to_status));
INSERT INTO task_transitions VALUES ('queued','submitting'),('queued','cancelled'),('queued','failed'),
 ('submitting','running'),('submitting','storing'),('submitting','queued'),('submitting','uncertain'),
 ('submitting','failed'),('submitting','cancelled'),('uncertain','running'),('uncertain','storing'),
 ('uncertain','queued'),('uncertain','failed'),('running','storing'),('running','failed'),
 ('running','cancelled'),('running','queued'),('storing','succeeded'),('storing','failed');
-- What every process of one deployment must agree on, such as a check value of the key pepper.
CREATE TABLE deployment (name text PRIMARY KEY, value bytea NOT NULL);
