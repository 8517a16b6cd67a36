\set SHOW_CONTEXT never
-- Leases, deaths that are counted, and identity: who holds a run, and what happens when it does not come back.
SELECT t.fresh();
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'prod', '0000001', 'main');
SELECT t.name(run_id) AS run FROM ops.claim_next_run('w-1');
-- While the lease lasts nobody else gets it.
SELECT * FROM ops.claim_next_run('w-2');
UPDATE ops.runs SET lease_until = clock_timestamp() - interval '1 second';
SELECT t.name(run_id) AS run, attempt FROM ops.claim_next_run('w-2');
SELECT * FROM t.events WHERE seq > 1;
-- An event makes it longer.
UPDATE ops.runs SET lease_until = clock_timestamp();
SELECT ops.append_event(run_id, 'info', 'still there') FROM ops.runs;
SELECT lease_until > clock_timestamp() + interval '20 seconds' AS extended FROM ops.runs;

-- A worker of this server that hangs: its session lock is held, its lease is over (F11).
SELECT t.fresh();
INSERT INTO ops.workers (worker_id, kind, lock_key, lease_until) VALUES ('hung', 'server', 1, clock_timestamp() + interval '1 hour');
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'prod', '0000001', 'main');
SELECT t.name(run_id) AS run, status FROM ops._claim_runs('hung', 1);
SELECT count(*) FROM ops.reset_stuck_runs('0');
UPDATE ops.workers SET lease_until = clock_timestamp() - interval '1 minute' WHERE worker_id = 'hung';
SELECT count(*) FROM ops.reset_stuck_runs('10 minutes');
SELECT t.name(r) AS reset FROM ops.reset_stuck_runs('0') r;
SELECT * FROM t.state;
SELECT * FROM t.broken;

-- Deaths of the worker are counted to the run that it was resuming; the third one parks the run (F16, R9).
SELECT t.fresh();
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'prod', '0000001', 'main');
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'prod', '0000002', 'main');
SELECT t.name(run_id) AS run, status FROM ops._claim_runs('hung', 1);
SELECT ops._note_crash(run_id) FROM ops.runs WHERE status = 'claimed';
SELECT ops._note_crash(run_id) FROM ops.runs WHERE status = 'claimed';
SELECT * FROM t.state;
SELECT ops._note_crash(run_id) FROM ops.runs WHERE status = 'claimed';
SELECT status, waiting_for, claim_token IS NULL AS free FROM ops.runs ORDER BY queued_at;
SELECT * FROM t.state;
SELECT * FROM t.broken;
-- A run that is over, or parked, or unknown counts nothing.
SELECT ops._note_crash(run_id) FROM ops.runs WHERE status = 'waiting';
SELECT ops._note_crash('run-nobody');
-- A person lets it go on.
SELECT t.name(run_id) AS run, status FROM ops.reset_run((SELECT run_id FROM ops.runs WHERE status = 'waiting'), 'mended');
SELECT status, waiting_for, crashes FROM ops.runs ORDER BY queued_at;
SELECT * FROM t.events WHERE run = 'run A' AND seq > 1;

-- Identity (F38, F39, T25): another server, database, directory or timeline is a copy.
SELECT ops._is_armed();
BEGIN; UPDATE ops.armed_identity SET system_identifier = 1; SELECT ops._is_armed(); ROLLBACK;
BEGIN; UPDATE ops.armed_identity SET database_oid = 1; SELECT ops._is_armed(); ROLLBACK;
BEGIN; UPDATE ops.armed_identity SET data_directory = 'elsewhere'; SELECT ops._is_armed(); ROLLBACK;
BEGIN; UPDATE ops.armed_identity SET timeline = timeline - 1; SELECT ops._is_armed(); ROLLBACK;
BEGIN; DELETE FROM ops.armed_identity; SELECT ops._is_armed(); ROLLBACK;
-- A promoted standby goes on, and distrusts what it has (F41).
BEGIN;
UPDATE ops.armed_identity SET data_directory = 'elsewhere', timeline = timeline - 1;
INSERT INTO ops.effects (run_id, phase, effect_key, kind, state, attempt, target, request_hash)
SELECT run_id, 'build_image', s.state, 'keyed', s.state, 1, 'POST https://x', 'h'
  FROM ops.runs, (VALUES ('intended'), ('absent'), ('done')) AS s(state) WHERE git_sha = '0000001';
SELECT ops._adopt_identity();
SELECT ops._is_armed();
SELECT effect_key, state FROM ops.effects ORDER BY 1;
SELECT count(*) FROM ops.runs WHERE look_first;
ROLLBACK;
-- But not a copy of another server, nor one that was disarmed.
BEGIN; UPDATE ops.armed_identity SET system_identifier = 1, timeline = timeline - 1; SELECT ops._adopt_identity(); ROLLBACK;
BEGIN; UPDATE ops.armed_identity SET disarmed_because = 'restored', timeline = timeline - 1; SELECT ops._adopt_identity(); ROLLBACK;
DELETE FROM ops.workers WHERE worker_id = 'hung';
