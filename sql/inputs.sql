\set SHOW_CONTEXT never
-- Inputs that no other script has: values that look like something else, other encodings, odd role names, odd ways to call.
SELECT t.fresh();
CREATE FUNCTION t.config_error(p_config text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT left(e, 160) FROM t.error(format('UPDATE ops.environments SET config = %L WHERE env_id = ''acme-dev''', p_config)) WITH ORDINALITY AS x(e, line)
   WHERE line = 1 $$;

-- I05: a leading @ is a character like any other; it never names a file.
SELECT status FROM ops.queue_run('acme', 'prod', '0123abc', 'main', '{"note": "@/etc/passwd"}', '@/etc/passwd');
SELECT metadata, idempotency_key FROM ops.runs;
SELECT t.config_error('{"github": {"inputs": {"file": "@/etc/passwd"}}}');
SELECT t.config_error('{"github": {"credential": "@/etc/passwd"}}');
SELECT t.config_error('{"github": {"credential": "../../etc/passwd"}}');

-- I10: of a key that is written twice the last one counts, as jsonb has it.
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main', '{"a": 1, "a": 2}') \gset
SELECT metadata FROM ops.runs WHERE run_id = :'run_id';

-- I12
SELECT b AS bytes, t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', convert_from(%L::bytea, ''UTF8''))', b))
  FROM unnest(ARRAY['\xc080', '\xeda080', '\xf8888080', '\xff', '\xe282']) b;
SELECT t.error('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', ''{"a": "\udc00"}'')');
SELECT t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', %L)', U&'\FEFF{}'));

-- I14: a long list
SELECT t.error(format('SELECT ops.queue_run(''acme'', ''prod'', ''0123abc'', ''main'', %L)',
  jsonb_build_object('a', (SELECT jsonb_agg(0) FROM generate_series(1, 400000)))));

-- I20: forms of URLs
SELECT left(u, 40) AS url, t.config_error(jsonb_build_object('url', u)::text) AS error FROM unnest(ARRAY['http://odoo.example', 'https://odoo.example', 'file:///etc/passwd',
  'gopher://odoo.example', 'https://user:password@odoo.example', 'https://odoo.example.', 'https://odoo.example:0', 'https://odoo.example:22',
  'https://odoo.example:65536', 'https://[fe80::1%25eth0]/', 'https://[::ffff:127.0.0.1]', 'https://0x7f.1', 'https://127.1', 'https://0177.0.0.1',
  'https://2130706433', 'https://0.0.0.0', 'https://xn--bcher-kva.example', U&'https://b\00FCcher.example', 'https://odoo.example/#fragment', 'https://', '//odoo.example',
  'https://odoo.example/' || repeat('x', 100000), E'https://odoo.example/\r\nX: y', 'https://odoo.example\@other.example']) u;

-- I21: references of images
SELECT left(i, 40) AS image, t.config_error(jsonb_build_object('registry', jsonb_build_object('image', i))::text) AS error FROM unnest(ARRAY['acme/odoo', 'acme/odoo:latest',
  'acme/odoo@sha256:' || repeat('a', 64), 'acme/odoo@sha256:abc', 'Acme/Odoo', 'acme/odoo:v1@sha256:' || repeat('a', 64), '', 'acme//odoo', '/odoo', 'acme/od oo', '../odoo']) i;

-- I23: there is no place for a connection string.
SELECT t.config_error('{"database": "host=/tmp options=-cfoo service=x passfile=/etc/passwd replication=1"}');
SELECT t.config_error('{"connection": "postgres://user:password@host/db"}');

-- I25: role names that need quotes, that are long; a role that is gone while it owns runs.
CREATE ROLE "ops_regress ""quoted"", very long name of a role '; DROP TABLE --";
GRANT ops_operator TO "ops_regress ""quoted"", very long name of a role '; DROP TABLE --";
SELECT t.fresh();
SET ROLE "ops_regress ""quoted"", very long name of a role '; DROP TABLE --";
SELECT run_id FROM ops.queue_run('acme', 'prod', '0123abc', 'main') \gset
SELECT status FROM ops.cancel_run(:'run_id', 'why');
RESET ROLE;
DROP ROLE "ops_regress ""quoted"", very long name of a role '; DROP TABLE --";
SELECT requested_by, cancel_requested_by FROM ops.runs;
SELECT * FROM t.events;
SELECT status, requested_by = current_user AS mine FROM ops.retry_run(:'run_id');

-- I26: a cursor, a block with an exception handler, a parallel query.
SELECT t.fresh();
BEGIN;
DECLARE queueing CURSOR FOR SELECT q.status FROM generate_series(1, 3) i, ops.queue_run('acme', 'dev', '0123abc', 'main') q;
FETCH 1 FROM queueing;
CLOSE queueing;
COMMIT;
SELECT count(*) <= 3 AS queued FROM ops.runs;
SELECT t.fresh();
DO $$ BEGIN
  PERFORM ops.queue_run('acme', 'dev', '0123abc', 'main');
  PERFORM ops.queue_run('acme', 'dev', 'nonsense', 'main');
EXCEPTION WHEN invalid_parameter_value THEN NULL; END $$;
SELECT count(*) FROM ops.runs;
SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
SELECT count(*) FROM (SELECT ops.queue_run('acme', 'dev', '0123abc', 'main') FROM ops.projects p WHERE p.project_id = 'acme') q;
RESET min_parallel_table_scan_size; RESET parallel_setup_cost; RESET parallel_tuple_cost;
BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT status FROM ops.queue_run('acme', 'dev', '0123abc', 'main'); SELECT status FROM ops.cancel_run((SELECT min(run_id) FROM ops.runs)); COMMIT;
SELECT * FROM t.broken;

-- I27: who has no right is not told whether there is such a run.
CREATE ROLE ops_regress_stranger;
GRANT USAGE ON SCHEMA ops TO ops_regress_stranger;
SET ROLE ops_regress_stranger;
SELECT t.error('SELECT ops.cancel_run(''' || r || ''')') FROM unnest(ARRAY['run-00000000-0000-7000-8000-000000000000', 'x']) r;
SELECT t.error('SELECT ops.queue_run(''' || p || ''', ''prod'', ''0123abc'', ''main'')') FROM unnest(ARRAY['acme', 'nothing']) p;
RESET ROLE;
REVOKE USAGE ON SCHEMA ops FROM ops_regress_stranger;
DROP ROLE ops_regress_stranger;
DROP FUNCTION t.config_error(text);

-- I24: JSON, HTTP and what services write are UTF-8; no other encoding holds all of it.
\set own_database :DBNAME
CREATE DATABASE ops_latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C';
\c ops_latin
CREATE EXTENSION ops_runner;
\c :"own_database"
DROP DATABASE ops_latin;
