-- The audit trail. user_id: whose account it concerns; no reference, so that what happened to an account outlives it.
-- actor_id: the session or key. details: a JSON object. count: of failures that are gathered in one row.
CREATE TABLE events (
    id         UUID        NOT NULL PRIMARY KEY,
    at         TIMESTAMPTZ NOT NULL,
    kind       TEXT        NOT NULL,
    user_id    UUID,
    actor      TEXT        NOT NULL,
    actor_id   UUID,
    subject    TEXT,
    subject_id UUID,
    ip         TEXT,
    request_id TEXT,
    details    TEXT        NOT NULL,
    count      BIGINT      NOT NULL
);

CREATE INDEX events_by_user ON events (user_id, at, id);
CREATE INDEX events_by_time ON events (at, id);
