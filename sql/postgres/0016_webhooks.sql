-- Endpoints that are told what happens. user_id: the owner; of an operators' endpoint, the operator who made it. types:
-- separated by spaces; NULL: all that are not gathered. secret: encrypted; previous_secret: signs beside it until
-- previous_until. disabled_at, disabled_reason: Keyward has switched it off itself. failing_since, is_slow: how the last
-- tries went. deleted_at: it is nobody's any more, and its row goes with the last of its deliveries.
CREATE TABLE webhooks (
    id              UUID        NOT NULL PRIMARY KEY,
    user_id         UUID        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    is_operators    BOOLEAN     NOT NULL,
    url             TEXT        NOT NULL,
    types           TEXT,
    description     TEXT,
    secret          BYTEA       NOT NULL,
    previous_secret BYTEA,
    previous_until  TIMESTAMPTZ,
    is_active       BOOLEAN     NOT NULL,
    disabled_at     TIMESTAMPTZ,
    disabled_reason TEXT,
    failing_since   TIMESTAMPTZ,
    is_slow         BOOLEAN     NOT NULL DEFAULT FALSE,
    created_at      TIMESTAMPTZ NOT NULL,
    deleted_at      TIMESTAMPTZ
);

CREATE INDEX webhooks_by_user ON webhooks (user_id, created_at, id);
CREATE INDEX webhooks_of_operators ON webhooks (created_at, id) WHERE is_operators;
CREATE INDEX webhooks_deleted ON webhooks (deleted_at, id) WHERE deleted_at IS NOT NULL;

-- Held while the operators' endpoints are counted.
INSERT INTO locks (name) VALUES ('webhooks');
