\set SHOW_CONTEXT never
-- ops.wait_for_run, ops.tail, ops.timeline, ops.worker_status.
SELECT t.fresh();
SET TimeZone = 'UTC';
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main') \gset
SELECT t.name(:'run_id') AS run;
SELECT t.error(format('SELECT ops.wait_for_run(%L, ''50 ms'')', :'run_id'));
SELECT t.error('SELECT ops.wait_for_run(NULL)');
SELECT t.error('SELECT ops.wait_for_run(''x'')');
SELECT t.error(format('SELECT ops.wait_for_run(%L, %s)', :'run_id', i)) FROM unnest(ARRAY['NULL', '''-1 s''', '''10000 years''']) i;
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT ops.wait_for_run(:'run_id', '1 s'); ROLLBACK;
SELECT t.error('CALL ops.tail(NULL)');
SELECT t.error('CALL ops.tail(''x'')');
SELECT attempt FROM ops.claim_next_run('w-1');
SELECT ops.append_event(:'run_id', 'info', 'building');
SELECT ops.finish_run(:'run_id', 'failed');
SELECT t.name(run_id) AS run, status FROM ops.wait_for_run(:'run_id');
-- A run that is over is printed whole.
UPDATE ops.run_events SET created_at = '2026-01-02 03:04:05.678+00'::timestamptz + seq * interval '1 s';
CALL ops.tail(:'run_id');

-- Timeline, with known times.
DELETE FROM ops.runs;
INSERT INTO ops.runs (run_id, project_id, env_id, git_sha, git_ref, status, finished_at, queued_at, created_at) VALUES
  ('run-00000000-0000-7000-8000-000000000000', 'acme', 'acme-prod', '0123abc', 'main', 'failed', '2026-01-02 03:10+00', '2026-01-02 03:00+00', '2026-01-02 03:00+00');
INSERT INTO ops.run_phases (run_id, phase_no, phase, kind, timeout, state, attempt, started_at, finished_at) VALUES
  ('run-00000000-0000-7000-8000-000000000000', 1, 'build_image', 'github_workflow', '1 h', 'succeeded', 1, '2026-01-02 03:00+00', '2026-01-02 03:05+00'),
  ('run-00000000-0000-7000-8000-000000000000', 2, 'deploy_runtime', 'digitalocean_app', '1 h', 'failed', 2, '2026-01-02 03:05+00', '2026-01-02 03:10+00'),
  ('run-00000000-0000-7000-8000-000000000000', 3, 'smoke_tests', 'odoo_smoke', '1 h', 'skipped', 0, NULL, NULL);
SELECT ops.timeline('run-00000000-0000-7000-8000-000000000000');
SELECT t.error('SELECT ops.timeline(NULL)');
SELECT t.error('SELECT ops.timeline(''x'')');
SELECT count(*) AS rows, min(database) = current_database() AS here, min(state) IS NOT NULL AS state FROM ops.worker_status;
