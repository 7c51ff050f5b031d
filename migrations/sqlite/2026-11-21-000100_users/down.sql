DROP INDEX sessions_current_by_owner;
DROP TABLE audit;
DROP TABLE account_state;
DROP TABLE org_members;
DROP TABLE orgs;
DROP TABLE logins;
DROP TABLE tokens;
DROP TABLE users;
