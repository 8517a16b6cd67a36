\set SHOW_CONTEXT never
-- Workers outside the server: ops.append_event, ops.finish_run, ops.reset_run, ops.reset_stuck_runs and the fence around them.
CREATE ROLE ops_regress_worker; GRANT ops_external_worker TO ops_regress_worker;
CREATE ROLE ops_regress_other; GRANT ops_external_worker TO ops_regress_other;
GRANT USAGE ON SCHEMA t TO PUBLIC; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA t TO PUBLIC; GRANT ALL ON t.names TO PUBLIC;
SELECT t.fresh();
SELECT t.name(run_id) AS run, run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main') \gset

-- The old clients: no token, the role that claimed.
SET ROLE ops_regress_worker;
SELECT t.name(run_id) AS run, attempt FROM ops.claim_next_run('w-1');
SELECT ops.append_event(:'run_id', 'info', 'building');
SELECT ops.append_event(p_run_id := :'run_id', p_level := 'debug', p_message := 'step', p_payload := '{"step": 3}');
SELECT ops.append_event(:'run_id', 'warn', 'token ghp_0123456789abcdefghijABCDEFGHIJ456789 seen', '{"password": "x"}');
SET ROLE ops_regress_other;
SELECT t.error(format('SELECT ops.append_event(%L, ''info'', ''x'')', :'run_id'));
SELECT t.error(format('SELECT ops.finish_run(%L, ''success'')', :'run_id'));
SET ROLE ops_regress_worker;
SELECT ops.finish_run(:'run_id', 'success', '{"digest": "sha256:00"}');
SELECT t.error(format('SELECT ops.finish_run(%L, ''failed'')', :'run_id'));
SELECT t.error(format('SELECT ops.append_event(%L, ''info'', ''x'')', :'run_id'));
RESET ROLE;
SELECT * FROM t.state;
SELECT * FROM t.events;
SELECT metadata, finished_at IS NOT NULL AS finished, lease_until FROM ops.runs;
SELECT phase, state FROM ops.run_phases ORDER BY phase_no;

-- With the token, also another role of the same service; a stale token is refused.
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abd', 'main') \gset
SET ROLE ops_regress_worker;
SELECT claim_token AS old_token FROM ops.claim_next_run('w-1') \gset
SET ROLE ops_regress_other;
SELECT ops.append_event(:'run_id', 'info', 'by token', '{}', :'old_token');
RESET ROLE;
SELECT status FROM ops.reset_run(:'run_id', 'worker looks dead');
SELECT * FROM t.state WHERE run = t.name(:'run_id');
SET ROLE ops_regress_worker;
SELECT t.error(format('SELECT ops.append_event(%L, ''info'', ''late'', ''{}'', %L)', :'run_id', :'old_token'));
SELECT attempt, claim_token AS new_token, claim_token <> :'old_token' AS new FROM ops.claim_next_run('w-2') \gset
\echo :attempt :new
SELECT t.error(format('SELECT ops.append_event(%L, ''info'', ''late'', ''{}'', %L)', :'run_id', :'old_token'));
SELECT t.error(format('SELECT ops.finish_run(%L, ''success'', ''{}'', %L)', :'run_id', :'old_token'));
SELECT ops.finish_run(:'run_id', 'failed', '{}', :'new_token');
RESET ROLE;
SELECT * FROM t.events WHERE run = t.name(:'run_id');
SELECT * FROM t.broken;

-- A run of this server's worker is nobody else's, whatever token is named.
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abe', 'main') \gset
SELECT claim_token FROM ops._claim_runs('built-in', 1) \gset
SELECT t.error(format('SELECT ops.append_event(%L, ''info'', ''x'', ''{}'', %L)', :'run_id', :'claim_token'));
SELECT t.error(format('SELECT ops.append_event(%L, ''info'', ''x'')', :'run_id'));

-- Arguments (I01, I02, I08)
SELECT t.fresh();
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main') \gset
SELECT t.error(format('SELECT ops.append_event(%L, ''info'', ''x'')', :'run_id'));
SELECT t.error(format('SELECT ops.finish_run(%L, ''success'')', :'run_id'));
SELECT claim_token IS NOT NULL AS claimed FROM ops.claim_next_run('w-1');
SELECT t.error($$SELECT ops.append_event('run-0', 'info', 'x')$$);
SELECT t.error($$SELECT ops.append_event(NULL, 'info', 'x')$$);
SELECT t.error(format('SELECT ops.append_event(%L, %s)', :'run_id', a)) FROM unnest(ARRAY['NULL, ''x''', '''info'', NULL', '''info'', ''x'', NULL',
  '''fatal'', ''x''', '''INFO'', ''x''', '''info'', ''''', '''info'', ''  ''', '''info'', ''x'', ''[]''', '''info'', ''x'', ''null''',
  '''info'', repeat(''x'', 8193)', '''info'', ''x'', jsonb_build_object(''a'', repeat(''x'', 1100000))']) a;
SELECT t.error(format('SELECT ops.finish_run(%L, %s)', :'run_id', a)) FROM unnest(ARRAY['NULL', '''success'', NULL', '''done''', '''running''', '''success'', ''[]''',
  '''success'', ''{"phases": 1}''']) a;
SELECT t.error($$SELECT ops.finish_run('run-0', 'success')$$);
SELECT ops.append_event(:'run_id', 'info', repeat('x', 8192));
SELECT * FROM t.state;
SELECT ops.finish_run(:'run_id', 'cancelled');

-- The lease: extended by events, and only what shows no sign of life for long enough is given back.
SELECT t.fresh();
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main') \gset
SELECT claim_token IS NOT NULL AS claimed FROM ops.claim_next_run('w-1');
SELECT count(*) FROM ops.reset_stuck_runs('0');
UPDATE ops.runs SET lease_until = clock_timestamp() - interval '10 minutes';
SELECT count(*) FROM ops.reset_stuck_runs();
SELECT ops.append_event(:'run_id', 'info', 'still here');
SELECT lease_until > clock_timestamp() AS extended FROM ops.runs;
SELECT count(*) FROM ops.reset_stuck_runs('0');
UPDATE ops.runs SET lease_until = clock_timestamp() - interval '31 minutes';
SELECT t.name(reset_stuck_runs) AS run FROM ops.reset_stuck_runs();
SELECT * FROM t.state;
SELECT * FROM t.events;
SELECT status, claimed_by, claim_token, claimed_role, lease_until FROM ops.runs;
-- Not those of this server: their death is proven by a lock.
SELECT count(*) FROM ops._claim_runs('built-in', 1, NULL, NULL);
SELECT count(*) FROM ops.reset_stuck_runs('0');
SELECT t.error('SELECT ops.reset_stuck_runs(' || i || ')') FROM unnest(ARRAY['NULL', '''-1 day''', '''10000 years''']) i;

-- reset_run
SELECT status FROM ops.reset_run(:'run_id');
SELECT t.error(format('SELECT ops.reset_run(%L)', :'run_id'));
SELECT status FROM ops.cancel_run(:'run_id');
SELECT t.error(format('SELECT ops.reset_run(%L)', :'run_id'));
SELECT t.error('SELECT ops.reset_run(NULL)');
SELECT t.error('SELECT ops.reset_run(''nothing'')');
SELECT * FROM t.broken;
DROP ROLE ops_regress_worker, ops_regress_other;
