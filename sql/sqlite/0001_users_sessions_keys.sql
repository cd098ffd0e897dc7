-- Ids are UUIDs and times RFC 3339 in UTC with milliseconds, both as text that sorts.

CREATE TABLE users (
    id            TEXT    NOT NULL PRIMARY KEY,
    email         TEXT    NOT NULL UNIQUE,
    name          TEXT,
    password_hash TEXT    NOT NULL,
    is_active     INTEGER NOT NULL,
    created_at    TEXT    NOT NULL,
    last_login_at TEXT
) STRICT;

-- generation: moved on by each refresh, at rotated_at. An ended session stays until it would have expired.
CREATE TABLE sessions (
    id         TEXT    NOT NULL PRIMARY KEY,
    user_id    TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    created_at TEXT    NOT NULL,
    rotated_at TEXT,
    expires_at TEXT    NOT NULL,
    ended_at   TEXT,
    end_reason TEXT,
    ip         TEXT    NOT NULL,
    user_agent TEXT
) STRICT;

CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- hash: SHA-256 of the key, which is kept nowhere. hint: what the owner tells it by.
CREATE TABLE api_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash         BLOB    NOT NULL UNIQUE,
    hint         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    is_active    INTEGER NOT NULL,
    expires_at   TEXT,
    created_at   TEXT    NOT NULL,
    revoked_at   TEXT
) STRICT;

CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);

-- Written by one thread a second. Apart from api_keys, which is read for every key that is not remembered.
CREATE TABLE key_last_use (
    key_id TEXT NOT NULL PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    at     TEXT NOT NULL
) STRICT;

-- How often a key was presented in each hour, and how that ended.
CREATE TABLE key_usage (
    key_id  TEXT    NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    hour    TEXT    NOT NULL,
    outcome TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour, outcome)
) STRICT, WITHOUT ROWID;

CREATE INDEX key_usage_by_hour ON key_usage (hour);
