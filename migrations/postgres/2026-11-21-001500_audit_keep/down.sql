DROP TRIGGER audit_no_delete ON audit;
DROP FUNCTION audit_is_kept();
DROP TRIGGER audit_no_change ON audit;
CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
DROP TABLE audit_horizon;
