\set SHOW_CONTEXT never
-- Rows written past the functions, by COPY, INSERT, UPDATE and DELETE, are queued and followed all the same.
SELECT t.fresh();
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, priority)
SELECT 'acme', 'acme-dev', '0123abc', 'main', i FROM generate_series(1, 3) i;
COPY ops.runs (project_id, env_id, git_sha, git_ref) FROM stdin;
acme	acme-prod	0123abc	main
bolt	bolt-dev-1	0123abc	main
\.
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, status, waiting_for) VALUES ('acme', 'acme-prod', '0123abc', 'main', 'waiting', 'approval');
SELECT * FROM t.state;
SELECT count(*) FROM ops.run_phases;
SELECT * FROM t.broken;

SELECT t.error($$INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) VALUES ('bolt', 'acme-prod', '0123abc', 'main')$$);
SELECT t.error($$INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) VALUES ('acme', 'nowhere', '0123abc', 'main')$$);
SELECT t.error($$INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, status, finished_at) VALUES ('acme', 'acme-prod', '0123abc', 'main', 'success', now())$$);
SELECT t.error($$INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, metadata) VALUES ('acme', 'acme-prod', '0123abc', 'main', '{"phases": []}')$$);
SELECT t.error($$INSERT INTO ops.runs (run_id, project_id, env_id, git_sha, git_ref) VALUES ('x', 'acme', 'acme-prod', '0123abc', 'main')$$);
SELECT t.error($$INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, priority, idempotency_key, origin_kind) VALUES $$ || wrong)
  FROM unnest(ARRAY[$$('acme', 'acme-prod', '0123ABC', 'main', 0, NULL, NULL)$$, $$('acme', 'acme-prod', '0123abc', '', 0, NULL, NULL)$$,
    $$('acme', 'acme-prod', '0123abc', 'main', 1001, NULL, NULL)$$, $$('acme', 'acme-prod', '0123abc', 'main', 0, '', NULL)$$,
    $$('acme', 'acme-prod', '0123abc', 'main', 0, NULL, 'retry')$$]) AS wrong;
-- What does not go together with a status.
SELECT t.error($$INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, status, waiting_for, finished_at, available_at) VALUES ('acme', 'acme-prod', '0123abc', 'main', $$ || wrong)
  FROM unnest(ARRAY[$$'done', NULL, NULL, NULL)$$, $$'queued', 'approval', NULL, NULL)$$, $$'waiting', NULL, NULL, NULL)$$, $$'queued', NULL, now(), NULL)$$,
    $$'running', NULL, NULL, NULL)$$, $$'queued', NULL, NULL, 'infinity')$$, $$NULL, NULL, NULL, NULL)$$]) AS wrong;
SELECT t.error('UPDATE ops.runs SET ' || change || ' WHERE env_id = ''bolt-dev-1''')
  FROM unnest(ARRAY['status = ''claimed''', 'status = ''cancelled''', 'waiting_for = ''x''', 'status = ''nonsense''', 'available_at = ''-infinity''',
    'status = ''claimed'', claimed_by = ''w'', claim_token = gen_random_uuid()', 'metadata = ''{"phases": 1}''']) AS change;
-- What a run was queued for stays.
SELECT t.error('UPDATE ops.runs SET ' || change)
  FROM unnest(ARRAY['git_sha = ''fffffff''', 'git_ref = ''other''', 'priority = 7', 'env_id = ''acme-dev''', 'idempotency_key = ''k''']) AS change;
UPDATE ops.runs SET git_ref = git_ref;

-- Park, go on, end.
UPDATE ops.runs SET status = 'waiting', waiting_for = 'freeze' WHERE env_id = 'acme-dev';
SELECT * FROM t.state;
UPDATE ops.runs SET status = 'queued', waiting_for = NULL WHERE waiting_for IN ('freeze', 'approval');
SELECT count(*) FROM ops._claim_runs('w', 10);
SELECT * FROM t.state;
UPDATE ops.runs SET status = 'running' WHERE status = 'claimed';
UPDATE ops.runs SET status = 'failed', finished_at = now() WHERE status = 'running';
-- Each slot that was given back made one blocked run of its environment ready.
SELECT * FROM t.state;
SELECT * FROM t.broken;

-- What belongs to a run goes with it, and its slot is free for the next.
SELECT t.fresh();
INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) SELECT 'acme', 'acme-prod', '0123abc', 'main' FROM generate_series(1, 3);
SELECT count(*) FROM ops._claim_runs('w', 10);
SELECT * FROM t.state;
DELETE FROM ops.runs WHERE status = 'claimed';
SELECT * FROM t.state;
SELECT (SELECT count(*) FROM ops.run_phases) AS phases, (SELECT count(*) FROM ops.run_events) AS events;
TRUNCATE ops.runs;
SELECT (SELECT count(*) FROM ops.run_phases) AS phases, (SELECT count(*) FROM ops.run_events) AS events,
       (SELECT count(*) FROM ops.run_queue) AS queue, (SELECT count(*) FROM ops.run_slots) AS slots;
