-- When a key ends or has ended: the earlier of its expiry and its revocation, or never, which is as late as times get.
-- Made from the two by the database, so that it is never another. What is usable, what has ended and what is kept no
-- longer is each found in its order.
ALTER TABLE api_keys ADD COLUMN ends_at TIMESTAMPTZ NOT NULL GENERATED ALWAYS AS (
    LEAST(expires_at, revoked_at, TIMESTAMPTZ '9999-12-31 23:59:59.999Z')
) STORED;

CREATE INDEX api_keys_by_user_and_end ON api_keys (user_id, ends_at, id);
CREATE INDEX api_keys_by_end ON api_keys (ends_at, id);

-- Pages of a user's keys have one order, also of those that were made in the same millisecond.
DROP INDEX api_keys_by_user;
CREATE INDEX api_keys_by_user ON api_keys (user_id, created_at, id);
