-- What a user may do, and what may be told of a user and a key.
--
-- kind: user or service; a service owns keys and never logs in. scopes: what the user may do and may hand to their keys,
-- separated by spaces; one that ends in * stands for all that begin so. metadata: a JSON object. max_keys: in place of
-- the installation's limit. password_hash may be empty from now on: there is no password.
ALTER TABLE users ADD COLUMN kind TEXT NOT NULL DEFAULT 'user';
ALTER TABLE users ADD COLUMN scopes TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN metadata TEXT;
ALTER TABLE users ADD COLUMN email_verified INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN max_keys INTEGER;

-- external_id: the owner's own id of whom the key is for. allowed_ips: networks separated by spaces.
ALTER TABLE api_keys ADD COLUMN external_id TEXT;
ALTER TABLE api_keys ADD COLUMN metadata TEXT;
ALTER TABLE api_keys ADD COLUMN allowed_ips TEXT;

ALTER TABLE key_hours ADD COLUMN forbidden_address INTEGER NOT NULL DEFAULT 0;

-- The operator who did it, if they are a user.
ALTER TABLE events ADD COLUMN actor_user_id TEXT;

-- Until now anyone could write any scope on a key. Those that would be powers from now on, and patterns, are taken off:
-- they must not come alive when their owner is granted something.
UPDATE api_keys SET scopes = (
    SELECT COALESCE(GROUP_CONCAT(value, ' '), '')
    FROM JSON_EACH('["' || REPLACE(api_keys.scopes, ' ', '","') || '"]')
    WHERE SUBSTR(value, 1, 8) <> 'keyward:' AND SUBSTR(value, -1) <> '*'
)
WHERE INSTR(' ' || scopes, ' keyward:') > 0 OR INSTR(scopes || ' ', '* ') > 0;

-- Owners get what their usable keys have, so that these keys go on working: the most common first, up to 2 KB.
UPDATE users SET scopes = granted.scopes
FROM (
    SELECT user_id, GROUP_CONCAT(scope, ' ') AS scopes
    FROM (
        SELECT user_id, scope,
               SUM(LENGTH(scope) + 1) OVER (PARTITION BY user_id ORDER BY keys DESC, scope) AS length
        FROM (
            SELECT api_keys.user_id, each.value AS scope, COUNT(*) AS keys
            FROM api_keys, JSON_EACH('["' || REPLACE(api_keys.scopes, ' ', '","') || '"]') AS each
            WHERE api_keys.scopes <> '' AND ends_at > STRFTIME('%Y-%m-%dT%H:%M:%fZ', 'now')
            GROUP BY api_keys.user_id, each.value
        )
        ORDER BY user_id, keys DESC, scope
    )
    WHERE length <= 2049
    GROUP BY user_id
) AS granted
WHERE users.id = granted.user_id AND users.deleted_at IS NULL;

INSERT INTO events (id, at, kind, user_id, actor, subject, subject_id, details, count)
SELECT LOWER(HEX(RANDOMBLOB(4)) || '-' || HEX(RANDOMBLOB(2)) || '-4' || SUBSTR(HEX(RANDOMBLOB(2)), 2) || '-8'
             || SUBSTR(HEX(RANDOMBLOB(2)), 2) || '-' || HEX(RANDOMBLOB(6))),
       STRFTIME('%Y-%m-%dT%H:%M:%fZ', 'now'), 'user.scopes_changed', id, 'system', 'user', id,
       '{"granted":["' || REPLACE(scopes, ' ', '","') || '"],"withdrawn":[]}', 1
FROM users WHERE scopes <> '';
