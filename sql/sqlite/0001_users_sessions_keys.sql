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
    last_used_at TEXT,
    created_at   TEXT    NOT NULL,
    revoked_at   TEXT
) STRICT;

CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);
