-- When a key's owner has to be told next that it expires or has expired; null: never again. Keys that have expired before
-- this migration, and steps that are over, are not told of.
ALTER TABLE api_keys ADD COLUMN notice_at TIMESTAMPTZ;

UPDATE api_keys SET notice_at = CASE
    WHEN expires_at > now() + INTERVAL '168 hours' THEN expires_at - INTERVAL '168 hours'
    WHEN expires_at > now() + INTERVAL '24 hours' THEN expires_at - INTERVAL '24 hours'
    ELSE expires_at
END
WHERE expires_at > now() AND revoked_at IS NULL AND replaced_by IS NULL;

CREATE INDEX api_keys_by_notice ON api_keys (notice_at, id) WHERE notice_at IS NOT NULL;
