-- normal_email: how a new account with this e-mail is stored, where an older one is stored otherwise. The program fills
-- it in within the same transaction (src/store/spellings.rs).
ALTER TABLE users ADD COLUMN normal_email TEXT;

CREATE INDEX users_by_normal_email ON users (normal_email, id) WHERE normal_email IS NOT NULL;
