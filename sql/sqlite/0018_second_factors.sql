-- The second factor of a user. secret: encrypted; enabled_at: NULL until a code has confirmed that the user's app has it.
-- last_step: of the latest code that was good. wrong: wrong codes in a row; rests_until: no code is taken before.
CREATE TABLE second_factors (
    user_id     TEXT    NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret      BLOB    NOT NULL,
    created_at  TEXT    NOT NULL,
    enabled_at  TEXT,
    last_step   INTEGER NOT NULL,
    wrong       INTEGER NOT NULL,
    rests_until TEXT
) STRICT;

-- What a user without their app may type, each once. Only hashes are stored.
CREATE TABLE recovery_codes (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    BLOB NOT NULL,
    PRIMARY KEY (user_id, hash)
) STRICT;

-- By the key that has encrypted them.
CREATE INDEX second_factors_by_key ON second_factors (SUBSTR(secret, 1, 5), user_id);
CREATE INDEX webhooks_by_key ON webhooks (SUBSTR(secret, 1, 5), id);
