-- Wrong guesses at passwords. Ids are keyed hashes: of what was guessed, and where, nothing is stored.
--
-- In a row, at one account from one address. They count until `until` (when the last one was, or when its wait ends) and
-- a day longer.
CREATE TABLE failures (
    id    UUID        PRIMARY KEY,
    count BIGINT      NOT NULL,
    until TIMESTAMPTZ NOT NULL
);

CREATE INDEX failures_until ON failures (until);

-- At one account, from all addresses. They are restored one by one, the last of them at `over_at`.
CREATE TABLE account_failures (
    id      UUID        PRIMARY KEY,
    over_at TIMESTAMPTZ NOT NULL
);

CREATE INDEX account_failures_over_at ON account_failures (over_at);
