-- Format 1. Instants are microseconds since 1970 in UTC. Subjects stand only sealed
-- (AES-256-GCM) beside a keyed hash, `lookup`, that finds them.

CREATE TABLE ledger (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    key_check     BLOB    NOT NULL,
    created       INTEGER NOT NULL,
    -- The last journal line whose acts this file holds: where it begins and ends, its number and its signature.
    journal_line  INTEGER NOT NULL DEFAULT 0,
    journal_end   INTEGER NOT NULL DEFAULT 0,
    journal_seq   INTEGER NOT NULL DEFAULT 0,
    journal_mac   BLOB    NOT NULL
) STRICT;

-- Counters that tell a reader whether what it has kept still holds.
CREATE TABLE sequences (
    one              INTEGER PRIMARY KEY CHECK (one = 1),
    suppressions     INTEGER NOT NULL DEFAULT 0,
    consents         INTEGER NOT NULL DEFAULT 0,
    -- Counts removals alone: after one, the consents must be read anew as a whole.
    consents_removed INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO sequences (one) VALUES (1);

CREATE TABLE requests (
    id                   TEXT    PRIMARY KEY,
    kind                 TEXT    NOT NULL CHECK (kind IN ('device', 'user')),
    regulation           TEXT    NOT NULL,
    state                TEXT    NOT NULL CHECK (state IN ('pending', 'in_progress', 'completed', 'cancelled')),
    received             INTEGER NOT NULL,
    submitted            INTEGER NOT NULL,
    due                  INTEGER NOT NULL,
    due_before_extension INTEGER,
    extension_reason     TEXT,
    started              INTEGER,
    closed               INTEGER,
    reference            TEXT,
    actor                TEXT    NOT NULL,
    run_actor            TEXT,
    step                 TEXT,
    step_detail          TEXT,
    certificate          TEXT
) STRICT;
CREATE INDEX requests_by_state ON requests (state, due);
CREATE INDEX requests_by_time ON requests (submitted);
CREATE INDEX requests_by_reference ON requests (reference) WHERE reference IS NOT NULL;

CREATE TABLE suppressions (
    id          INTEGER PRIMARY KEY,
    request     TEXT    NOT NULL REFERENCES requests (id),
    epoch       INTEGER NOT NULL,
    lookup      BLOB    NOT NULL,
    sealed      BLOB    NOT NULL,
    received    INTEGER NOT NULL,
    lifted_from INTEGER,
    expires     INTEGER NOT NULL,
    UNIQUE (request, lookup)
) STRICT;
CREATE INDEX suppressions_by_lookup ON suppressions (lookup);
CREATE INDEX suppressions_by_expiry ON suppressions (expires);

-- AUTOINCREMENT: a removed row's id must not come back, readers go on from the last id they saw.
CREATE TABLE consents (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    lookup   BLOB    NOT NULL,
    sealed   BLOB    NOT NULL,
    at       INTEGER NOT NULL,
    granted  INTEGER NOT NULL CHECK (granted IN (0, 1)),
    policy   TEXT,
    purposes TEXT    NOT NULL,
    source   TEXT    NOT NULL,
    UNIQUE (lookup, at, granted)
) STRICT;

CREATE TABLE tokens (
    name    TEXT    PRIMARY KEY,
    hash    BLOB    NOT NULL UNIQUE,
    role    TEXT    NOT NULL CHECK (role IN ('ingest', 'analyst', 'compliance', 'admin')),
    partner TEXT,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER
) STRICT;

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    request TEXT,
    detail  TEXT    NOT NULL,
    prev    BLOB    NOT NULL,
    hash    BLOB    NOT NULL
) STRICT;
CREATE INDEX audit_by_request ON audit (request) WHERE request IS NOT NULL;

CREATE TABLE report_runs (
    id        TEXT    PRIMARY KEY,
    name      TEXT    NOT NULL,
    period    TEXT    NOT NULL,
    scheduled INTEGER,
    started   INTEGER NOT NULL,
    finished  INTEGER NOT NULL,
    folder    TEXT,
    error     TEXT,
    detail    TEXT    NOT NULL,
    actor     TEXT    NOT NULL
) STRICT;
CREATE INDEX report_runs_by_name ON report_runs (name, started);

CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
