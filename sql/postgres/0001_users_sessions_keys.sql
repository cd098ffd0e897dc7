CREATE TABLE users (
    id            UUID        NOT NULL PRIMARY KEY,
    email         TEXT        NOT NULL UNIQUE,
    name          TEXT,
    password_hash TEXT        NOT NULL,
    is_active     BOOLEAN     NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL,
    last_login_at TIMESTAMPTZ
);

-- generation: moved on by each refresh, at rotated_at. An ended session stays until it would have expired.
CREATE TABLE sessions (
    id         UUID        NOT NULL PRIMARY KEY,
    user_id    UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    generation BIGINT      NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    rotated_at TIMESTAMPTZ,
    expires_at TIMESTAMPTZ NOT NULL,
    ended_at   TIMESTAMPTZ,
    end_reason TEXT,
    ip         TEXT        NOT NULL,
    user_agent TEXT
);

CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- hash: SHA-256 of the key, which is kept nowhere. hint: what the owner tells it by.
CREATE TABLE api_keys (
    id           UUID        NOT NULL PRIMARY KEY,
    user_id      UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash         BYTEA       NOT NULL UNIQUE,
    hint         TEXT        NOT NULL,
    name         TEXT        NOT NULL,
    is_active    BOOLEAN     NOT NULL,
    expires_at   TIMESTAMPTZ,
    created_at   TIMESTAMPTZ NOT NULL,
    revoked_at   TIMESTAMPTZ
);

CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);

-- Written by one thread a second. Apart from api_keys, which is read for every key that is not remembered.
CREATE TABLE key_last_use (
    key_id UUID NOT NULL PRIMARY KEY REFERENCES api_keys (id) ON DELETE CASCADE,
    at     TIMESTAMPTZ NOT NULL
);

-- How often a key was presented in each hour, and how that ended.
CREATE TABLE key_usage (
    key_id  UUID    NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    hour    TIMESTAMPTZ NOT NULL,
    outcome TEXT    NOT NULL,
    count   BIGINT  NOT NULL,
    PRIMARY KEY (key_id, hour, outcome)
);

CREATE INDEX key_usage_by_hour ON key_usage (hour);
