\set SHOW_CONTEXT never
-- ops.claim_next_run and the one claim rule behind it.
SELECT t.fresh();
SELECT * FROM ops.claim_next_run('w-1');
-- Priority first, then age.
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'prod', '0000001', 'main');
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'staging', '0000002', 'main', p_priority := -1);
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'dev', '0000003', 'main');
SELECT t.name(run_id) AS run FROM ops.queue_run('bolt', 'bolt-dev-1', '0000004', 'main', p_priority := 9);
SELECT t.name(run_id) AS run, project_id, env_id, git_sha, git_ref, metadata, attempt, claim_token IS NOT NULL AS token
  FROM ops.claim_next_run('w-1');
SELECT t.name(run_id) AS run, env_id FROM ops.claim_next_run('w-1');
SELECT t.name(run_id) AS run, env_id FROM ops.claim_next_run('w-2');
SELECT t.name(run_id) AS run, env_id FROM ops.claim_next_run('w-2');
SELECT t.name(run_id) AS run, env_id FROM ops.claim_next_run('w-2');
SELECT * FROM t.state;
SELECT worker_id, kind FROM ops.workers WHERE kind = 'external' ORDER BY 1;
SELECT status, claimed_role, claimed_at <= clock_timestamp() AS claimed, lease_until > clock_timestamp() AS lease, started_at IS NOT NULL AS started
  FROM ops.runs ORDER BY queued_at;
SELECT * FROM t.events WHERE seq > 1;
SELECT * FROM t.broken;

-- max_active_runs holds, and what finds no slot is blocked until one is given back.
SELECT t.fresh();
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) SELECT 'acme', 'acme-dev', '0123abc', 'main' FROM generate_series(1, 5);
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) SELECT 'acme', 'acme-prod', '0123abc', 'main' FROM generate_series(1, 2);
SELECT env_id, count(*) FROM ops._claim_runs('w', 100) GROUP BY 1 ORDER BY 1;
SELECT * FROM t.state;
SELECT count(*) FROM ops._claim_runs('w', 100);
UPDATE ops.runs SET status = 'success', finished_at = now() WHERE env_id = 'acme-dev' AND status = 'claimed';
SELECT * FROM t.state;
-- A run with priority that arrives meanwhile overtakes the one that was made ready.
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, priority) VALUES ('acme', 'acme-dev', '0123abc', 'main', 5);
SELECT count(*) FROM ops._claim_runs('w', 1);
SELECT * FROM t.state;
-- A ready run that is cancelled gives its turn to the next.
SELECT status FROM ops.cancel_run((SELECT run_id FROM ops.run_queue WHERE env_id = 'acme-dev' AND state = 'ready' ORDER BY available_at LIMIT 1));
SELECT * FROM t.state;
SELECT env_id, count(*) FROM ops._claim_runs('w', 100) GROUP BY 1;
SELECT * FROM t.state;
SELECT * FROM t.broken;

-- Fewer slots than active runs: nothing new until enough have ended. More slots: the safety check finds them. In one
-- transaction, so that the worker's own safety check cannot come before.
BEGIN;
UPDATE ops.environments SET config = config || '{"max_active_runs": 1}' WHERE env_id = 'acme-dev';
UPDATE ops.runs SET status = 'failed', finished_at = now() WHERE env_id = 'acme-dev' AND run_id = (SELECT run_id FROM ops.run_slots WHERE env_id = 'acme-dev' AND slot_no = 1);
SELECT count(*) FROM ops._claim_runs('w', 100);
UPDATE ops.environments SET config = config || '{"max_active_runs": 3}' WHERE env_id = 'acme-dev';
SELECT count(*) FROM ops._claim_runs('w', 100);
SELECT ops._promote_free_slots();
SELECT count(*) FROM ops._claim_runs('w', 100);
SELECT ops._promote_free_slots();
COMMIT;
SELECT * FROM t.state WHERE env_id = 'acme-dev';
SELECT * FROM t.broken;

-- A queued run with a slot, which only a hand in the tables can give it, holds up nobody else.
SELECT t.fresh();
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) SELECT 'acme', 'acme-dev', '0123abc', 'main' FROM generate_series(1, 2);
INSERT INTO ops.run_slots (env_id, slot_no, run_id, worker_id) SELECT env_id, 3, run_id, 'a hand' FROM ops.run_queue ORDER BY available_at, run_id LIMIT 1;
SELECT count(*) FROM ops._claim_runs('w', 100);
SELECT count(*) FROM ops._claim_runs('w', 100);
DELETE FROM ops.run_slots WHERE worker_id = 'a hand';
SELECT count(*) FROM ops._claim_runs('w', 100);
SELECT * FROM t.broken;

-- A run with a later start waits for it.
SELECT t.fresh();
SELECT t.name(run_id) AS run FROM ops.queue_run('acme', 'prod', '0123abc', 'main', p_not_before := clock_timestamp() + interval '1 hour');
SELECT count(*) FROM ops._claim_runs('w', 1);
SELECT state FROM ops.run_queue;
UPDATE ops.run_queue SET available_at = clock_timestamp() - interval '1 second';
SELECT ops._find_ready();
SELECT t.name(run_id) AS run FROM ops._claim_runs('w', 1);

-- The cost of a claim does not depend on how many runs are blocked: it reads the same number of blocks beside 10 and 10,000.
CREATE FUNCTION t.blocks_of_a_claim() RETURNS int LANGUAGE plpgsql AS $$
DECLARE v_plan json;
BEGIN
  INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) VALUES ('bolt', 'bolt-dev-1', '0123abc', 'main');
  EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT json) SELECT * FROM ops._claim_runs(''w'', 1)' INTO v_plan;
  UPDATE ops.runs SET status = 'success', finished_at = now() WHERE env_id = 'bolt-dev-1' AND status = 'claimed';
  RETURN (v_plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::int + (v_plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::int;
END $$;
SELECT t.fresh();
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) SELECT 'acme', 'acme-prod', '0123abc', 'main' FROM generate_series(1, 11);
SELECT count(*) FROM ops._claim_runs('w', 20);
VACUUM ops.run_queue, ops.run_slots, ops.runs;
SELECT t.blocks_of_a_claim() > 0 AS warm;
SELECT min(t.blocks_of_a_claim()) AS few FROM generate_series(1, 5) \gset
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) SELECT 'acme', 'acme-prod', '0123abc', 'main' FROM generate_series(1, 10000);
SELECT count(*) FROM ops._claim_runs('w', 20);
VACUUM ops.run_queue, ops.run_slots, ops.runs;
SELECT state, count(*) FROM ops.run_queue GROUP BY 1;
SELECT min(t.blocks_of_a_claim()) AS many FROM generate_series(1, 5) \gset
SELECT CASE WHEN :many < 1.5 * :few THEN 'independent' ELSE 'few blocked: :few, many blocked: :many' END AS cost;
DROP FUNCTION t.blocks_of_a_claim();

-- I01, I02, I03
SELECT t.fresh();
SELECT t.error('SELECT * FROM ops.claim_next_run(NULL)');
SELECT left(w, 20) AS worker, e AS error FROM unnest(ARRAY['', ' ', E'a\nb', repeat('w', 201)]) w, t.error(format('SELECT * FROM ops.claim_next_run(%L)', w)) e;
SELECT t.error('SELECT * FROM ops.claim_next_run(' || quote_literal(worker_id) || ')') ~ 'is a worker of this server|choose another'
  FROM ops.workers WHERE kind = 'server' AND stopped_at IS NULL LIMIT 1;
-- T25: a copy gives out no runs.
SELECT status FROM ops.queue_run('acme', 'prod', '0123abc', 'main');
BEGIN;
UPDATE ops.armed_identity SET system_identifier = 1;
SELECT t.error($$SELECT * FROM ops.claim_next_run('w-1')$$);
ROLLBACK;
-- I26
BEGIN READ ONLY; SELECT * FROM ops.claim_next_run('w-1'); ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT t.name(run_id) FROM ops.claim_next_run('w-1'); COMMIT;
