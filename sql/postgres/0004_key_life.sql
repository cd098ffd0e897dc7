-- scopes: tokens separated by spaces (RFC 6749 §3.3); empty: none. rate_limit: requests in rate_window seconds; null: any
-- number. replaced_by: the key that a rotation made; this one lives on until it expires.
ALTER TABLE api_keys ADD COLUMN scopes TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN rate_limit BIGINT;
ALTER TABLE api_keys ADD COLUMN rate_window BIGINT;
ALTER TABLE api_keys ADD COLUMN replaced_by UUID;

ALTER TABLE key_hours ADD COLUMN rate_limited BIGINT NOT NULL DEFAULT 0;
ALTER TABLE key_hours ADD COLUMN insufficient_scope BIGINT NOT NULL DEFAULT 0;
