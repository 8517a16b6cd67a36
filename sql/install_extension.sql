-- The extension comes up in its own schema, armed, with a worker; and with what the other tests use.
\set SHOW_CONTEXT never
\set own_database :DBNAME
CREATE EXTENSION ops_runner;
SELECT extversion, extrelocatable FROM pg_extension WHERE extname = 'ops_runner';
SELECT disarmed_because IS NULL AS armed FROM ops.armed_identity;
SELECT ops._worker_present();

-- T01: nothing is adopted that was there before.
CREATE EXTENSION ops_runner;
CREATE DATABASE ops_planted;
\c ops_planted
CREATE SCHEMA ops;
CREATE FUNCTION ops._caller() RETURNS name LANGUAGE sql AS 'SELECT ''planted''::name';
CREATE EXTENSION ops_runner;
\c :"own_database"
DROP DATABASE ops_planted;
CREATE ROLE ops_regress_mole;
GRANT ops_runner_owner TO ops_regress_mole;
CREATE DATABASE ops_planted;
\c ops_planted
CREATE EXTENSION ops_runner;
\c :"own_database"
REVOKE ops_runner_owner FROM ops_regress_mole;
DROP ROLE ops_regress_mole;
DROP DATABASE ops_planted;
-- I24
CREATE DATABASE ops_planted TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C';
\c ops_planted
CREATE EXTENSION ops_runner;
\c :"own_database"
DROP DATABASE ops_planted;

-- For all tests. Run ids are masked: their letters say in which order they first appeared.
CREATE SCHEMA t;
CREATE TABLE t.names (run_id text PRIMARY KEY, name text);
CREATE FUNCTION t.name(p_run_id text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO t.names SELECT p_run_id, 'run ' || chr(65 + count(*)::int) FROM t.names ON CONFLICT DO NOTHING;
  RETURN (SELECT name FROM t.names WHERE run_id = p_run_id);
END $$;
CREATE FUNCTION t.mask(p_text text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE v_id text;
BEGIN
  FOR v_id IN SELECT (regexp_matches(p_text, 'run-[0-9a-f]{8}-[0-9a-f-]{27}', 'g'))[1] LOOP
    p_text := replace(p_text, v_id, t.name(v_id));
  END LOOP;
  RETURN p_text;
END $$;
CREATE FUNCTION t.error(p_sql text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v_detail text; v_hint text;
BEGIN
  EXECUTE p_sql;
  RETURN NEXT 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL, v_hint = PG_EXCEPTION_HINT;
  RETURN NEXT t.mask(SQLSTATE || ' ' || SQLERRM);
  IF v_detail <> '' AND v_detail NOT LIKE 'Failing row contains%' THEN RETURN NEXT t.mask('  detail: ' || v_detail); END IF;
  IF v_hint <> '' THEN RETURN NEXT t.mask('  hint: ' || v_hint); END IF;
END $$;
CREATE FUNCTION t.fresh() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  TRUNCATE t.names, ops.runs, ops.environments, ops.projects;
  DELETE FROM ops.workers WHERE kind = 'external';
  INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES
    ('acme', 'Acme', 'acme/odoo-build', '19.0'), ('bolt', 'Bolt', 'bolt/odoo', '18.0');
  INSERT INTO ops.environments (env_id, project_id, env_type, config)
  SELECT e.env_id, e.project_id, e.env_type, e.more || '{"url": "https://odoo.example", "github": {"workflow": "build.yml"},
      "registry": {"image": "acme/odoo"}, "digitalocean": {"app_id": "a-1", "components": ["odoo"]}}'
    FROM (VALUES ('acme-dev', 'acme', 'dev', '{"max_active_runs": 2}'::jsonb), ('acme-prod', 'acme', 'prod', '{}'),
                 ('acme-staging', 'acme', 'staging', '{}'), ('bolt-dev-1', 'bolt', 'dev', '{}'),
                 ('bolt-dev-2', 'bolt', 'dev', '{}')) AS e(env_id, project_id, env_type, more);
END $$;
-- Everything about runs that a reader can rely on, without times.
CREATE VIEW t.state AS
  SELECT t.name(r.run_id) AS run, r.env_id, r.status, r.attempt AS try, r.claimed_by, q.state AS queue, s.slot_no AS slot,
         e.seq, e.events
    FROM ops.runs r LEFT JOIN ops.run_queue q USING (run_id) LEFT JOIN ops.run_slots s USING (run_id)
    LEFT JOIN (SELECT run_id, max(seq) AS seq, count(*) AS events FROM ops.run_events GROUP BY run_id) e USING (run_id)
   ORDER BY r.queued_at;
CREATE VIEW t.events AS
  SELECT t.name(e.run_id) AS run, e.seq, e.level, t.mask(e.message) AS message, t.mask(e.payload::text) AS payload
    FROM ops.run_events e JOIN ops.runs r USING (run_id) ORDER BY r.queued_at, e.seq;
-- Holds for every state of the tables; empty when nothing is broken.
CREATE VIEW t.broken AS
  SELECT t.name(run_id) AS run, what FROM (
    SELECT run_id, 'queued without queue row' AS what FROM ops.runs
     WHERE status = 'queued' AND run_id NOT IN (SELECT run_id FROM ops.run_queue)
    UNION ALL SELECT run_id, 'queue row without queued run' FROM ops.run_queue
     WHERE run_id NOT IN (SELECT run_id FROM ops.runs WHERE status = 'queued')
    UNION ALL SELECT run_id, 'active without slot' FROM ops.runs
     WHERE status IN ('claimed', 'running') AND run_id NOT IN (SELECT run_id FROM ops.run_slots)
    UNION ALL SELECT run_id, 'slot without active run' FROM ops.run_slots
     WHERE run_id NOT IN (SELECT run_id FROM ops.runs WHERE status IN ('claimed', 'running'))
    UNION ALL SELECT run_id, 'gap in events' FROM ops.run_events GROUP BY run_id HAVING max(seq) <> count(*) OR min(seq) <> 1
    UNION ALL SELECT run_id, 'run without events' FROM ops.runs WHERE run_id NOT IN (SELECT run_id FROM ops.run_events)
    UNION ALL SELECT min(s.run_id), 'too many active runs' FROM ops.run_slots s JOIN ops.environments e USING (env_id)
     GROUP BY e.env_id, e.max_active_runs HAVING count(*) > e.max_active_runs
    UNION ALL SELECT run_id, 'run without phases' FROM ops.runs WHERE run_id NOT IN (SELECT run_id FROM ops.run_phases)
  ) b;
GRANT USAGE ON SCHEMA t TO PUBLIC;
