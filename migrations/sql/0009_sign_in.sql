-- People sign in to the console: passwords, sessions, one-time links, and the key in the books of what a session spends.
ALTER TABLE accounts ADD COLUMN language text CHECK (language IN ('en', 'zh_CN')),
  ADD COLUMN theme text NOT NULL DEFAULT 'system' CHECK (theme IN ('system', 'light', 'dark')),
  ADD COLUMN is_self_registered boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN accounts.language IS 'of the console; NULL: what the browser asks for';
COMMENT ON COLUMN accounts.is_self_registered IS 'its e-mail is what somebody typed: no other way in is tied to it';
GRANT INSERT (is_self_registered), UPDATE (language, theme, is_self_registered) ON accounts TO mediagate_app;

-- What a session makes and spends is written under a key of its account, as everything is. Nobody knows a secret for it.
ALTER TABLE api_keys ADD COLUMN is_console boolean NOT NULL DEFAULT false,
  ADD CONSTRAINT api_keys_console CHECK (NOT is_console OR (revoked_at IS NULL AND expires_at IS NULL AND replaces IS NULL));
CREATE UNIQUE INDEX api_keys_one_console ON api_keys (account_id) WHERE is_console;

CREATE TABLE passwords (account_id bigint PRIMARY KEY REFERENCES accounts, hash text NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE passwords IS 'argon2id, apart from accounts: what lists accounts never holds a hash';

CREATE TABLE sessions (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts,
  token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
  created_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL,
  user_agent text NOT NULL DEFAULT '' CHECK (length(user_agent) <= 300), peer text) WITH (fillfactor = 80);
CREATE INDEX sessions_account ON sessions (account_id, id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE sign_in_links (token_hash bytea PRIMARY KEY CHECK (octet_length(token_hash) = 32),
  account_id bigint NOT NULL REFERENCES accounts, purpose text NOT NULL CHECK (purpose IN ('invite', 'reset', 'first_admin')),
  created_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL, used_at timestamptz);
CREATE INDEX sign_in_links_account ON sign_in_links (account_id);
CREATE INDEX sign_in_links_expiry ON sign_in_links (expires_at);

-- Failed tries by whom and from where, as a hash of both: it holds across processes, and tells nothing about anybody.
CREATE TABLE sign_in_tries (mark bytea PRIMARY KEY CHECK (octet_length(mark) = 32), tries int NOT NULL CHECK (tries > 0),
  last_at timestamptz NOT NULL, blocked_until timestamptz NOT NULL) WITH (fillfactor = 80);
CREATE INDEX sign_in_tries_age ON sign_in_tries (last_at);
CREATE TABLE sign_in_places (mark bytea PRIMARY KEY CHECK (octet_length(mark) = 32), last_at timestamptz NOT NULL);
COMMENT ON TABLE sign_in_places IS 'who signed in from where lately: what others fail at there does not keep them out';
CREATE INDEX sign_in_places_age ON sign_in_places (last_at);

-- Who an OpenID provider says somebody is: by its subject, never by an e-mail that may pass to another person.
CREATE TABLE identities (issuer text NOT NULL, subject text NOT NULL, account_id bigint NOT NULL REFERENCES accounts,
  created_at timestamptz NOT NULL DEFAULT now(), seen_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (issuer, subject));
CREATE INDEX identities_account ON identities (account_id);
CREATE TABLE oidc_states (state_hash bytea PRIMARY KEY CHECK (octet_length(state_hash) = 32), expires_at timestamptz NOT NULL);
COMMENT ON TABLE oidc_states IS 'sign-ins that came back from the provider: none comes back twice';
CREATE INDEX oidc_states_expiry ON oidc_states (expires_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON passwords, sessions, sign_in_links, sign_in_tries, sign_in_places,
  identities, oidc_states TO mediagate_app;
