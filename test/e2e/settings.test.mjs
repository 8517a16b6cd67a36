// Settings of roles, databases and the server change nothing of what the product does.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { World, client, eventually, logFromHere } from './world.mjs';

let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());
afterEach(() => world?.services.heal());

/** A new life of the worker, which reads its settings again. */
async function newLife() {
  const { pid } = await world.worker();
  await world.db.query('SELECT pg_terminate_backend($1)', [pid]);
  await eventually('a new life works', async () => {
    const worker = await world.worker();
    return worker?.state === 'working' && worker.pid !== pid;
  });
}

const timeouts = { statement_timeout: '1ms', lock_timeout: '1ms', idle_in_transaction_session_timeout: '1ms', idle_session_timeout: '1ms' };
const changed = {
  default_transaction_read_only: 'on', default_transaction_isolation: 'serializable', default_transaction_deferrable: 'on', search_path: 'planted, public',
  session_replication_role: 'replica', client_encoding: 'LATIN1', DateStyle: 'SQL, DMY', IntervalStyle: 'sql_standard', TimeZone: 'Asia/Kathmandu',
  row_security: 'off', standard_conforming_strings: 'off', backslash_quote: 'off', escape_string_warning: 'off', quote_all_identifiers: 'on',
  transform_null_equals: 'on', array_nulls: 'off', bytea_output: 'escape', extra_float_digits: '-15', xmloption: 'document',
  'plpgsql.extra_errors': 'all', 'plpgsql.variable_conflict': 'use_column', check_function_bodies: 'off', jit_above_cost: '0',
  enable_indexscan: 'off', enable_hashagg: 'off', enable_nestloop: 'off', enable_sort: 'off', work_mem: '64kB', max_parallel_workers_per_gather: '4',
  parallel_setup_cost: '0', parallel_tuple_cost: '0', force_parallel_mode: 'on', constraint_exclusion: 'off', synchronous_commit: 'off',
};
// From 16 on under another name.
const asNamed = async (settings) => {
  const { rows } = await world.db.query('SELECT name FROM pg_settings WHERE name ILIKE ANY ($1)', [Object.keys(settings)]);
  const known = new Set(rows.map((row) => row.name.toLowerCase()));
  return Object.entries(settings).filter(([name]) => name.includes('.') || known.has(name.toLowerCase()));
};

test('F29 timeouts set for the worker\'s role, the database and the server cut no run off', async () => {
  for (const name of Object.keys(timeouts)) {
    await world.db.query(`SET ${name} = 0`); // this session is not what is tested
    await world.db.query(`ALTER ROLE ops_runner_worker SET ${name} = '${timeouts[name]}'`);
    await world.db.query(`ALTER DATABASE postgres SET ${name} = '${timeouts[name]}'`);
  }
  try {
    await newLife();
    const log = logFromHere();
    const run = await world.perform(await world.environment('timeouts'));
    assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
    await world.configure(timeouts); // a worker at work reads these again
    const again = await world.perform('timeouts', 'a'.repeat(40));
    assert.equal(again.status, 'success', JSON.stringify(await world.error(again.run_id)));
    assert.deepEqual(log(/ops_runner worker.*timeout/), []);
  } finally {
    await world.db.query('ALTER ROLE ops_runner_worker RESET ALL');
    await world.db.query('ALTER DATABASE postgres RESET ALL');
    for (const name of Object.keys(timeouts)) await world.db.query(`ALTER SYSTEM RESET ${name}`);
    await world.db.query('SELECT pg_reload_conf()');
  }
});

test('F28 F30 settings of the database and of the worker\'s role do not change what the worker does', async () => {
  const settings = await asNamed(changed);
  assert.ok(settings.length >= 30);
  const quoted = (value) => (value.includes(',') ? value : `'${value}'`);
  const before = await world.perform(await world.environment('unchanged'), 'b'.repeat(40));
  for (const [name, value] of settings) {
    await world.db.query(`ALTER DATABASE postgres SET ${name} = ${quoted(value)}`);
    await world.db.query(`ALTER ROLE ops_runner_worker SET ${name} = ${quoted(value)}`);
  }
  await newLife();
  const runId = await world.queue(await world.environment('changed'), 'c'.repeat(40));
  const run = await world.finished(runId);
  const session = await client();
  await session.query('SET default_transaction_read_only = off; SET default_transaction_isolation = "read committed"');
  await session.query('ALTER DATABASE postgres RESET ALL');
  await session.query('ALTER ROLE ops_runner_worker RESET ALL');
  assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
  const told = async (id) => [...new Set((await world.events(id)).filter((e) => e.level !== 'debug').map((e) => e.message.replace(/[0-9a-f-]*\d[0-9a-f-]*|(un)?changed/g, '#')))].sort();
  assert.deepEqual(await told(runId), await told(before.run_id));
  await newLife();
});

/** What one operator and one worker outside the server get to see, without ids and times. */
async function behaviour(db) {
  const ask = async (sql, parameters) => {
    try {
      return (await db.query({ text: sql, values: parameters, rowMode: 'array' })).rows;
    } catch (error) {
      return [error.code, error.message, error.detail?.replace(/^Failing row.*/, ''), error.hint];
    }
  };
  await db.query('DELETE FROM ops.runs');
  const seen = [];
  const queue = (ref, more = '') => ask(`SELECT status FROM ops.queue_run('acme', 'blue', '0123ABC', $1 ${more})`, [ref]);
  for (const ref of ['main', 'a', 'feature/x-1', 'v1.0', 'a..b', 'a b', 'a\\b', 'a@{b', 'a.lock', 'a/.b', '-a', 'a\tb', 'a.']) seen.push([ref, await queue(ref)]);
  seen.push(await queue('main', `, '{"a": [null, 1.10]}', 'key', 5, '2001-02-03 04:05:06+00'`), await queue('other', `, '{"a": [null, 1.10]}', 'key', 5`));
  seen.push(await queue('main', `, '{"phases": 1}'`), await queue('main', `, '{"token": "ghp_0123456789abcdefghijABCDEFGHIJ456789"}'`));
  seen.push(await queue('main', `, '{}', NULL, 5000`), await queue('main', `, '{}', E'a\\nb'`));
  seen.push(await ask(`UPDATE ops.environments SET config = '{"gitub": 1}'`), await ask(`INSERT INTO ops.projects VALUES ('p', 'x', 'a/..', '19.0')`));
  seen.push(await ask(`SELECT git_ref, attempt, metadata FROM ops.claim_next_run('w')`));
  const run = `(SELECT run_id FROM ops.runs WHERE claimed_by = 'w')`;
  seen.push(await ask(`SELECT lease_until - claimed_at BETWEEN interval '29 s' AND interval '31 s' FROM ops.runs WHERE run_id = ${run}`));
  seen.push(await ask(`SELECT ops.append_event(${run}, 'info', 'Authorization: Bearer abc.def', $1)`, [{ password: 'x', path: 'C:\\new' }]));
  seen.push(await ask(`SELECT (ops.cancel_run(${run}, 'why')).status`), await ask(`SELECT ops.finish_run(${run}, 'cancelled', '{"b": 2}')`));
  seen.push(await ask(`SELECT (ops.retry_run(${run})).git_ref`), await ask(`UPDATE ops.runs SET status = 'queued', finished_at = NULL WHERE claimed_by = 'w'`));
  seen.push(await ask(`SELECT count(*)::int FROM ops.reset_stuck_runs('1 day')`), await ask('SELECT state, count(*)::int FROM ops.run_queue GROUP BY 1 ORDER BY 1'));
  seen.push(await ask(`SELECT r.git_ref, r.status, r.priority, r.requested_by, r.metadata, e.seq, e.level, e.message, e.payload FROM ops.runs r JOIN ops.run_events e USING (run_id) ORDER BY r.queued_at, e.seq`));
  seen.push(await ask(`SELECT count(*)::int FROM ops.timeline(${run})`), await ask(`SELECT count(*)::int FROM ops.run_slots`));
  seen.push(await ask(`SELECT count(*)::int, min(encode(request_hash, 'hex')) FROM ops.runs WHERE idempotency_key = 'key'`));
  return JSON.parse(JSON.stringify(seen).replaceAll(/run-[0-9a-f-]{36}/g, 'run-x'));
}

test('F30 settings of an operator\'s session change nothing of what he gets', async () => {
  await world.db.query('CREATE DATABASE operators');
  await world.db.query('ALTER DATABASE operators SET ops_runner.max_concurrent_runs = 0');
  const setUp = await client('operators');
  await setUp.query('CREATE EXTENSION ops_runner');
  await setUp.query(`INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ('acme', 'Acme', 'acme/odoo', '19.0')`);
  await setUp.query(`INSERT INTO ops.environments (env_id, project_id, env_type, config)
    VALUES ('blue', 'acme', 'dev', '{"url": "https://odoo.example", "phases": [{"name": "smoke", "kind": "odoo_smoke"}]}')`);
  const expected = await behaviour(setUp);
  assert.deepEqual(await behaviour(setUp), expected, 'the comparison itself is steady');
  assert.ok(expected.some((seen) => JSON.stringify(seen).includes('claimed by worker w')));
  for (const [name, value] of await asNamed(changed)) {
    if (['default_transaction_read_only', 'search_path'].includes(name)) continue; // the first forbids to write; the second is planted below
    const session = await client('operators'); // its functions are not compiled yet
    await session.query(`SET ${name} = ${value.includes(',') ? value : `'${value}'`}`);
    assert.deepEqual(await behaviour(session), expected, `${name} = ${value}`);
    await session.end();
  }
});

test('F30 T02 functions and operators planted in front of the search_path are not used', async () => {
  const db = await client('operators');
  await db.query(`CREATE SCHEMA planted;
    CREATE FUNCTION planted.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''planted''';
    CREATE FUNCTION planted.octet_length(text) RETURNS int LANGUAGE sql AS 'SELECT 0';
    CREATE FUNCTION planted.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE OPERATOR planted.= (LEFTARG = text, RIGHTARG = text, FUNCTION = planted.same)`);
  const expected = await behaviour(await client('operators'));
  await db.query('SET search_path = planted, pg_catalog');
  const { rows } = await db.query(`SELECT lower('A'), 'a'::text = 'b'::text AS same`);
  assert.deepEqual(rows, [{ lower: 'planted', same: true }]);
  const { rows: [run] } = await db.query(`SELECT status FROM ops.queue_run('acme', 'blue', '0123ABC', 'planted')`);
  assert.equal(run.status, 'queued');
  assert.equal((await db.query(`SELECT git_sha FROM ops.runs WHERE git_ref OPERATOR(pg_catalog.=) 'planted'`)).rows[0].git_sha, '0123abc');
  await assert.rejects(db.query(`SELECT ops.queue_run('acme', 'green', '0123ABC', 'main')`), /no environment "green"/);
  await db.query('SET search_path = pg_catalog');
  assert.deepEqual(await behaviour(db), expected);
});
