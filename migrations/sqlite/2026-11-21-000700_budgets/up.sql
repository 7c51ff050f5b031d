-- What a session's budget has beside the configuration: bounds of its own, and what was told and answered.
ALTER TABLE sessions ADD COLUMN budget TEXT NOT NULL DEFAULT '{}';

-- What a user's sessions have used on a day of UTC, counted in days since 1970. It grows in the transaction that stores
-- the usage of a turn, so it survives a crash and never counts anything twice.
CREATE TABLE user_spend (
    user_name TEXT NOT NULL,
    day BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    cost_usd DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (user_name, day)
);
