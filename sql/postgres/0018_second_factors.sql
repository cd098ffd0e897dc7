-- The second factor of a user. secret: encrypted; enabled_at: NULL until a code has confirmed that the user's app has it.
-- last_step: of the latest code that was good. wrong: wrong codes in a row; rests_until: no code is taken before.
CREATE TABLE second_factors (
    user_id     UUID        NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret      BYTEA       NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    enabled_at  TIMESTAMPTZ,
    last_step   BIGINT      NOT NULL,
    wrong       BIGINT      NOT NULL,
    rests_until TIMESTAMPTZ
);

-- What a user without their app may type, each once. Only hashes are stored.
CREATE TABLE recovery_codes (
    user_id UUID  NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    BYTEA NOT NULL,
    PRIMARY KEY (user_id, hash)
);

-- By the key that has encrypted them.
CREATE INDEX second_factors_by_key ON second_factors (SUBSTR(secret, 1, 5), user_id);
CREATE INDEX webhooks_by_key ON webhooks (SUBSTR(secret, 1, 5), id);
