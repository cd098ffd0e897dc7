-- scopes: tokens separated by spaces (RFC 6749 §3.3); empty: none. rate_limit: requests in rate_window seconds; null: any
-- number. replaced_by: the key that a rotation made; this one lives on until it expires.
ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN rate_limit INTEGER;
ALTER TABLE api_keys ADD COLUMN rate_window INTEGER;
ALTER TABLE api_keys ADD COLUMN replaced_by TEXT;

ALTER TABLE key_hours ADD COLUMN rate_limited INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_hours ADD COLUMN insufficient_scope INTEGER NOT NULL DEFAULT 0;
