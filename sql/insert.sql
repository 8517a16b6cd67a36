\set SHOW_CONTEXT never
-- Phases, queue and events are inserted without the executor where nothing else happens to their rows (src/pg/insert.hpp).
SELECT t.fresh();
CREATE EXTENSION amcheck;

-- Many rows at once, with values that are kept outside of the row; each is found by its index.
UPDATE ops.environments SET config = jsonb_set(config, '{github,inputs}', jsonb_build_object('notes',
  (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i))) WHERE env_id = 'acme-prod';
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref)
SELECT 'acme', CASE WHEN i % 50 = 0 THEN 'acme-prod' ELSE 'acme-dev' END, '0123abc', 'main' FROM generate_series(1, 600) i;
SELECT phase, state, attempt, timeout, started_at, remembered, outcome, needs, count(*), max(length(config #>> '{github,inputs,notes}')) AS notes
  FROM ops.run_phases GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY min(phase_no);
SELECT pg_relation_size(reltoastrelid) > 0 AS some_are_outside FROM pg_class WHERE oid = 'ops.run_phases'::regclass;
SELECT seq, level, phase, event_key, created_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS is_now, count(*)
  FROM ops.run_events GROUP BY 1, 2, 3, 4, 5;
SELECT c.oid::regclass, bt_index_check(c.oid, true) FROM pg_class c
 WHERE c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ('ops.run_phases'::regclass, 'ops.run_events'::regclass, 'ops.run_queue'::regclass))
 ORDER BY c.oid::regclass::text;
SELECT * FROM t.broken;

-- Whatever else somebody wants to happen to such a row happens.
SELECT t.fresh();
CREATE TABLE t.seen (relation regclass, run_id text);
GRANT INSERT ON t.seen TO ops_runner_owner;
GRANT USAGE ON SCHEMA t TO ops_runner_owner;
CREATE FUNCTION t.see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO t.seen VALUES (TG_RELID, NEW.run_id);
  RETURN NEW;
END $$;
CREATE TRIGGER see AFTER INSERT ON ops.run_phases FOR EACH ROW EXECUTE FUNCTION t.see();
CREATE TRIGGER see BEFORE INSERT ON ops.run_queue FOR EACH ROW EXECUTE FUNCTION t.see();
CREATE TRIGGER see AFTER INSERT ON ops.run_events FOR EACH ROW EXECUTE FUNCTION t.see();
SELECT count(*) FROM ops.queue_run('acme', 'acme-dev', '0123abc', 'main');
SELECT relation, count(*) FROM t.seen JOIN ops.runs USING (run_id) GROUP BY 1 ORDER BY relation::text;
SELECT * FROM t.broken;
ALTER TABLE ops.run_phases DISABLE TRIGGER see;
DROP TRIGGER see ON ops.run_queue;
ALTER TABLE ops.run_events ENABLE REPLICA TRIGGER see;
TRUNCATE t.seen;
SELECT count(*) FROM ops.queue_run('acme', 'acme-dev', '0123abc', 'main');
SET session_replication_role = replica;
SELECT count(*) FROM ops.queue_run('acme', 'acme-dev', '0123abc', 'main');
RESET session_replication_role;
SELECT relation, count(*) FROM t.seen JOIN ops.runs USING (run_id) GROUP BY 1 ORDER BY relation::text;
DROP TRIGGER see ON ops.run_phases;
DROP TRIGGER see ON ops.run_events;

ALTER TABLE ops.run_events ADD CONSTRAINT short CHECK (length(message) < 5) NOT VALID;
SELECT t.error($$SELECT ops.queue_run('acme', 'acme-dev', '0123abc', 'main')$$);
ALTER TABLE ops.run_events DROP CONSTRAINT short;
ALTER TABLE ops.run_phases ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT t.error($$SELECT ops.queue_run('acme', 'acme-dev', '0123abc', 'main')$$);
ALTER TABLE ops.run_phases DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
ALTER TABLE ops.run_queue ADD COLUMN asked_at timestamptz NOT NULL DEFAULT now();
SELECT count(*) FROM ops.queue_run('acme', 'acme-dev', '0123abc', 'main');
SELECT count(*) FROM ops.run_queue WHERE asked_at <= clock_timestamp();
ALTER TABLE ops.run_queue DROP COLUMN asked_at;
CREATE RULE nothing AS ON INSERT TO ops.run_queue DO INSTEAD NOTHING;
SELECT count(*) FROM ops.queue_run('acme', 'acme-dev', '0123abc', 'main');
SELECT what FROM t.broken;
DROP RULE nothing ON ops.run_queue;
SELECT t.error($$SELECT ops.queue_run('acme', 'acme-dev', '0123abc', 'main')$$) FROM (SELECT set_config('transaction_read_only', 'on', true)) AS read_only;
DROP EXTENSION amcheck;
DROP FUNCTION t.see();
DROP TABLE t.seen;
SELECT t.fresh();
