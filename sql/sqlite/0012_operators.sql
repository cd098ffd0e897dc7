-- Pages of users: the active and the inactive ones of each kind are found in the order of ids and in that of e-mails.
-- Written as the statements of pages are (src/store/sql/user_rows.rs).
CREATE INDEX users_in_groups ON users ((CASE WHEN is_active THEN kind ELSE '-' || kind END || ' ' || CAST(id AS TEXT)))
    WHERE deleted_at IS NULL;
CREATE INDEX users_in_groups_by_email ON users ((CASE WHEN is_active THEN kind ELSE '-' || kind END || ' ' || email))
    WHERE deleted_at IS NULL;

-- The operators. Written as the statement that looks for one is (src/store/sql/operators.rs).
CREATE INDEX users_operators ON users (id) WHERE kind = 'user' AND is_active
    AND REPLACE(' ' || scopes || ' ', ' keyward:admin ', '') <> ' ' || scopes || ' ';

-- One row for each lock; it is held until the transaction ends.
CREATE TABLE locks (
    name TEXT NOT NULL PRIMARY KEY
) STRICT;

INSERT INTO locks (name) VALUES ('operators');

-- hash: SHA-256 of the token, which is kept nowhere. kind: what it is good for.
CREATE TABLE one_time_tokens (
    id         TEXT NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind       TEXT NOT NULL,
    hash       BLOB NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;

CREATE INDEX one_time_tokens_by_user ON one_time_tokens (user_id, kind, created_at, id);
CREATE INDEX one_time_tokens_by_expiry ON one_time_tokens (expires_at);
