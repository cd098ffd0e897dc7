-- What everyone together did in each hour (counted from the epoch): a row for each thing that is counted.
CREATE TABLE figures (
    hour    BIGINT NOT NULL,
    counted TEXT   NOT NULL,
    count   BIGINT NOT NULL,
    PRIMARY KEY (hour, counted)
) WITH (fillfactor = 80);

-- What is known of the time before.
INSERT INTO figures (hour, counted, count)
SELECT hour, 'allowed', CAST(SUM(allowed) AS BIGINT) FROM key_hours GROUP BY hour HAVING SUM(allowed) > 0
UNION ALL SELECT hour, 'disabled', CAST(SUM(disabled) AS BIGINT) FROM key_hours GROUP BY hour HAVING SUM(disabled) > 0
UNION ALL SELECT hour, 'expired', CAST(SUM(expired) AS BIGINT) FROM key_hours GROUP BY hour HAVING SUM(expired) > 0
UNION ALL SELECT hour, 'insufficient_scope', CAST(SUM(insufficient_scope) AS BIGINT) FROM key_hours GROUP BY hour HAVING SUM(insufficient_scope) > 0
UNION ALL SELECT hour, 'rate_limited', CAST(SUM(rate_limited) AS BIGINT) FROM key_hours GROUP BY hour HAVING SUM(rate_limited) > 0
UNION ALL SELECT hour, 'forbidden_address', CAST(SUM(forbidden_address) AS BIGINT) FROM key_hours GROUP BY hour HAVING SUM(forbidden_address) > 0
UNION ALL SELECT CAST(FLOOR(EXTRACT(EPOCH FROM at) / 3600) AS BIGINT), 'login_failed', CAST(SUM(count) AS BIGINT) FROM events WHERE kind = 'login.failed' GROUP BY 1;

-- A changed password opens a session too.
INSERT INTO figures (hour, counted, count)
SELECT CAST(FLOOR(EXTRACT(EPOCH FROM at) / 3600) AS BIGINT), 'login', CAST(SUM(CASE kind WHEN 'session.opened' THEN 1 ELSE -1 END) AS BIGINT)
FROM events WHERE kind IN ('session.opened', 'password.changed')
GROUP BY 1 HAVING SUM(CASE kind WHEN 'session.opened' THEN 1 ELSE -1 END) > 0;
