-- How often a key was presented in each hour (counted from the epoch), by how that ended, and when it was allowed last:
-- one row to write for a key that is used.
CREATE TABLE key_hours (
    key_id          TEXT    NOT NULL,
    hour            INTEGER NOT NULL,
    allowed         INTEGER NOT NULL,
    disabled        INTEGER NOT NULL,
    expired         INTEGER NOT NULL,
    last_allowed_at TEXT,
    PRIMARY KEY (key_id, hour)
) STRICT, WITHOUT ROWID;

CREATE INDEX key_hours_by_hour ON key_hours (hour);

INSERT INTO key_hours (key_id, hour, allowed, disabled, expired)
SELECT key_id, unixepoch(hour) / 3600,
       SUM(CASE outcome WHEN 'allowed' THEN count ELSE 0 END),
       SUM(CASE outcome WHEN 'disabled' THEN count ELSE 0 END),
       SUM(CASE outcome WHEN 'expired' THEN count ELSE 0 END)
FROM key_usage GROUP BY key_id, hour;

DROP TABLE key_usage;

-- key_last_use keeps when a key was allowed last in hours that are no longer kept.
