-- Owners and grants. Nothing is granted to PUBLIC.
--   ops_viewer           reads
--   ops_operator         viewer; queues, cancels, retries, resets
--   ops_external_worker  claims, tells events, finishes
--   ops_admin            operator; registers projects and environments
--   ops_runner_worker    the worker of this server

DO $owners$
DECLARE
  v_object record;
BEGIN
  FOR v_object IN
    SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END AS what, p.oid::regprocedure::text AS name
      FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'ops'::regnamespace
    UNION ALL
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass::text
      FROM pg_catalog.pg_class c WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind IN ('r', 'v')
  LOOP
    EXECUTE pg_catalog.format('ALTER %s %s OWNER TO ops_runner_owner', v_object.what, v_object.name);
    EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC',
                              CASE v_object.what WHEN 'VIEW' THEN 'TABLE' ELSE v_object.what END, v_object.name);
  END LOOP;
  ALTER SCHEMA ops OWNER TO ops_runner_owner;
  -- The worker must get in also where CONNECT is not granted to everybody.
  EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO ops_runner_worker', pg_catalog.current_database());
END
$owners$;

-- Not ops.workers: who knows the key of a worker's lock could hold it.
GRANT SELECT ON ops.projects, ops.environments, ops.runs, ops.run_phases, ops.run_events, ops.effects, ops.artifacts,
                ops.run_queue, ops.run_slots, ops.worker_status TO ops_viewer, ops_operator, ops_admin, ops_external_worker;
GRANT EXECUTE ON FUNCTION ops._worker_status(), ops.wait_for_run(text, interval), ops.timeline(text)
  TO ops_viewer, ops_operator, ops_admin, ops_external_worker;
GRANT EXECUTE ON PROCEDURE ops.tail(text) TO ops_viewer, ops_operator, ops_admin, ops_external_worker;

GRANT EXECUTE ON FUNCTION ops.queue_run(text, text, text, text, jsonb, text, int, timestamptz), ops.cancel_run(text, text),
                          ops.retry_run(text), ops.reset_run(text, text), ops.reset_stuck_runs(interval),
                          ops.resolve_effect(text, text, text, text, jsonb)
  TO ops_operator, ops_admin;
GRANT EXECUTE ON FUNCTION ops.claim_next_run(text), ops.append_event(text, text, text, jsonb, uuid),
                          ops.finish_run(text, text, jsonb, uuid), ops.reset_stuck_runs(interval) TO ops_external_worker;

GRANT INSERT, UPDATE, DELETE ON ops.projects, ops.environments TO ops_admin;
GRANT EXECUTE ON FUNCTION ops._is_name(text), ops._check_environment_config(jsonb) TO ops_admin;

GRANT SELECT ON ops.projects, ops.environments, ops.armed_identity TO ops_runner_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON ops.runs, ops.run_phases, ops.run_events, ops.effects, ops.artifacts, ops.run_queue,
                                        ops.run_slots, ops.workers TO ops_runner_worker;
GRANT UPDATE (data_directory, timeline) ON ops.armed_identity TO ops_runner_worker;
GRANT EXECUTE ON FUNCTION ops._find_ready(), ops._promote_free_slots(), ops._is_armed(),
                          ops._adopt_identity(), ops._note_crash(text), ops._rescue_expired_claims(text, interval),
                          ops._system_identifier(), ops._data_directory(), ops._timeline()
  TO ops_runner_worker;

-- A dump carries what users and runs wrote. Not dumped, because they tell what happens on this server now: run_queue,
-- run_slots and workers, which ops.arm() makes anew from the runs, and armed_identity, which CREATE EXTENSION makes and which
-- history that is not over disarms (ops._queue_new_runs).
SELECT pg_catalog.pg_extension_config_dump('ops.projects', '');
SELECT pg_catalog.pg_extension_config_dump('ops.environments', '');
SELECT pg_catalog.pg_extension_config_dump('ops.runs', '');
SELECT pg_catalog.pg_extension_config_dump('ops.run_phases', '');
SELECT pg_catalog.pg_extension_config_dump('ops.run_events', '');
SELECT pg_catalog.pg_extension_config_dump('ops.effects', '');
SELECT pg_catalog.pg_extension_config_dump('ops.artifacts', '');

INSERT INTO ops.armed_identity (system_identifier, database_oid, data_directory, timeline)
SELECT ops._system_identifier(), d.oid, ops._data_directory(), ops._timeline() FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database();

SELECT ops._extension_created();
