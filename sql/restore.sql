\set SHOW_CONTEXT never
-- A copy does not act by itself (T25, F38, F39): restored history queues nothing and disarms; ops.arm() makes it whole.
SELECT t.fresh();
SELECT ops.arm() LIKE 'armed for server %' AS armed;
-- What a dump carries, and what it does not.
SELECT c.oid::regclass AS "table", c.oid = ANY (e.extconfig) AS dumped
  FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'ops_runner'
 WHERE c.relkind = 'r' ORDER BY c.oid::regclass::text COLLATE "C";

-- Final history alone changes nothing.
INSERT INTO ops.runs (run_id, project_id, env_id, git_sha, git_ref, status, finished_at, created_at)
VALUES ('run-00000000-0000-7000-8000-000000000001', 'acme', 'acme-prod', '0123abc', 'main', 'success', '2026-01-01', '2026-01-01');
SELECT disarmed_because FROM ops.armed_identity;
-- History that is not over.
COPY ops.runs (run_id, project_id, env_id, git_sha, git_ref, status, claimed_by, claim_token, queued_at, created_at, attempt) FROM stdin;
run-00000000-0000-7000-8000-000000000002	acme	acme-prod	0123abc	main	running	vm/1	00000000-0000-0000-0000-000000000002	2026-01-02 00:00+00	2026-01-02 00:00+00	1
run-00000000-0000-7000-8000-000000000003	acme	acme-prod	0123abc	main	queued	\N	\N	2026-01-03 00:00+00	2026-01-03 00:00+00	0
run-00000000-0000-7000-8000-000000000004	acme	acme-dev	0123abc	main	claimed	vm/1	00000000-0000-0000-0000-000000000004	2026-01-04 00:00+00	2026-01-04 00:00+00	1
\.
INSERT INTO ops.run_events (run_id, seq, level, message) SELECT run_id, 1, 'info', 'queued' FROM ops.runs;
INSERT INTO ops.run_phases (run_id, phase_no, phase, kind, timeout, state)
SELECT run_id, 1, 'build_image', 'github_workflow', '1 h', CASE status WHEN 'running' THEN 'running' ELSE 'pending' END FROM ops.runs;
SELECT disarmed_because FROM ops.armed_identity;
SELECT * FROM t.state;
SELECT t.error($$SELECT * FROM ops.claim_next_run('w-1')$$);
-- Only a superuser arms.
CREATE ROLE ops_regress_admin; GRANT ops_admin TO ops_regress_admin;
SET ROLE ops_regress_admin;
SELECT ops.arm();
RESET ROLE;
DROP ROLE ops_regress_admin;
SELECT ops.arm() LIKE '%disarmed because history was restored into this database)' AS armed;
SELECT disarmed_because FROM ops.armed_identity;
SELECT * FROM t.state;
SELECT * FROM t.broken;
SELECT t.name(run_id) AS run, attempt FROM ops.claim_next_run('w-1');
