-- A session lives only as long as its epoch is its user's: moving that one on ends all of them at once, however many there
-- are. What lives, what has ended, and what an epoch left behind is each found in its order.
ALTER TABLE users ADD COLUMN session_epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;

CREATE INDEX sessions_open ON sessions (user_id, epoch, created_at, id) WHERE ended_at IS NULL;
CREATE INDEX sessions_ended ON sessions (user_id, created_at, id) WHERE ended_at IS NOT NULL;
