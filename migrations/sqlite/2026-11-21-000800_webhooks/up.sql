-- Who is told of events. An endpoint of the configuration has its name there, and its secret is only there. `owner` is
-- whose eyes count; empty for the operator's own. `sees_all`: an admin made it. Of several servers on one database the
-- one in `claimed_by` delivers, until `claimed_until`.
CREATE TABLE webhook_endpoints (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT UNIQUE,
    sees_all BOOLEAN NOT NULL,
    url TEXT NOT NULL,
    types TEXT NOT NULL,
    sessions TEXT,
    description TEXT,
    secret TEXT,
    old_secret TEXT,
    old_secret_until BIGINT,
    disabled_reason TEXT,
    failures BIGINT NOT NULL,
    dropped BIGINT NOT NULL,
    last_error TEXT,
    last_error_at BIGINT,
    last_success_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    claimed_by TEXT NOT NULL,
    claimed_until BIGINT NOT NULL
);
CREATE INDEX webhook_endpoints_by_owner ON webhook_endpoints (owner, id);

-- What they are told. A row is written in the transaction of the event that it reports, with a copy of it: the event may
-- be gone before it is delivered. `position` is the order of delivery. `tries` counts from the last time that it was
-- asked for, `attempts` all of them. Nothing refers to the endpoint by a key: an endpoint that another server deletes
-- at the same moment must not make a session's commit fail.
CREATE TABLE webhook_deliveries (
    position INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    endpoint_id TEXT NOT NULL,
    session_key TEXT,
    seq BIGINT,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    next_at BIGINT NOT NULL,
    last_attempt_at BIGINT,
    last_status INTEGER,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (endpoint_id, position) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, id);
CREATE INDEX webhook_deliveries_by_session ON webhook_deliveries (session_key) WHERE session_key IS NOT NULL;
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;
