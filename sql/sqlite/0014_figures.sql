-- What everyone together did in each hour (counted from the epoch): a row for each thing that is counted.
CREATE TABLE figures (
    hour    INTEGER NOT NULL,
    counted TEXT    NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (hour, counted)
) STRICT, WITHOUT ROWID;

-- What is known of the time before.
INSERT INTO figures (hour, counted, count)
SELECT hour, 'allowed', SUM(allowed) FROM key_hours GROUP BY hour HAVING SUM(allowed) > 0
UNION ALL SELECT hour, 'disabled', SUM(disabled) FROM key_hours GROUP BY hour HAVING SUM(disabled) > 0
UNION ALL SELECT hour, 'expired', SUM(expired) FROM key_hours GROUP BY hour HAVING SUM(expired) > 0
UNION ALL SELECT hour, 'insufficient_scope', SUM(insufficient_scope) FROM key_hours GROUP BY hour HAVING SUM(insufficient_scope) > 0
UNION ALL SELECT hour, 'rate_limited', SUM(rate_limited) FROM key_hours GROUP BY hour HAVING SUM(rate_limited) > 0
UNION ALL SELECT hour, 'forbidden_address', SUM(forbidden_address) FROM key_hours GROUP BY hour HAVING SUM(forbidden_address) > 0
UNION ALL SELECT unixepoch(at) / 3600, 'login_failed', SUM(count) FROM events WHERE kind = 'login.failed' GROUP BY 1;

-- A changed password opens a session too.
INSERT INTO figures (hour, counted, count)
SELECT unixepoch(at) / 3600, 'login', SUM(CASE kind WHEN 'session.opened' THEN 1 ELSE -1 END)
FROM events WHERE kind IN ('session.opened', 'password.changed')
GROUP BY 1 HAVING SUM(CASE kind WHEN 'session.opened' THEN 1 ELSE -1 END) > 0;
