-- parent: the generation that the current one was made for, first left at left_at; given_at: when a pair of the current
-- one was given out last; moves: the times of the latest refreshes, newest first, in milliseconds since the epoch; orphans:
-- ranges of generations that were made for an answer nobody had. Null, and moves that do not begin with rotated_at: moved
-- on by a version that knew less.
ALTER TABLE sessions ADD COLUMN parent BIGINT;
ALTER TABLE sessions ADD COLUMN left_at TIMESTAMPTZ;
ALTER TABLE sessions ADD COLUMN given_at TIMESTAMPTZ;
ALTER TABLE sessions ADD COLUMN moves TEXT NOT NULL DEFAULT '[]';
ALTER TABLE sessions ADD COLUMN orphans TEXT NOT NULL DEFAULT '[]';
