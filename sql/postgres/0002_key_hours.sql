-- How often a key was presented in each hour (counted from the epoch), by how that ended, and when it was allowed last:
-- one row to write for a key that is used. It refers to no other table, or each row written would lock the key's own.
CREATE TABLE key_hours (
    key_id          UUID   NOT NULL,
    hour            BIGINT NOT NULL,
    allowed         BIGINT NOT NULL,
    disabled        BIGINT NOT NULL,
    expired         BIGINT NOT NULL,
    last_allowed_at TIMESTAMPTZ,
    PRIMARY KEY (key_id, hour)
) WITH (fillfactor = 80);

-- Rows come in the order of their hours: a summary of each range of pages finds old ones, and costs nothing to keep.
CREATE INDEX key_hours_by_hour ON key_hours USING brin (hour);

INSERT INTO key_hours (key_id, hour, allowed, disabled, expired)
SELECT key_id, CAST(EXTRACT(EPOCH FROM hour) / 3600 AS BIGINT),
       CAST(SUM(CASE outcome WHEN 'allowed' THEN count ELSE 0 END) AS BIGINT),
       CAST(SUM(CASE outcome WHEN 'disabled' THEN count ELSE 0 END) AS BIGINT),
       CAST(SUM(CASE outcome WHEN 'expired' THEN count ELSE 0 END) AS BIGINT)
FROM key_usage GROUP BY key_id, hour;

DROP TABLE key_usage;

-- key_last_use keeps when a key was allowed last in hours that are no longer kept.
