-- Who may do what: every object, every role (T01 to T05, I27, I28). An object that is new fails here until it is decided.
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

-- Roles
SELECT set_eq($$SELECT rolname::text, rolcanlogin, rolconnlimit FROM pg_roles WHERE rolname LIKE 'ops\_%' AND rolname NOT LIKE 'ops\_regress%'$$,
  $$VALUES ('ops_runner_owner', false, -1), ('ops_runner_worker', true, 0), ('ops_viewer', false, -1), ('ops_operator', false, -1),
           ('ops_external_worker', false, -1), ('ops_admin', false, -1)$$, 'the roles of the product; clients cannot log in as any');
SELECT is_empty($$SELECT rolname FROM pg_roles WHERE rolname LIKE 'ops\_%' AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)$$,
                'no role of the product has attributes');
SELECT is_empty($$SELECT rolname FROM pg_authid WHERE rolname LIKE 'ops\_%' AND rolpassword IS NOT NULL$$, 'no role of the product has a password');
SELECT is_empty($$SELECT 1 FROM pg_auth_members m JOIN pg_roles r ON r.oid IN (m.roleid, m.member)
                   WHERE r.rolname IN ('ops_runner_owner', 'ops_runner_worker')$$, 'nobody is a member of the owner or of the worker');

-- Owner
SELECT is_empty($$SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND proowner <> 'ops_runner_owner'::regrole
                   UNION ALL SELECT oid::regclass::oid FROM pg_class WHERE relnamespace = 'ops'::regnamespace AND relowner <> 'ops_runner_owner'::regrole$$,
                'every object belongs to ops_runner_owner');
SELECT schema_owner_is('ops', 'ops_runner_owner');

-- PUBLIC (T04)
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                   WHERE p.pronamespace = 'ops'::regnamespace AND a.grantee = 0$$, 'no function is granted to PUBLIC');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
                   WHERE c.relnamespace = 'ops'::regnamespace AND a.grantee = 0$$, 'no table is granted to PUBLIC');
-- Types of rows have no privileges worth the name, and pg_dump warns about revoked ones.
SELECT is_empty($$SELECT t.oid::regtype FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid AND c.relkind IN ('r', 'v')
                   WHERE t.typnamespace = 'ops'::regnamespace AND t.typelem = 0 AND c.oid IS NULL$$, 'there are no types but those of rows');
SELECT is_empty($$SELECT 1 FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'ops' AND a.grantee = 0$$, 'the schema is not granted to PUBLIC');
SELECT set_eq($$SELECT a.grantee::regrole::text FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'ops' AND a.privilege_type = 'CREATE'$$,
              ARRAY['ops_runner_owner'], 'only the owner creates in the schema');

-- T02: nothing in the session decides which objects a function finds.
SELECT set_eq($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND prosqlbody IS NULL
                   AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)$$,
              ARRAY['tail'], 'every function pins its search_path; only tail must not, since it commits, and names every operator instead');

-- T03: functions with definer rights, fixed.
SELECT set_eq($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND prosecdef$$,
  ARRAY['queue_run', 'claim_next_run', 'append_event', 'finish_run', 'reset_run', 'reset_stuck_runs', 'cancel_run', 'retry_run',
        'resolve_effect', '_claim_runs', '_take_slots', '_find_ready', '_promote_free_slots', '_rescue_expired_claims', '_note_crash', '_adopt_identity', '_queue_new_runs', '_follow_status', '_runs_deleted'], 'the functions with definer rights');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND (prosrc ~* '\mEXECUTE\M' OR proleakproof)$$,
                'no dynamic SQL, nothing leakproof');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind = 'v'
                   AND NOT 'security_barrier=true' = ANY (coalesce(c.reloptions, '{}'))$$, 'views are barriers');

-- The matrix of tables (I28, T05).
SELECT set_eq(
  $$SELECT r.rolname::text, p.privilege, c.relname::text
      FROM pg_roles r, pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS p(privilege)
     WHERE r.rolname IN ('ops_viewer', 'ops_operator', 'ops_external_worker', 'ops_admin', 'ops_runner_worker')
       AND c.relnamespace = 'ops'::regnamespace AND c.relkind IN ('r', 'v') AND has_table_privilege(r.oid, c.oid, p.privilege)$$,
  $$SELECT role, privilege, object FROM (VALUES
      (ARRAY['ops_viewer', 'ops_operator', 'ops_external_worker', 'ops_admin'], ARRAY['SELECT'],
       ARRAY['projects', 'environments', 'runs', 'run_phases', 'run_events', 'effects', 'artifacts', 'run_queue', 'run_slots', 'worker_status']),
      (ARRAY['ops_admin'], ARRAY['INSERT', 'UPDATE', 'DELETE'], ARRAY['projects', 'environments']),
      (ARRAY['ops_runner_worker'], ARRAY['SELECT'], ARRAY['projects', 'environments', 'armed_identity']),
      (ARRAY['ops_runner_worker'], ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'],
       ARRAY['runs', 'run_phases', 'run_events', 'effects', 'artifacts', 'run_queue', 'run_slots', 'workers'])) AS m(roles, privileges, objects),
      unnest(roles) AS role, unnest(privileges) AS privilege, unnest(objects) AS object$$,
  'who may do what with which table');

-- The matrix of functions (I27).
SELECT set_eq(
  $$SELECT r.rolname::text, f.proname::text FROM pg_roles r, pg_proc f
     WHERE r.rolname IN ('ops_viewer', 'ops_operator', 'ops_external_worker', 'ops_admin', 'ops_runner_worker')
       AND f.pronamespace = 'ops'::regnamespace AND has_function_privilege(r.oid, f.oid, 'EXECUTE')$$,
  $$SELECT role, object FROM (VALUES
      (ARRAY['ops_viewer', 'ops_operator', 'ops_external_worker', 'ops_admin'], ARRAY['wait_for_run', 'tail', 'timeline', '_worker_status']),
      (ARRAY['ops_operator', 'ops_admin'], ARRAY['queue_run', 'cancel_run', 'retry_run', 'reset_run', 'reset_stuck_runs', 'resolve_effect']),
      (ARRAY['ops_external_worker'], ARRAY['claim_next_run', 'append_event', 'finish_run', 'reset_stuck_runs']),
      (ARRAY['ops_admin'], ARRAY['_is_name', '_check_environment_config']),
      (ARRAY['ops_runner_worker'], ARRAY['_find_ready', '_promote_free_slots', '_rescue_expired_claims', '_note_crash', '_is_armed', '_adopt_identity',
             '_system_identifier', '_data_directory', '_timeline'])) AS m(roles, objects),
      unnest(roles) AS role, unnest(objects) AS object$$,
  'who may call which function');

-- Acts of each role, for real.
INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ('tap', 'Tap', 'tap/odoo', '19.0');
SET LOCAL ROLE ops_admin;
SELECT lives_ok($$INSERT INTO ops.environments (env_id, project_id, env_type, config) VALUES ('tap-dev', 'tap', 'dev',
  '{"url": "https://odoo.example", "phases": [{"name": "smoke", "kind": "odoo_smoke"}]}')$$, 'an admin registers an environment');
SELECT lives_ok($$UPDATE ops.projects SET name = 'Tap tap' WHERE project_id = 'tap'$$, 'an admin changes a project');
SELECT throws_ok($$DELETE FROM ops.runs$$, '42501', NULL, 'an admin does not touch runs');
SELECT throws_ok($$CREATE TRIGGER planted BEFORE INSERT ON ops.projects FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()$$,
                 '42501', NULL, 'an admin cannot plant a trigger');
SET LOCAL ROLE ops_operator;
SELECT lives_ok($$SELECT * FROM ops.queue_run('tap', 'dev', '0123abc', 'main')$$, 'an operator queues');
SELECT is((SELECT requested_by FROM ops.runs WHERE project_id = 'tap'), 'ops_operator', 'the run tells who queued it');
SELECT lives_ok($$SELECT ops.cancel_run(run_id, 'test') FROM ops.runs WHERE project_id = 'tap'$$, 'an operator cancels');
SELECT lives_ok($$SELECT ops.retry_run(run_id) FROM ops.runs WHERE project_id = 'tap'$$, 'an operator retries');
SELECT throws_ok($$SELECT ops.claim_next_run('w')$$, '42501', NULL, 'an operator does not claim');
SELECT throws_ok($$UPDATE ops.runs SET status = 'success'$$, '42501', NULL, 'an operator does not write runs');
SELECT throws_ok($$SELECT ops._claim_runs('w', 1)$$, '42501', NULL, 'an operator does not call internals');
SET LOCAL ROLE ops_external_worker;
SELECT is((SELECT count(*) FROM ops.claim_next_run('tap-worker')), 1::bigint, 'a worker outside claims');
SELECT lives_ok($$SELECT ops.append_event(run_id, 'info', 'x') FROM ops.runs WHERE status = 'claimed' AND project_id = 'tap'$$, 'and tells');
SELECT lives_ok($$SELECT ops.finish_run(run_id, 'success') FROM ops.runs WHERE status = 'running' AND project_id = 'tap'$$, 'and finishes');
SELECT throws_ok($$SELECT ops.queue_run('tap', 'dev', '0123abc', 'main')$$, '42501', NULL, 'a worker outside does not queue');
SELECT throws_ok($$SELECT ops.cancel_run('x')$$, '42501', NULL, 'a worker outside does not cancel');
SET LOCAL ROLE ops_viewer;
SELECT is((SELECT (ops.wait_for_run(run_id)).status FROM ops.runs WHERE status = 'success' AND project_id = 'tap'), 'success', 'a viewer waits for a run');
SELECT lives_ok($$SELECT ops.timeline(run_id) FROM ops.runs WHERE project_id = 'tap'$$, 'a viewer reads timelines');
SELECT lives_ok($$SELECT * FROM ops.worker_status$$, 'a viewer reads the status of the worker');
SELECT throws_ok($$SELECT * FROM ops.workers$$, '42501', NULL, 'a viewer does not read keys of locks');
SELECT throws_ok($$SELECT ops.queue_run('tap', 'dev', '0123abc', 'main')$$, '42501', NULL, 'a viewer does not queue');
SELECT throws_ok($$LOCK TABLE ops.runs IN ACCESS EXCLUSIVE MODE$$, '42501', NULL, 'a viewer does not lock');
SELECT throws_ok($$TRUNCATE ops.runs$$, '42501', NULL, 'a viewer does not truncate');
RESET ROLE;
CREATE ROLE ops_regress_nobody;
SET LOCAL ROLE ops_regress_nobody;
SELECT throws_ok($$SELECT * FROM ops.runs$$, '42501', NULL, 'others read nothing');
SELECT throws_ok($$SELECT ops.timeline('x')$$, '42501', NULL, 'others call nothing');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
