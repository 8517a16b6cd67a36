\set SHOW_CONTEXT never
-- ops.queue_run: arguments, idempotency, what a new run brings with it.
SELECT t.fresh();

SELECT run_id ~ '^run-[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' AS id, status, queued_at <= clock_timestamp() AS queued
  FROM ops.queue_run('acme', 'staging', '0123ABCdef', 'main');
SELECT status FROM ops.queue_run(p_project_id := 'acme', p_env := 'acme-prod', p_git_sha := '0123abc', p_git_ref := 'v1.2',
  p_metadata := '{"ticket": 7}', p_idempotency_key := 'k', p_priority := 5, p_not_before := now() + interval '1 hour');
SELECT * FROM t.state;
SELECT t.name(run_id) AS run, project_id, env_id, git_sha, git_ref, metadata, priority, requested_by, available_at > now() AS later
  FROM ops.runs ORDER BY queued_at;
SELECT * FROM t.events;
SELECT t.name(run_id) AS run, phase_no, phase, kind, needs, state, timeout FROM ops.run_phases JOIN ops.runs USING (run_id)
 ORDER BY queued_at, phase_no;

-- Phases are frozen: later edits do not touch runs under way.
UPDATE ops.environments SET config = '{}' WHERE env_id = 'acme-staging';
SELECT config ? 'github' AS kept FROM ops.run_phases JOIN ops.runs USING (run_id) WHERE env_id = 'acme-staging' AND phase_no = 1;
-- What the phases need is missed when the run is queued.
SELECT t.error($$SELECT * FROM ops.queue_run('acme', 'staging', '0123abc', 'main')$$);
UPDATE ops.environments SET config = '{"github": {"workflow": "b.yml"}, "registry": {"image": "a/b"}}' WHERE env_id = 'acme-staging';
SELECT t.error($$SELECT * FROM ops.queue_run('acme', 'staging', '0123abc', 'main')$$);
SELECT t.fresh();

-- I01: null in each argument.
SELECT a AS argument, e AS error FROM unnest(ARRAY['p_project_id', 'p_env', 'p_git_sha', 'p_git_ref', 'p_metadata', 'p_priority']) a,
  t.error(format('SELECT ops.queue_run(p_project_id := %s, p_env := %s, p_git_sha := %s, p_git_ref := %s, p_metadata := %s, p_priority := %s)',
    CASE a WHEN 'p_project_id' THEN 'NULL' ELSE '''acme''' END, CASE a WHEN 'p_env' THEN 'NULL' ELSE '''prod''' END,
    CASE a WHEN 'p_git_sha' THEN 'NULL' ELSE '''0123abc''' END, CASE a WHEN 'p_git_ref' THEN 'NULL' ELSE '''main''' END,
    CASE a WHEN 'p_metadata' THEN 'NULL' ELSE '''{}''' END, CASE a WHEN 'p_priority' THEN 'NULL' ELSE '0' END)) e;
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'main', '{}', NULL, 0, NULL)$$);

-- Unknown and ambiguous names.
SELECT t.error($$SELECT ops.queue_run('acmee', 'prod', '0123abc', 'main')$$);
SELECT t.error($$SELECT ops.queue_run('acme', 'test', '0123abc', 'main')$$);
SELECT t.error($$SELECT ops.queue_run('bolt', 'dev', '0123abc', 'main')$$);
SELECT t.error($$SELECT ops.queue_run('bolt', 'bolt-dev-2', '0123abc', 'main')$$);
SELECT t.error($$SELECT ops.queue_run('bolt', 'acme-prod', '0123abc', 'main')$$);
-- I02, I03
SELECT t.error($$SELECT ops.queue_run('', 'prod', '0123abc', 'main')$$);
SELECT t.error($$SELECT ops.queue_run(repeat('x', 1000000), 'prod', '0123abc', 'main')$$);
SELECT t.error($$SELECT ops.queue_run('acme', repeat('x', 64), '0123abc', 'main')$$);
SELECT t.error($$SELECT ops.queue_run('a''; DROP TABLE ops.runs;--', 'prod', '0123abc', 'main')$$);
-- Commits
SELECT left(sha, 20) AS sha, left(e, 60) AS error FROM unnest(ARRAY['', '012abc', '0123abg', ' 0123abc', '0123abc ', E'0123abc\n', 'HEAD', repeat('a', 65)]) sha,
  t.error(format('SELECT ops.queue_run(''acme'', ''prod'', %L, ''main'')', sha)) WITH ORDINALITY AS e(e, line) WHERE line = 1;
-- I04, I22: refs
SELECT left(ref, 20) AS ref, left(e, 60) AS error FROM unnest(ARRAY['', ' ', 'a b', 'a..b', '-a', '/a', 'a/', 'a//b', '.a', 'a/.b', 'a.', 'a.lock', 'a~1', 'a^', 'a:b', 'a?', 'a*',
  'a[b', 'a\b', 'a@{b', E'a\nb', E'a\r\nX: y', repeat('r', 256), 'main', 'feature/x-1', 'v1.0', 'release@2', repeat('r', 255)]) ref,
  t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', %L)', ref)) WITH ORDINALITY AS e(e, line) WHERE line = 1;
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'a b')$$);
-- I06
SELECT p, e AS error FROM unnest(ARRAY[-1001, 1001, 2147483647, -1000, 1000]) p,
  t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', p_priority := %s)', p)) e;
-- I07
SET TimeZone = 'UTC';
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'main', p_not_before := 'infinity')$$);
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'main', p_not_before := '-infinity')$$);
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'main', p_not_before := '294276-01-01 00:00')$$);
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'main', p_not_before := '2001-01-01 00:00')$$);
-- I08, I09, I11 to I17
SELECT m AS metadata, e AS error FROM unnest(ARRAY['null', '1', '"x"', '[]', '{"phases": null}', '{"phases": [{"name": "a"}]}', '{"a": "\u0000"}', '{"a": "\ud800"}',
  '{"a": 1e400}', '{"a": 123456789012345678901234567890}', '{"a": 9007199254740993.0}', '{"a": -0}', '{"a": "'' OR 1=1; --"}', '{"token": "abc"}', '{"note": "ghp_0123456789abcdefghijABCDEFGHIJ456789"}',
  '{"note": "-----BEGIN RSA PRIVATE KEY----- x"}']) m,
  t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', %L)', m)) e;
SELECT metadata FROM ops.runs WHERE metadata ? 'a' ORDER BY queued_at;
SELECT depth, e AS error FROM unnest(ARRAY[63, 64, 1000]) depth,
  t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', %L)', '{"a": ' || repeat('[', depth) || repeat(']', depth) || '}')) e;
SELECT t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', %L)', jsonb_build_object('a', repeat('x', 1100000))));
SELECT t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', %L)',
  (SELECT jsonb_object_agg('k' || i, 1) FROM generate_series(1, 1001) i)));

-- I18, I19: idempotency.
SELECT t.fresh();
SELECT t.name(run_id) AS run, status FROM ops.queue_run('acme', 'prod', '0123abc', 'main', '{"a": 1, "b": 2}', 'key-1');
SELECT t.name(run_id) AS run, status FROM ops.queue_run('acme', 'acme-prod', '0123ABC', 'main', '{"b": 2, "a": 1}', 'key-1', 7);
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'other', '{"a": 1, "b": 2}', 'key-1')$$);
SELECT t.error($$SELECT ops.queue_run('acme', 'prod', '0123abc', 'main', '{"a": 1}', 'key-1')$$);
SELECT t.error($$SELECT ops.queue_run('acme', 'dev', '0123abc', 'main', '{"a": 1, "b": 2}', 'key-1')$$);
SELECT t.name(run_id) AS run, status FROM ops.queue_run('bolt', 'bolt-dev-1', '0123abc', 'main', '{}', 'key-1');
SELECT t.name(run_id) AS run, status FROM ops.queue_run('acme', 'prod', '0123abc', 'main', '{"a": 1, "b": 2}');
SELECT left(k, 20) AS key, e AS error FROM unnest(ARRAY['', repeat('k', 201), E'a\nb']) k,
  t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', ''{}'', %L)', k)) e;
SELECT * FROM t.state;
-- A final run keeps its key.
SELECT status FROM ops.cancel_run((SELECT run_id FROM ops.runs WHERE idempotency_key = 'key-1' AND project_id = 'acme'));
SELECT t.name(run_id) AS run, status FROM ops.queue_run('acme', 'prod', '0123abc', 'main', '{"a": 1, "b": 2}', 'key-1');

-- Phases follow the environment's config as it is now, also where the session has planned it before.
CREATE FUNCTION t.planned() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_run text := (SELECT q.run_id FROM ops.queue_run('acme', 'staging', '0123abc', 'main') q);
BEGIN
  RETURN (SELECT string_agg(p.phase || ' ' || p.timeout, ', ' ORDER BY p.phase_no) FROM ops.run_phases p WHERE p.run_id = v_run);
END $$;
CREATE FUNCTION t.only_smoke(p_timeout text) RETURNS void LANGUAGE sql AS $$
  UPDATE ops.environments SET config = config || jsonb_build_object('phases', jsonb_build_array(jsonb_build_object('name', 'look', 'kind', 'odoo_smoke', 'timeout', p_timeout)))
   WHERE env_id = 'acme-staging' $$;
SELECT t.planned() = t.planned() AS same;
BEGIN;
SELECT t.only_smoke('1 min'), t.planned();
SELECT t.only_smoke('2 min'), t.planned();
SAVEPOINT s; SELECT t.only_smoke('3 min'), t.planned(); ROLLBACK TO s;
SELECT t.planned();
ROLLBACK;
SELECT t.planned() ~ 'build_image.*, .*smoke' AS as_before;
SELECT t.only_smoke('4 min'), t.planned();
SELECT status FROM ops.queue_run('acme', 'staging', '0123abc', 'main', '{"phases": [{"name": "other", "kind": "odoo_smoke"}]}');
SELECT phase, phase_no, timeout FROM ops.run_phases WHERE phase = 'other';
SELECT t.planned();
DROP FUNCTION t.planned(), t.only_smoke(text);

-- F32: nothing of a run stays when its transaction does not.
BEGIN; SELECT status FROM ops.queue_run('acme', 'dev', '0123abc', 'main'); ROLLBACK;
BEGIN; SAVEPOINT s; SELECT status FROM ops.queue_run('acme', 'dev', '0123abc', 'main'); ROLLBACK TO s; COMMIT;
SELECT count(*) FROM ops.runs WHERE env_id = 'acme-dev';
-- F33: more subtransactions than the server caches.
DO $$ BEGIN FOR i IN 1 .. 100 LOOP BEGIN PERFORM ops.queue_run('acme', 'dev', '0123abc', 'main'); EXCEPTION WHEN OTHERS THEN RAISE; END; END LOOP; END $$;
SELECT count(*) FROM ops.run_queue WHERE env_id = 'acme-dev';
-- I26
BEGIN READ ONLY; SELECT ops.queue_run('acme', 'dev', '0123abc', 'main'); ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT status FROM ops.queue_run('acme', 'dev', '0123abc', 'main'); COMMIT;
SELECT * FROM t.broken;
