-- Pages of keys: of one user in the order in which they were made, of all users in that of their ids, which is the same
-- but for moments; if they are found by name, in that of names. Names sort by their bytes, so that an index finds those
-- that begin in some way.
ALTER TABLE api_keys ALTER COLUMN name TYPE TEXT COLLATE "C";

CREATE INDEX api_keys_by_name ON api_keys (name, id);
CREATE INDEX api_keys_by_user_and_name ON api_keys (user_id, name, id);

CREATE INDEX api_keys_by_external_id ON api_keys (external_id, id) WHERE external_id IS NOT NULL;
CREATE INDEX api_keys_by_user_and_external_id ON api_keys (user_id, external_id, created_at, id)
    WHERE external_id IS NOT NULL;

-- Most keys are neither revoked nor paused, and many never expire. Of those, these indexes know nothing.
CREATE INDEX api_keys_revoked ON api_keys (id) WHERE revoked_at IS NOT NULL;
CREATE INDEX api_keys_revoked_by_user ON api_keys (user_id, created_at, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX api_keys_paused ON api_keys (id) WHERE revoked_at IS NULL AND NOT is_active;
CREATE INDEX api_keys_paused_by_user ON api_keys (user_id, created_at, id) WHERE revoked_at IS NULL AND NOT is_active;
CREATE INDEX api_keys_expiring ON api_keys (id) WHERE revoked_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX api_keys_expiring_by_user ON api_keys (user_id, created_at, id)
    WHERE revoked_at IS NULL AND expires_at IS NOT NULL;
