-- Codes that are worth credits, and credits that expire.

-- A code is 100 random bits, so its plain SHA-256 cannot be guessed back; the code itself is shown once and stored nowhere.
CREATE TABLE redeem_codes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, batch uuid NOT NULL,
  code_hash bytea NOT NULL UNIQUE CHECK (octet_length(code_hash) = 32), last4 text NOT NULL,
  kind text NOT NULL CHECK (kind IN ('topup','grant')), amount bigint NOT NULL CHECK (amount > 0),
  note text NOT NULL DEFAULT '', created_by text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz, revoked_at timestamptz,
  redeemed_at timestamptz, account_id bigint REFERENCES accounts, ledger_id bigint UNIQUE REFERENCES ledger,
  CHECK (num_nulls(redeemed_at, account_id, ledger_id) IN (0, 3)), CHECK (revoked_at IS NULL OR redeemed_at IS NULL));
CREATE INDEX redeem_codes_batch ON redeem_codes (batch, id DESC);
CREATE INDEX redeem_codes_account ON redeem_codes (account_id) WHERE account_id IS NOT NULL;
-- Wrong codes that came with a key in its present window. By key, the console's too: one that leaked locks out no other.
CREATE TABLE redeem_tries (api_key_id bigint PRIMARY KEY REFERENCES api_keys, wrong int NOT NULL DEFAULT 0,
  since timestamptz NOT NULL DEFAULT now());

-- REDEEM: one code, one ledger line, whoever comes at once. A wrong code is an outcome and no error: it must be counted.
-- outcome: ok, again (this account had it before), unknown, used, revoked, expired, throttled (wait_s).
-- Lock order: redeem_tries -> redeem_codes -> accounts. MG411: the account may not.
CREATE FUNCTION mg_redeem(p_account bigint, p_key bigint, p_hash bytea, p_actor text, p_tries int, p_window_s int,
  OUT outcome text, OUT code bigint, OUT entry bigint, OUT amount bigint, OUT balance bigint, OUT wait_s int) LANGUAGE plpgsql AS $$
DECLARE c redeem_codes; t redeem_tries; BEGIN
  PERFORM 1 FROM accounts a JOIN api_keys k ON k.account_id = a.id
    WHERE a.id = p_account AND a.state = 'active' AND k.id = p_key;
  IF NOT FOUND THEN RAISE EXCEPTION 'suspended' USING ERRCODE = 'MG411'; END IF;
  INSERT INTO redeem_tries (api_key_id) VALUES (p_key) ON CONFLICT DO NOTHING;
  SELECT * INTO t FROM redeem_tries WHERE api_key_id = p_key FOR NO KEY UPDATE;
  IF t.since <= now() - p_window_s * interval '1 second' THEN t.wrong := 0; t.since := now(); END IF;
  IF t.wrong >= p_tries THEN
    outcome := 'throttled'; wait_s := ceil(extract(epoch FROM t.since - now()) + p_window_s); RETURN; END IF;
  SELECT * INTO c FROM redeem_codes WHERE code_hash = p_hash FOR NO KEY UPDATE;
  code := c.id; amount := c.amount;
  outcome := CASE WHEN c.id IS NULL THEN 'unknown' WHEN c.account_id = p_account THEN 'again'
    WHEN c.redeemed_at IS NOT NULL THEN 'used' WHEN c.revoked_at IS NOT NULL THEN 'revoked'
    WHEN c.expires_at <= now() THEN 'expired' ELSE 'ok' END;
  IF outcome = 'again' THEN entry := c.ledger_id;
  ELSIF outcome = 'ok' THEN
    entry := mg_post(p_account, c.kind, CASE c.kind WHEN 'topup' THEN 'topup' ELSE 'promo' END, c.amount,
      'redeem:' || c.id, p_actor, NULL, NULL, nullif(c.note, ''));
    UPDATE redeem_codes SET redeemed_at = now(), account_id = p_account, ledger_id = entry WHERE id = c.id;
  ELSE UPDATE redeem_tries SET wrong = t.wrong + 1, since = t.since WHERE api_key_id = p_key; END IF;
  SELECT l.balance INTO balance FROM ledger l WHERE l.id = entry;
END $$;

-- Expires what is due, the oldest first. What a running task holds stays until that task has ended.
CREATE FUNCTION mg_expire_due(p_most int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE l record; v bigint := 0; BEGIN
  FOR l IN SELECT c.id FROM credit_lots c JOIN accounts a ON a.id = c.account_id
    WHERE c.remaining > 0 AND c.expires_at <= now() AND a.posted > a.held ORDER BY c.account_id, c.expires_at LIMIT p_most LOOP
    v := v + mg_expire(l.id);
  END LOOP;
  RETURN v;
END $$;

-- The application's role may not write the column: no stray UPDATE makes an administrator of everybody.
CREATE FUNCTION mg_set_admin(p_account bigint, p_is_admin boolean) RETURNS void LANGUAGE sql AS $$
  UPDATE accounts SET is_admin = p_is_admin WHERE id = p_account AND state <> 'closed'
$$;

DO $$ DECLARE f regprocedure; BEGIN
  FOREACH f IN ARRAY ARRAY['mg_redeem(bigint,bigint,bytea,text,int,int)','mg_expire_due(int)',
    'mg_set_admin(bigint,boolean)']::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp', f);
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO mediagate_app', f);
  END LOOP;
END $$;
GRANT SELECT ON redeem_codes TO mediagate_app;
GRANT INSERT (batch, code_hash, last4, kind, amount, note, created_by, expires_at), UPDATE (revoked_at) ON redeem_codes TO mediagate_app;
