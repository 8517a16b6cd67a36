\set SHOW_CONTEXT never
-- ops.cancel_run in each status, ops.retry_run.
SELECT t.fresh();
-- queued: at once
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main') \gset
SELECT status, cancel_reason, cancel_requested_by, finished_at IS NOT NULL AS finished FROM ops.cancel_run(:'run_id', 'wrong branch');
SELECT t.error(format('SELECT ops.cancel_run(%L)', :'run_id'));
SELECT phase, state FROM ops.run_phases ORDER BY phase_no;
-- waiting: at once
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abd', 'main') \gset
UPDATE ops.runs SET status = 'waiting', waiting_for = 'approval' WHERE status = 'queued';
SELECT status, waiting_for FROM ops.cancel_run(:'run_id');
-- a worker outside the server: it sees the request and finishes
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abe', 'main') \gset
SELECT attempt FROM ops.claim_next_run('w-1');
SELECT status, cancel_requested_at IS NOT NULL AS requested FROM ops.cancel_run(:'run_id', 'stop');
SELECT t.error(format('SELECT ops.cancel_run(%L)', :'run_id'));
SELECT ops.finish_run(:'run_id', 'cancelled');
-- the worker of this server: told through its slot
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abf', 'main') \gset
SELECT count(*) FROM ops._claim_runs('built-in', 1);
UPDATE ops.runs SET status = 'running' WHERE status = 'claimed';
UPDATE ops.run_phases SET state = 'running', started_at = now() WHERE run_id = :'run_id' AND phase_no = 1;
SELECT status FROM ops.cancel_run(:'run_id', 'stop');
SELECT t.name(run_id) AS run, cancel_requested FROM ops.run_slots;
-- given back in the middle of a phase: claimed once more, to stop what was begun outside
SELECT status FROM ops.reset_run(:'run_id');
UPDATE ops.runs SET cancel_requested_at = NULL WHERE run_id = :'run_id';
SELECT status, cancel_requested_at IS NOT NULL AS requested FROM ops.cancel_run(:'run_id', 'stop');
SELECT t.error(format('SELECT ops.cancel_run(%L)', :'run_id'));
SELECT t.name(run_id) AS run, cancel_requested_at IS NOT NULL AS requested FROM ops._claim_runs('built-in', 1);
UPDATE ops.runs SET status = 'cancelled', finished_at = now() WHERE status = 'claimed';
-- parked in the middle of a phase: queued once more, to stop what was begun outside; a second time ends it as it is
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123ac0', 'main') \gset
SELECT count(*) FROM ops._claim_runs('built-in', 1);
UPDATE ops.run_phases SET state = 'running' WHERE run_id = :'run_id' AND phase_no = 1;
UPDATE ops.runs SET status = 'waiting', waiting_for = 'secret:github' WHERE status = 'claimed';
SELECT status, waiting_for, cancel_requested_at IS NOT NULL AS requested FROM ops.cancel_run(:'run_id', 'stop');
SELECT t.name(run_id) AS run, cancel_requested_at IS NOT NULL AS requested FROM ops._claim_runs('built-in', 1);
UPDATE ops.runs SET status = 'waiting', waiting_for = 'secret:github' WHERE status = 'claimed';
SELECT status, waiting_for FROM ops.cancel_run(:'run_id', 'let it be');
SELECT t.error(format('SELECT ops.cancel_run(%L)', :'run_id'));
-- records may be lost: claimed once more, to look
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123ac1', 'main') \gset
UPDATE ops.runs SET look_first = true WHERE run_id = :'run_id';
SELECT status, cancel_requested_at IS NOT NULL AS requested FROM ops.cancel_run(:'run_id', 'stop');
SELECT t.name(run_id) AS run, cancel_requested_at IS NOT NULL AS requested FROM ops._claim_runs('built-in', 1);
UPDATE ops.runs SET status = 'cancelled', finished_at = now() WHERE status = 'claimed';
-- effects that nobody can tell are named
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123ab0', 'main') \gset
INSERT INTO ops.effects (run_id, phase, effect_key, kind, state, attempt, target, request_hash)
VALUES (:'run_id', 'deploy_runtime', 'deploy', 'unkeyed', 'needs_decision', 1, 'PUT https://api.digitalocean.com/v2/apps/a-1', 'x');
UPDATE ops.runs SET status = 'waiting', waiting_for = 'decision' WHERE status = 'queued';
SELECT status FROM ops.cancel_run(:'run_id');
SELECT * FROM t.events;
SELECT * FROM t.state;
SELECT * FROM t.broken;
SELECT t.error('SELECT ops.cancel_run(NULL)');
SELECT t.error('SELECT ops.cancel_run(''run-1'')');
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123ab1', 'main') \gset
SELECT t.error(format('SELECT ops.cancel_run(%L, repeat(''x'', 1001))', :'run_id'));
-- a reason is masked
SELECT cancel_reason FROM ops.cancel_run(:'run_id', 'leaked ghp_0123456789abcdefghijABCDEFGHIJ456789');

-- retry
SELECT t.fresh();
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'v1', '{"ticket": 7}', 'k', 5) \gset
SELECT t.name(:'run_id') AS run;
SELECT t.error(format('SELECT ops.retry_run(%L)', :'run_id'));
SELECT attempt FROM ops.claim_next_run('w-1');
SELECT t.error(format('SELECT ops.retry_run(%L)', :'run_id'));
SELECT ops.finish_run(:'run_id', 'failed');
SELECT run_id AS retried, t.name(run_id) AS run, status, git_sha, git_ref, metadata, priority, idempotency_key, t.name(origin_run_id) AS origin, origin_kind
  FROM ops.retry_run(:'run_id') \gset r_
\echo :r_run :r_status :r_git_sha :r_git_ref :r_metadata :r_priority :r_origin :r_origin_kind
-- F78
SELECT t.error(format('SELECT ops.retry_run(%L)', :'run_id'));
SELECT attempt FROM ops.claim_next_run('w-1');
SELECT ops.finish_run(:'r_retried', 'success');
SELECT t.error(format('SELECT ops.retry_run(%L)', :'r_retried'));
SELECT t.name((ops.retry_run(:'run_id')).run_id) AS run;
SELECT t.error('SELECT ops.retry_run(NULL)');
SELECT t.error('SELECT ops.retry_run(''x'')');
SELECT * FROM t.state;
SELECT * FROM t.broken;
