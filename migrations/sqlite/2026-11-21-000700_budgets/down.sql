DROP TABLE user_spend;
ALTER TABLE sessions DROP COLUMN budget;
