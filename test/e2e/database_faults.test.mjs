// What operators do to the database beside a worker with requests in flight.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { World, client, eventually, logFromHere, serverProgram, timed } from './world.mjs';

const hung = 50;
const extensions = path.join(String(serverProgram('pg_config', ['--sharedir'])).trim(), 'extension');
let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());
afterEach(() => world?.services.heal());

async function within(milliseconds, what, action) {
  const taken = await timed(action);
  assert.ok(taken < milliseconds, `${what} took ${Math.round(taken)} ms`);
}
/** Statements that take their locks one by one may end as a deadlock; they are then repeated, as an operator would. */
const performed = (db, statement) => eventually(statement, () => db.query(statement).catch((error) => {
  if (error.code !== '40P01') throw error;
}));
const statusOf = async (db, runId) => (await db.query('SELECT status FROM ops.runs WHERE run_id = $1', [runId])).rows[0].status;

test('F21 DROP EXTENSION beside 50 hung requests, five times: under 5 s, no error, no worker left', async () => {
  const log = logFromHere();
  const other = await world.beside('dropper');
  for (let round = 0; round < 5; ++round) {
    if (round > 0) await other.install();
    await other.hang(hung, 'hung');
    await within(5000, 'DROP EXTENSION', () => other.db.query('DROP EXTENSION ops_runner'));
  }
  await eventually('the worker is dormant', async () =>
    (await world.db.query(`SELECT FROM pg_stat_activity WHERE datname = 'dropper' AND backend_type = 'ops_runner worker'`)).rowCount === 0);
  assert.deepEqual(log(/ERROR|FATAL(?!.*administrator command)|PANIC/), []);
  await other.db.end();
});

test('F21 DROP EXTENSION in a transaction: no worker before its end, a working one after ROLLBACK', async () => {
  const other = await world.beside('undecided');
  const log = logFromHere();
  const [runId] = await other.hang(1, 'hung');
  const operator = await client('undecided');
  await operator.query('BEGIN; DROP EXTENSION ops_runner');
  const end = Date.now() + 1000; // two poll intervals of the launcher
  while (Date.now() < end)
    assert.equal((await world.db.query(`SELECT FROM pg_stat_activity WHERE datname = 'undecided' AND backend_type = 'ops_runner worker'`)).rowCount, 0);
  world.services.heal(); // before the next life sends the request anew
  await operator.query('ROLLBACK');
  await other.working();
  assert.equal((await other.finished(runId)).status, 'success');
  assert.deepEqual(log(/ERROR/), []);
});

test('F24 plain DROP DATABASE of a worker\'s own database beside 50 hung requests: under 5 s', async () => {
  const other = await world.beside('doomed');
  await other.hang(hung, 'hung');
  await other.db.end();
  await within(5000, 'DROP DATABASE', () => world.db.query('DROP DATABASE doomed'));
});

test('F24 plain DROP DATABASE beside a session says "in use" within 10 s, and the worker goes on', async () => {
  const other = await world.beside('kept');
  const [runId] = await other.hang(1, 'hung');
  await within(10_000, 'the refusal', () =>
    assert.rejects(world.db.query('DROP DATABASE kept'), (error) => error.code === '55006' && /being accessed by other users/.test(error.message)));
  world.services.heal();
  await other.working();
  assert.equal((await other.finished(runId)).status, 'success');
  await other.db.end();
});

test('F24 DROP DATABASE (FORCE), each time with another worker at work: under 5 s, no crash', async () => {
  for (let round = 0; round < 5; ++round) {
    const other = await world.beside('forced');
    await other.hang(round === 0 ? hung : 1, 'hung');
    await within(5000, 'DROP DATABASE (FORCE)', () => world.db.query('DROP DATABASE forced WITH (FORCE)'));
    await other.db.end().catch(() => {});
  }
});

test('F23 CREATE and DROP DATABASE of an unrelated database beside 50 hung requests: under 5 s; cancel under 2 s', async () => {
  const runs = await world.hang(hung, 'unrelated');
  await within(5000, 'CREATE DATABASE', () => world.db.query('CREATE DATABASE unrelated'));
  await within(5000, 'DROP DATABASE', () => world.db.query('DROP DATABASE unrelated'));
  await within(2000, 'cancel', async () => {
    await world.db.query('SELECT ops.cancel_run($1)', [runs[0]]);
    assert.equal((await world.finished(runs[0])).status, 'cancelled');
  });
  await within(10_000, 'cancel of all', async () => {
    await world.db.query('SELECT ops.cancel_run(run_id) FROM unnest($1::text[]) AS run_id', [runs.slice(1)]);
    for (const run of runs) assert.equal((await world.finished(run)).status, 'cancelled');
  });
});

test('F22 ALTER EXTENSION UPDATE with a busy queue: under 5 s, the runs go on under the new version', async () => {
  writeFileSync(path.join(extensions, 'ops_runner--0.1.0--0.1.99.sql'), `
    ALTER TABLE ops.runs ADD COLUMN remark text;
    CREATE FUNCTION ops._remark() RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp RETURN 'new';\n`);
  const other = await world.beside('updated');
  world.services.github.buildMs = 1000;
  const runs = [];
  for (let i = 0; i < 20; ++i) runs.push(await other.queue(await other.environment(`updated-${i}`)));
  await eventually('builds are on the way', async () => (await other.worker()).running_runs >= 10);
  await within(5000, 'ALTER EXTENSION UPDATE', () => other.db.query(`ALTER EXTENSION ops_runner UPDATE TO '0.1.99'`));
  for (const run of runs) assert.equal((await other.finished(run, '60 s')).status, 'success', JSON.stringify(await other.error(run)));
  world.services.github.buildMs = 300;
  const keys = world.services.journal.accepted('actions/create-workflow-dispatch').map((entry) => entry.key);
  assert.equal(new Set(keys).size, keys.length, 'a run was dispatched twice');
  await other.db.end();
});

test('F31 VACUUM FULL, CLUSTER, REINDEX and LOCK on the tables under load: nothing is lost', async () => {
  const runs = [];
  for (let i = 0; i < 10; ++i) runs.push(await world.queue(await world.environment(`locked-${i}`)));
  for (const table of ['runs', 'run_queue', 'run_slots', 'run_events', 'run_phases', 'effects']) {
    for (const statement of [`VACUUM FULL ops.${table}`, `REINDEX TABLE ops.${table}`, `CLUSTER ops.${table} USING ${table}_pkey`]) await performed(world.db, statement);
    runs.push(await world.queue(await world.environment(`locked-${table.replaceAll('_', '-')}`)));
  }
  for (const run of runs) assert.equal((await world.finished(run, '60 s')).status, 'success', JSON.stringify(await world.error(run)));
});

test('F31 TRUNCATE of the runs under load leaves nothing half-told, and later runs succeed', async () => {
  const other = await world.beside('truncated');
  for (let i = 0; i < 5; ++i) await other.queue(await other.environment(`truncated-${i}`));
  await eventually('runs are active', async () => (await other.worker()).running_runs > 0);
  await performed(other.db, 'TRUNCATE ops.runs');
  await eventually('the worker lets go', async () => (await other.worker()).running_runs === 0);
  for (const table of ['run_slots', 'run_queue', 'run_phases', 'run_events', 'effects', 'artifacts'])
    assert.equal((await other.db.query(`SELECT FROM ops.${table}`)).rowCount, 0, table);
  assert.equal((await other.perform('truncated-0')).status, 'success');
  await other.db.end();
});

test('F31 a lock held longer than the worker waits for one fails no run', async () => {
  const runId = await world.queue(await world.environment('long-lock'));
  await eventually('the run is at work', async () => (await statusOf(world.db, runId)) === 'running');
  const log = logFromHere();
  const operator = await client();
  await operator.query('BEGIN; LOCK TABLE ops.run_events');
  await eventually('the worker has given up waiting three times', () => log(/the store is busy: canceling statement due to lock timeout/).length >= 3, 30_000);
  await operator.query('COMMIT');
  assert.equal((await world.finished(runId)).status, 'success', JSON.stringify(await world.error(runId)));
});

test('F09 fast shutdown beside 50 hung requests: under 5 s; the runs go on afterwards, none is failed', async () => {
  const runs = await world.hang(hung, 'shutdown');
  await world.db.query('CHECKPOINT'); // what the server writes when it stops is not the worker's doing
  const stopping = await world.restart();
  assert.ok(stopping < 5000, `stopping took ${Math.round(stopping)} ms`);
  world.services.heal();
  for (const run of runs) {
    const row = await world.finished(run, '60 s');
    assert.equal(row.status, 'success', JSON.stringify(await world.error(run)));
    assert.equal(row.attempt, 2);
  }
});

test('T26 no server process was ended by a fault', () => {
  assert.ok(!/terminating any other active server processes/.test(readFileSync(process.env.OPS_SERVER_LOG, 'utf8')));
});
