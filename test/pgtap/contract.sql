-- The SQL contract: tables, columns and functions with their names, parameter names, defaults, types and result columns.
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

-- Columns that clients read, with their types.
SELECT set_has(
  format($q$SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
             WHERE a.attrelid = 'ops.%I'::regclass AND a.attnum > 0 AND NOT a.attisdropped$q$, t),
  format('SELECT split_part(c, '' '', 1), substr(c, strpos(c, '' '') + 1) FROM unnest(%L::text[]) AS c', columns),
  'ops.' || t || ' has the columns of the contract')
FROM (VALUES
  ('projects', ARRAY['project_id text', 'name text', 'repo_slug text', 'odoo_version text', 'metadata jsonb']),
  ('environments', ARRAY['env_id text', 'project_id text', 'env_type text', 'branch_pattern text', 'db_name text', 'config jsonb']),
  ('runs', ARRAY['run_id text', 'project_id text', 'env_id text', 'git_sha text', 'git_ref text', 'status text', 'claimed_by text',
                 'queued_at timestamp with time zone', 'started_at timestamp with time zone', 'finished_at timestamp with time zone',
                 'metadata jsonb', 'cancel_requested_at timestamp with time zone', 'claim_token uuid', 'attempt integer']),
  ('run_events', ARRAY['run_id text', 'seq integer', 'level text', 'message text', 'payload jsonb', 'phase text',
                       'created_at timestamp with time zone']),
  ('artifacts', ARRAY['artifact_id uuid', 'run_id text', 'artifact_type text', 'storage_path text', 'digest text', 'size_bytes bigint',
                      'metadata jsonb']),
  ('run_phases', ARRAY['run_id text', 'phase_no integer', 'phase text', 'kind text', 'needs text[]', 'config jsonb', 'timeout interval',
                       'state text', 'attempt integer', 'started_at timestamp with time zone', 'finished_at timestamp with time zone']),
  ('effects', ARRAY['run_id text', 'phase text', 'effect_key text', 'kind text', 'state text', 'attempt integer', 'target text',
                    'request_hash text', 'outcome jsonb']),
  ('workers', ARRAY['worker_id text', 'kind text', 'started_at timestamp with time zone', 'stopped_at timestamp with time zone']),
  ('worker_status', ARRAY['worker_id text', 'pid integer', 'database name', 'state text', 'since timestamp with time zone',
                          'running_runs integer', 'requests_in_flight integer', 'claimed bigint', 'finished bigint', 'last_error text'])
) AS c(t, columns);

-- Functions that users call: the signature begins like this, so that calls by name and by position stay valid.
SELECT ok(pg_get_function_arguments(('ops.' || f)::regproc) LIKE arguments || '%', format('ops.%s(%s)', f, arguments))
FROM (VALUES
  ('queue_run', 'p_project_id text, p_env text, p_git_sha text, p_git_ref text, p_metadata jsonb DEFAULT ''{}''::jsonb, p_idempotency_key text DEFAULT NULL::text, p_priority integer DEFAULT 0, p_not_before timestamp with time zone DEFAULT NULL::timestamp with time zone'),
  ('claim_next_run', 'p_worker_id text'),
  ('append_event', 'p_run_id text, p_level text, p_message text, p_payload jsonb DEFAULT ''{}''::jsonb, p_claim_token uuid DEFAULT NULL::uuid'),
  ('finish_run', 'p_run_id text, p_status text, p_metadata jsonb DEFAULT ''{}''::jsonb, p_claim_token uuid DEFAULT NULL::uuid'),
  ('reset_run', 'p_run_id text, p_reason text DEFAULT NULL::text'),
  ('reset_stuck_runs', 'p_older_than interval DEFAULT ''00:30:00''::interval'),
  ('cancel_run', 'p_run_id text, p_reason text DEFAULT NULL::text'),
  ('retry_run', 'p_run_id text'),
  ('resolve_effect', 'p_run_id text, p_effect_key text, p_state text, p_reason text DEFAULT NULL::text'),
  ('wait_for_run', 'p_run_id text, p_timeout interval DEFAULT ''01:00:00''::interval'),
  ('timeline', 'p_run_id text'),
  ('arm', '')
) AS c(f, arguments);
SELECT is((SELECT pg_get_function_arguments(oid) || ' ' || prokind::text FROM pg_proc WHERE oid = 'ops.tail'::regproc), 'IN p_run_id text p',
          'ops.tail is a procedure');

SELECT ok(pg_get_function_result(('ops.' || f)::regproc) LIKE result || '%', format('ops.%s returns %s', f, result))
FROM (VALUES
  ('queue_run', 'TABLE(run_id text, status text, queued_at timestamp with time zone'),
  ('claim_next_run', 'TABLE(run_id text, project_id text, env_id text, git_sha text, git_ref text, metadata jsonb, attempt integer, claim_token uuid'),
  ('append_event', 'integer'), ('finish_run', 'boolean'), ('reset_run', 'TABLE(run_id text, status text, queued_at timestamp with time zone'),
  ('reset_stuck_runs', 'SETOF text'), ('cancel_run', 'ops.runs'), ('retry_run', 'ops.runs'), ('wait_for_run', 'ops.runs'),
  ('timeline', 'SETOF text'), ('arm', 'text')
) AS c(f, result);

-- One function per name: an overload would make calls with unknown literals ambiguous.
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'ops'::regnamespace GROUP BY 1 HAVING count(*) > 1$$, 'no function is overloaded');

-- Everything of the extension lies in schema ops, and nothing is there that is not of the extension.
SELECT set_eq($$SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
                 WHERE e.extname = 'ops_runner' AND d.deptype = 'e' AND d.classid IN ('pg_proc'::regclass, 'pg_class'::regclass)$$,
              $$SELECT 'pg_proc'::regclass::oid AS classid, oid AS objid FROM pg_proc WHERE pronamespace = 'ops'::regnamespace
                 UNION ALL SELECT 'pg_class'::regclass::oid, oid FROM pg_class WHERE relnamespace = 'ops'::regnamespace AND relkind IN ('r', 'v', 'S')$$,
              'schema ops holds the extension and nothing else');

-- Correct marks (I26): what writes or waits is neither stable nor allowed in a parallel worker.
SELECT set_eq($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND proname NOT LIKE '\_%' AND provolatile <> 'v'$$,
              ARRAY['timeline'], 'only timeline is stable');
SELECT is_empty($$SELECT proname FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND proname NOT LIKE '\_%' AND proparallel <> 'u'$$,
                'no function for users runs in parallel workers');

-- Comments.
SELECT is_empty($$SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL$$,
                'every function has a comment');
SELECT is_empty($$SELECT oid::regclass FROM pg_class WHERE relnamespace = 'ops'::regnamespace AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') IS NULL$$,
                'every table and view has a comment');
SELECT is_empty($$SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                   WHERE c.relnamespace = 'ops'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
                     AND col_description(a.attrelid, a.attnum) IS NULL$$, 'every column has a comment');
SELECT is_empty($$SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                   WHERE c.relnamespace = 'ops'::regnamespace AND NOT tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL$$,
                'every trigger has a comment');
SELECT isnt(obj_description('ops'::regnamespace, 'pg_namespace'), NULL, 'the schema has a comment');

-- Updates of a run at work stay on their page: no index holds a column that then changes.
SELECT is_empty($$SELECT i.indexrelid::regclass, a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                   WHERE i.indrelid = 'ops.runs'::regclass AND a.attname IN ('status', 'claimed_by', 'claim_token', 'lease_until', 'attempt', 'metadata')$$,
                'runs are updated in place');

-- Who tells an event changes its run's row too: by that the worker of an active run sees it (src/pg/run_store.hpp).
SELECT set_eq($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND prosrc ~ 'INSERT INTO ops.run_events'$$,
              ARRAY['_write_event'], 'one function writes events');
SELECT set_eq($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'ops'::regnamespace AND prosrc ~ '_write_event\(' AND prosrc !~ 'UPDATE ops.runs'$$,
              ARRAY['claim_next_run'], 'all that call it change the run; a claim does by _claim_runs');

SELECT * FROM finish();
ROLLBACK;
