-- Times are microseconds since 1970 UTC, ids and JSON are text. The SQLite folder holds the same tables.
-- Ids, keys and what is searched compare by bytes, whatever the locale of the database.

-- One row per session key that was ever used; it outlives its sessions, so that numbering goes on after a delete.
-- Every append is a compare-and-set on (epoch, last_seq); half of each page is left free, so that these updates stay
-- on their page and touch no index.
CREATE TABLE logs (
    key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    oldest_seq BIGINT NOT NULL
) WITH (fillfactor = 50);

-- One row per append: the events' JSON objects, joined by newlines, exactly as they were sent.
--
-- A heap with an index: rows of one commit lie side by side, as in the SQLite folder, where the reasons stand.
CREATE TABLE event_batches (
    key TEXT COLLATE "C" NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    payload TEXT NOT NULL,
    PRIMARY KEY (key, last_seq)
);

-- One row per conversation; at most one of a key is the present one.
CREATE TABLE sessions (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    key TEXT COLLATE "C" NOT NULL,
    is_current BOOLEAN NOT NULL,
    title TEXT COLLATE "C" NOT NULL,
    owner TEXT NOT NULL,
    visibility TEXT NOT NULL,
    org_id TEXT,
    agent TEXT NOT NULL,
    model TEXT,
    mode TEXT,
    permission_mode TEXT NOT NULL,
    profile TEXT,
    project_id TEXT,
    metadata TEXT NOT NULL,
    archived BOOLEAN NOT NULL,
    archived_at BIGINT,
    is_primary BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_active_at BIGINT NOT NULL,
    message_count BIGINT NOT NULL,
    last_message_preview TEXT,
    busy BOOLEAN NOT NULL,
    queue_depth BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    agent_status TEXT NOT NULL,
    usage TEXT NOT NULL,
    brief TEXT NOT NULL,
    feedback TEXT NOT NULL
);
CREATE INDEX sessions_by_key ON sessions (key);
CREATE UNIQUE INDEX sessions_current_by_key ON sessions (key) WHERE is_current;
CREATE INDEX sessions_current_by_id ON sessions (id) WHERE is_current;

CREATE TABLE turns (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    key TEXT COLLATE "C" NOT NULL,
    session_id TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL,
    -- True while the state is not a terminal one: what a start has to look at.
    unfinished BOOLEAN NOT NULL,
    source TEXT NOT NULL,
    client_id TEXT,
    text TEXT NOT NULL,
    -- Name, type and size of the files; their content is in `attachments`.
    files TEXT NOT NULL,
    metadata TEXT NOT NULL,
    agent TEXT NOT NULL,
    model TEXT,
    mode TEXT,
    permission_mode TEXT,
    attempt BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    error TEXT,
    reason TEXT,
    summary TEXT,
    usage TEXT NOT NULL,
    continued_from TEXT,
    rank BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    steers TEXT
);
CREATE INDEX turns_by_key ON turns (key, id);
CREATE INDEX turns_unfinished ON turns (key) WHERE unfinished;

-- Apart from the turn, so that a change of its state does not write its files again.
CREATE TABLE attachments (
    turn_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
    content TEXT NOT NULL
);

-- `ordinal` counts the messages of a conversation.
CREATE TABLE messages (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    session_id TEXT COLLATE "C" NOT NULL,
    ordinal BIGINT NOT NULL,
    role TEXT NOT NULL,
    parts TEXT NOT NULL,
    turn_id TEXT COLLATE "C",
    agent TEXT,
    client_id TEXT,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX messages_by_session ON messages (session_id, ordinal);

CREATE TABLE choices (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    key TEXT COLLATE "C" NOT NULL,
    turn_id TEXT COLLATE "C" NOT NULL,
    ask_id TEXT NOT NULL,
    pending BOOLEAN NOT NULL,
    kind TEXT NOT NULL,
    title TEXT COLLATE "C" NOT NULL,
    tool TEXT,
    input_summary TEXT,
    options TEXT NOT NULL,
    questions TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    outcome TEXT,
    source TEXT,
    resolved_at BIGINT
);
CREATE INDEX choices_by_key ON choices (key);
CREATE INDEX choices_pending ON choices (key) WHERE pending;

-- Rules of the present conversation of a key.
CREATE TABLE rules (
    key TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    agent TEXT NOT NULL,
    tool TEXT NOT NULL,
    input_summary TEXT,
    allow BOOLEAN NOT NULL,
    PRIMARY KEY (key, position)
);

CREATE TABLE native_ids (
    session_id TEXT COLLATE "C" NOT NULL,
    agent TEXT NOT NULL,
    native_id TEXT NOT NULL,
    PRIMARY KEY (session_id, agent)
);

-- `session_key` is null for calls that belong to no session.
CREATE TABLE idempotency_keys (
    scope TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    request_hash TEXT NOT NULL,
    outcome TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    session_key TEXT COLLATE "C",
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_by_session ON idempotency_keys (session_key) WHERE session_key IS NOT NULL;

-- Process groups that were started and not seen to end.
CREATE TABLE processes (
    pgid INTEGER NOT NULL PRIMARY KEY,
    started_ticks BIGINT NOT NULL,
    boot_id TEXT NOT NULL,
    agent TEXT NOT NULL,
    session TEXT NOT NULL,
    marker TEXT NOT NULL
);
