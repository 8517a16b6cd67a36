-- F34, T05: nobody but the owner and a superuser plants a trigger, rule, policy, constraint, index or inheritance on a table of
-- the product, or takes one over.
\set QUIET 1
\pset format unaligned
\pset tuples_only on
\pset pager off
\set ON_ERROR_STOP on
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS ops_runner;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT * FROM no_plan();

CREATE ROLE ops_regress_other CREATEROLE CREATEDB;
CREATE ROLE ops_regress_all;
GRANT ops_viewer, ops_operator, ops_external_worker, ops_admin, pg_read_all_data, pg_write_all_data, pg_monitor TO ops_regress_all;
GRANT CREATE ON DATABASE :"DBNAME" TO ops_regress_other, ops_regress_all;
CREATE SCHEMA planting;
GRANT ALL ON SCHEMA planting TO PUBLIC;
CREATE FUNCTION planting.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep_for('1 hour'); RETURN NEW; END $$;
-- The attempts, and what each role gets for an answer: SQLSTATE, or nothing when it was let through.
CREATE FUNCTION planting.attempt(p_role text, p_table regclass, p_kind text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('SET LOCAL ROLE %I', p_role);
  EXECUTE format(CASE p_kind
    WHEN 'trigger' THEN 'CREATE TRIGGER planted BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION planting.slow()'
    WHEN 'constraint trigger' THEN 'CREATE CONSTRAINT TRIGGER planted AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION planting.slow()'
    WHEN 'rule' THEN 'CREATE RULE planted AS ON UPDATE TO %s DO INSTEAD NOTHING'
    WHEN 'policy' THEN 'CREATE POLICY planted ON %s USING (false)'
    WHEN 'row security' THEN 'ALTER TABLE %s ENABLE ROW LEVEL SECURITY'
    WHEN 'check' THEN 'ALTER TABLE %s ADD CONSTRAINT planted CHECK (false) NOT VALID'
    WHEN 'index' THEN 'CREATE INDEX planted ON %s ((1))'
    WHEN 'statistics' THEN 'CREATE STATISTICS planting.planted ON (1), (2) FROM %s'
    WHEN 'foreign key' THEN 'CREATE TABLE planting.planted (x text REFERENCES %s)'
    WHEN 'child' THEN 'CREATE TABLE planting.planted () INHERITS (%s)'
    WHEN 'trigger off' THEN 'ALTER TABLE %s DISABLE TRIGGER ALL'
    WHEN 'column default' THEN 'ALTER TABLE %s ADD COLUMN planted int DEFAULT 1'
    WHEN 'owner' THEN 'ALTER TABLE %s OWNER TO CURRENT_USER'
    WHEN 'drop' THEN 'DROP TABLE %s'
    WHEN 'truncate' THEN 'TRUNCATE %s CASCADE'
    WHEN 'lock' THEN 'LOCK TABLE %s IN ACCESS EXCLUSIVE MODE'
    WHEN 'vacuum' THEN 'CLUSTER %s'
  END, p_table);
  RETURN NULL;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE;
END $$;
CREATE TABLE planting.result AS
  SELECT r.role, c.oid::regclass AS "table", k.kind, planting.attempt(r.role, c.oid, k.kind) AS answer
    FROM unnest(ARRAY['ops_viewer', 'ops_operator', 'ops_external_worker', 'ops_admin', 'ops_runner_worker', 'ops_regress_other', 'ops_regress_all']) AS r(role),
         pg_class c,
         unnest(ARRAY['trigger', 'constraint trigger', 'rule', 'policy', 'row security', 'check', 'index', 'statistics', 'foreign key', 'child', 'trigger off',
                      'column default', 'owner', 'drop', 'truncate', 'lock', 'vacuum']) AS k(kind)
   WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind = 'r';
SELECT cmp_ok((SELECT count(*) FROM planting.result), '>=', (7 * 17 * 11)::bigint, 'every role, table and kind was tried');
SELECT is_empty($$SELECT role, "table", kind, answer FROM planting.result WHERE answer IS DISTINCT FROM '42501'
                   AND NOT (kind = 'lock' AND answer IS NULL AND has_table_privilege(role, "table", 'UPDATE, DELETE, TRUNCATE'))$$,
                'everything is refused but a lock by roles that may write');

-- Nothing may be made in the schema of the product, and its functions are not replaced.
SELECT set_eq($$SELECT r.role FROM unnest(ARRAY['ops_viewer', 'ops_operator', 'ops_external_worker', 'ops_admin', 'ops_runner_worker', 'ops_regress_other',
                   'ops_regress_all']) AS r(role) WHERE has_schema_privilege(r.role, 'ops', 'CREATE')$$, ARRAY[]::text[], 'no role creates in schema ops');
SET LOCAL ROLE ops_regress_all;
SELECT throws_ok($$CREATE OR REPLACE FUNCTION ops._caller() RETURNS name LANGUAGE sql AS 'SELECT ''planted''::name'$$, '42501', NULL, 'no function is replaced');
SELECT throws_ok($$ALTER FUNCTION ops._caller() SET search_path = planting$$, '42501', NULL, 'nor its search_path changed');
SELECT throws_ok($$ALTER ROLE ops_runner_worker SET search_path = planting$$, '42501', NULL, 'nor the settings of the worker''s role');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
