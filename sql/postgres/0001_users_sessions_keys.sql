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
    last_used_at TIMESTAMPTZ,
    created_at   TIMESTAMPTZ NOT NULL,
    revoked_at   TIMESTAMPTZ
);

CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at);
