-- Who may call, and what was done. The SQLite folder holds the same tables.

-- Names are what sessions are owned by; they are never given to somebody else, so users are disabled, not deleted.
CREATE TABLE users (
    name TEXT NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    disabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);

-- `made_with` is the token behind the login that made this one, and takes it along when it is revoked: whoever stole a
-- token must not keep another. `hash` is the SHA-256 of the token as hex; the token itself is nowhere. Rows stay when a token is revoked: a server
-- that has ever had a token never goes back to open mode.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    user_name TEXT NOT NULL REFERENCES users (name),
    hash TEXT NOT NULL UNIQUE,
    made_with TEXT REFERENCES tokens (id),
    label TEXT,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX tokens_by_user ON tokens (user_name, id);

-- Browsers that are logged in: the hash of the cookie, and the token that it stands for and ends with.
CREATE TABLE logins (
    hash TEXT NOT NULL PRIMARY KEY,
    token_id TEXT NOT NULL REFERENCES tokens (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE TABLE orgs (
    name TEXT NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE org_members (
    org TEXT NOT NULL REFERENCES orgs (name),
    user_name TEXT NOT NULL REFERENCES users (name),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (org, user_name)
);

-- One row: `version` counts the changes of the tables above, whichever process makes them; `seen` is the newest
-- version that a running server goes by.
CREATE TABLE account_state (
    id INTEGER NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    seen BIGINT NOT NULL
);
INSERT INTO account_state (id, version, seen) VALUES (1, 0, 0);

-- `owner` is the user whose session it was about, or the user that it was about: who may read the entry beside admins.
CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    token_id TEXT,
    action TEXT NOT NULL,
    session_key TEXT,
    owner TEXT NOT NULL,
    detail TEXT NOT NULL,
    ip TEXT
);
CREATE INDEX audit_by_session ON audit (session_key, id);
CREATE INDEX audit_by_owner ON audit (owner, id);
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END
$$;
CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- What users see of others' sessions.
CREATE INDEX sessions_current_by_owner ON sessions (owner, id) WHERE is_current;
