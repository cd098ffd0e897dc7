-- What a user may do, and what may be told of a user and a key.
--
-- kind: user or service; a service owns keys and never logs in. scopes: what the user may do and may hand to their keys,
-- separated by spaces; one that ends in * stands for all that begin so. metadata: a JSON object. max_keys: in place of
-- the installation's limit. password_hash may be empty from now on: there is no password.
ALTER TABLE users
    ADD COLUMN kind TEXT NOT NULL DEFAULT 'user',
    ADD COLUMN scopes TEXT NOT NULL DEFAULT '',
    ADD COLUMN metadata TEXT,
    ADD COLUMN email_verified BOOLEAN NOT NULL DEFAULT FALSE,
    ADD COLUMN max_keys BIGINT;

-- external_id: the owner's own id of whom the key is for. allowed_ips: networks separated by spaces.
ALTER TABLE api_keys
    ADD COLUMN external_id TEXT,
    ADD COLUMN metadata TEXT,
    ADD COLUMN allowed_ips TEXT;

ALTER TABLE key_hours ADD COLUMN forbidden_address BIGINT NOT NULL DEFAULT 0;

-- The operator who did it, if they are a user.
ALTER TABLE events ADD COLUMN actor_user_id UUID;

-- Until now anyone could write any scope on a key. Those that would be powers from now on, and patterns, are taken off:
-- they must not come alive when their owner is granted something.
UPDATE api_keys SET scopes = (
    SELECT COALESCE(STRING_AGG(scope, ' ' ORDER BY place), '')
    FROM UNNEST(STRING_TO_ARRAY(api_keys.scopes, ' ')) WITH ORDINALITY AS each (scope, place)
    WHERE LEFT(scope, 8) <> 'keyward:' AND RIGHT(scope, 1) <> '*'
)
WHERE POSITION(' keyward:' IN ' ' || scopes) > 0 OR POSITION('* ' IN scopes || ' ') > 0;

-- Owners get what their usable keys have, so that these keys go on working: the most common first, up to 2 KB.
UPDATE users SET scopes = granted.scopes
FROM (
    SELECT user_id, STRING_AGG(scope, ' ' ORDER BY keys DESC, scope COLLATE "C") AS scopes
    FROM (
        SELECT user_id, scope, keys,
               SUM(LENGTH(scope) + 1) OVER (PARTITION BY user_id ORDER BY keys DESC, scope COLLATE "C") AS length
        FROM (
            SELECT user_id, scope, COUNT(*) AS keys
            FROM api_keys, UNNEST(STRING_TO_ARRAY(api_keys.scopes, ' ')) AS scope
            WHERE api_keys.scopes <> '' AND ends_at > CURRENT_TIMESTAMP
            GROUP BY user_id, scope
        ) AS used
    ) AS ranked
    WHERE length <= 2049
    GROUP BY user_id
) AS granted
WHERE users.id = granted.user_id AND users.deleted_at IS NULL;

INSERT INTO events (id, at, kind, user_id, actor, subject, subject_id, details, count)
SELECT GEN_RANDOM_UUID(), DATE_TRUNC('milliseconds', CURRENT_TIMESTAMP), 'user.scopes_changed', id, 'system', 'user', id,
       '{"granted":["' || REPLACE(scopes, ' ', '","') || '"],"withdrawn":[]}', 1
FROM users WHERE scopes <> '';
