-- email: the address to which the token was mailed, and which it therefore proves. Null: an operator has handed it over.
ALTER TABLE one_time_tokens ADD COLUMN email TEXT;

-- Whether the account was made while EMAIL_VERIFICATION was required.
ALTER TABLE users ADD COLUMN needs_verified_email INTEGER NOT NULL DEFAULT 0;

-- What users have asked their addresses to be changed to. email: the latest one that they want; null: none any more.
-- former: the address that is to be told of it, the user's when they asked. asked_at: the latest times, a JSON list of
-- milliseconds.
CREATE TABLE email_changes (
    user_id   TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    email     TEXT,
    former    TEXT,
    former_at TEXT,
    asked_at  TEXT NOT NULL
) STRICT;
