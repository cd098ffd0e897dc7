-- What is deleted and read in parts is found in its order.
DROP INDEX key_hours_by_hour;
CREATE INDEX key_hours_by_hour ON key_hours (hour);
CREATE INDEX events_by_kind ON events (kind, at, id);
CREATE INDEX events_by_user_and_kind ON events (user_id, kind, at, id);

-- What hashes cost, from one to the next.
CREATE INDEX users_by_hash_prefix ON users (SUBSTR(password_hash, 1, 7));
