-- deleted_at: the account is gone; what hung on it is deleted in parts, the row last.
ALTER TABLE users ADD COLUMN deleted_at TIMESTAMPTZ;

CREATE INDEX users_by_deletion ON users (deleted_at) WHERE deleted_at IS NOT NULL;
