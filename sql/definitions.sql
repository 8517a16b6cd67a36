\set SHOW_CONTEXT never
-- Projects, environments and their configs: what is taken and what is refused (inputs I01 to I09, I13 to I15).
SELECT t.fresh();

-- Names
-- What has no width is shown as a question mark: versions of psql count it differently.
SELECT regexp_replace(n, '[\u200b-\u200f]', '?') AS n, ops._is_name(n) FROM unnest(ARRAY['a', 'acme-staging', '0.x_y-z', repeat('a', 63), '', ' ', 'A', 'a b', '-a', '.a', '_a',
  'a/b', 'a''b', 'a"b', E'a\nb', E'a\tb', 'a;--', '$$', '../x', '%s%n', U&'\0430cme', U&'a\200Eb', U&'a\200Bb', repeat('a', 64)]) n;
SELECT ops._is_name(repeat('a', 1000000)), ops._is_name(NULL);

SELECT * FROM t.error($$INSERT INTO ops.projects VALUES ('Acme', 'x', 'a/b', '19.0')$$);
SELECT * FROM t.error($$INSERT INTO ops.projects VALUES ('a', '', 'a/b', '19.0')$$);
SELECT slug, e AS error FROM unnest(ARRAY['acme', 'a/b/c', '/b', 'a/', 'a/..', '-a/b', 'a b/c', 'a/b?x', repeat('a', 40) || '/b']) slug,
  t.error(format('INSERT INTO ops.projects VALUES (''p'', ''x'', %L, ''19.0'')', slug)) e;
SELECT version, e AS error FROM unnest(ARRAY['19', 'v19.0', '19.0.1', '']) version,
  t.error(format('INSERT INTO ops.projects VALUES (''p'', ''x'', ''a/b'', %L)', version)) e;
SELECT * FROM t.error($$INSERT INTO ops.projects VALUES ('p', 'x', 'a/b', '19.0', '[]')$$);

-- Configs. I08, I09: the path and the nearest key.
CREATE FUNCTION t.config_error(p_config text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT t.error(format('UPDATE ops.environments SET config = %L WHERE env_id = ''acme-dev''', p_config)) $$;
SELECT t.config_error('{}');
SELECT t.config_error('[]');
SELECT t.config_error('null');
SELECT t.config_error('{"gitub": {}}');
SELECT t.config_error('{"github": {"workflw": "build.yml"}}');
SELECT t.config_error('{"github": {"credential": "ghp_secret/with/slash"}}');
SELECT t.config_error('{"github": {"credential": "ghp_0123456789abcdefghijABCDEFGHIJ456789"}}');
SELECT t.config_error('{"smoke": {"timeout": "5 parsecs"}}');
SELECT t.config_error('{"smoke": {"checks": [{"path": "/"}, {"path": "/shop", "contans": "x"}]}}');
SELECT t.config_error('{"max_active_runs": "two"}');
SELECT t.config_error('{"max_active_runs": 0}');
SELECT t.config_error('{"max_active_runs": 2147483648}');
SELECT t.config_error('{"url": "ftp://odoo.example"}');
SELECT t.config_error('{"url": "https://user:password@odoo.example"}');
SELECT t.config_error('{"registry": {"image": "acme/odoo:latest"}}');
SELECT t.config_error('{"phases": [{"name": "a", "kind": "odoo_smoke", "timout": "1 h"}]}');
SELECT t.config_error('{"phases": [{"name": "a", "kind": "odoo_smok"}]}');
SELECT t.config_error('{"phases": [{"name": "a", "kind": "odoo_smoke", "needs": ["a"]}]}');
SELECT t.config_error('{"phases": [{"name": "a", "kind": "odoo_smoke", "needs": ["b"]}, {"name": "b", "kind": "odoo_smoke", "needs": ["a"]}]}');
-- I13, I14
SELECT t.config_error('{"phases": ' || repeat('[', 64) || repeat(']', 64) || '}');
SELECT t.config_error((SELECT jsonb_object_agg('k' || i, i) FROM generate_series(1, 1001) i)::text);
SELECT t.config_error(jsonb_build_object(repeat('k', 257), 1)::text);
SELECT t.config_error(jsonb_build_object('url', repeat('x', 1100000))::text);
-- I15
SELECT t.config_error('{"github": {"installation_id": 1e30}}');
SELECT t.config_error('{"github": {"installation_id": 7.0}}');
-- I17
SELECT t.config_error(jsonb_build_object('phases', (SELECT jsonb_agg(jsonb_build_object('name', 'p' || i, 'kind', 'odoo_smoke'))
  FROM generate_series(1, 501) i))::text);

-- max_active_runs comes from the config.
UPDATE ops.environments SET config = '{"max_active_runs": 7}' WHERE env_id = 'acme-dev' RETURNING max_active_runs;
UPDATE ops.environments SET config = '{}' WHERE env_id = 'acme-dev' RETURNING max_active_runs;

-- The plan of a run.
SELECT run_id AS run FROM ops.queue_run('acme', 'staging', '0123abc', 'main') \gset
SELECT phase_no, phase, kind, needs, timeout, state, (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(config) k) AS sections
  FROM ops.run_phases WHERE run_id = :'run' ORDER BY phase_no;
UPDATE ops.environments SET config = '{"url": "https://odoo.example", "smoke": {"timeout": "1 min"}}' WHERE env_id = 'acme-dev';
SELECT run_id AS run FROM ops.queue_run('acme', 'acme-dev', '0123abc', 'main', '{"phases": [
    {"name": "after", "kind": "odoo_smoke", "needs": ["before"], "timeout": "90 s", "config": {"smoke": {"consecutive_passes": 3}}},
    {"name": "before", "kind": "odoo_smoke", "needs": [], "when": {"env_type": ["prod"]}}]}') \gset
SELECT phase_no, phase, needs, timeout, state, config FROM ops.run_phases WHERE run_id = :'run' ORDER BY phase_no;
UPDATE ops.environments SET config = '{}' WHERE env_id = 'acme-dev';
SELECT t.error($$SELECT * FROM ops.queue_run('acme', 'acme-dev', '0123abc', 'main')$$);

-- I16: what looks like a secret is masked.
SELECT ops._redact('token ghp_0123456789abcdefghijABCDEFGHIJ456789 in text');
SELECT ops._redact_json('{"password": "x", "note": "Authorization: Bearer abc.def", "credential": "github"}');
SELECT ops._redact_json('{"big": 123456789012345678901234567890, "exact": 1.10}');
-- I49
SELECT ops._redact(E'a\x1b[31mb');

DROP FUNCTION t.config_error(text);
