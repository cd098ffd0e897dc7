-- When a key's owner has to be told next that it expires or has expired; null: never again. Keys that have expired before
-- this migration, and steps that are over, are not told of.
ALTER TABLE api_keys ADD COLUMN notice_at TEXT;

UPDATE api_keys SET notice_at = CASE
    WHEN expires_at > STRFTIME('%Y-%m-%dT%H:%M:%fZ', 'now', '+7 days')
        THEN STRFTIME('%Y-%m-%dT%H:%M:%fZ', expires_at, '-7 days')
    WHEN expires_at > STRFTIME('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 day')
        THEN STRFTIME('%Y-%m-%dT%H:%M:%fZ', expires_at, '-1 day')
    ELSE expires_at
END
WHERE expires_at > STRFTIME('%Y-%m-%dT%H:%M:%fZ', 'now') AND revoked_at IS NULL AND replaced_by IS NULL;

CREATE INDEX api_keys_by_notice ON api_keys (notice_at, id) WHERE notice_at IS NOT NULL;
