-- What is to be delivered to endpoints and by mail, and what became of it. place: the order. channel: webhook or mail.
-- receiver: an endpoint or an account; no reference, because a mail may be asked for by an address that nobody has.
-- body: of a webhook; NULL for mail, and for events that are gathered, whose event is read when its turn comes. count: how
-- often it happened, of notices that go out in one mail. next_at: when it is due; the epoch for at once; NULL: it is over.
-- outcome: how it ended. status, answer, reason: of the last try.
CREATE TABLE deliveries (
    place      BIGINT      NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id         UUID        NOT NULL UNIQUE,
    channel    TEXT        NOT NULL,
    receiver   UUID        NOT NULL,
    kind       TEXT        NOT NULL,
    event_id   UUID,
    body       TEXT,
    count      BIGINT      NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    next_at    TIMESTAMPTZ,
    tries      BIGINT      NOT NULL,
    tried_at   TIMESTAMPTZ,
    ended_at   TIMESTAMPTZ,
    outcome    TEXT,
    status     BIGINT,
    answer     TEXT,
    reason     TEXT
);

CREATE INDEX deliveries_by_receiver ON deliveries (receiver, place);
CREATE INDEX deliveries_ended ON deliveries (receiver, place) WHERE channel = 'webhook' AND next_at IS NULL;
CREATE INDEX deliveries_by_age ON deliveries (created_at, place);
CREATE INDEX deliveries_waiting ON deliveries (receiver, next_at, place) WHERE channel = 'webhook' AND next_at IS NOT NULL;
-- One for each channel: with a single one, SQLite looks for an endpoint's deliveries among those of all.
CREATE INDEX webhooks_by_time ON deliveries (next_at, place) WHERE channel = 'webhook' AND next_at IS NOT NULL;
CREATE INDEX mails_by_time ON deliveries (next_at, place) WHERE channel = 'mail' AND next_at IS NOT NULL;
-- An event that is gathered goes once to each endpoint.
CREATE UNIQUE INDEX deliveries_gathered ON deliveries (receiver, event_id) WHERE body IS NULL AND event_id IS NOT NULL;
-- Of each kind of mail, one waits for an account.
CREATE UNIQUE INDEX deliveries_mail ON deliveries (receiver, kind) WHERE channel = 'mail' AND next_at IS NOT NULL;
CREATE INDEX deliveries_mailed ON deliveries (receiver, kind, place) WHERE channel = 'mail';

-- Whose turn it is: which instance delivers to an endpoint, and until when at most.
CREATE TABLE delivery_leases (
    receiver UUID        NOT NULL PRIMARY KEY,
    holder   UUID        NOT NULL,
    until    TIMESTAMPTZ NOT NULL
);
