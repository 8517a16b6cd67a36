// The worker beside the life of a server: databases come and go, requests hang, many runs at once.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { World, client, eventually } from './world.mjs';

let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());
afterEach(() => world?.services.heal());

async function timed(action) {
  const begin = Date.now();
  await action();
  return Date.now() - begin;
}
const workerState = async (db) => (await db.query('SELECT state FROM ops.worker_status')).rows[0]?.state ?? '';
async function connected(database, action) {
  const db = await client(database);
  try {
    return await action(db);
  } finally {
    await db.end();
  }
}
async function hangingRun(name) {
  world.services.github.service.fault({ operation: 'actions/get-workflow', hang: true, times: 1000 });
  const runId = await world.queue(await world.environment(name));
  await eventually('a request hangs', async () => (await world.db.query('SELECT requests_in_flight FROM ops.worker_status')).rows[0].requests_in_flight > 0);
  return runId;
}

test('a second and a third database get their worker without a restart; DROP DATABASE just works', async () => {
  for (const name of ['second', 'third']) {
    await world.db.query(`CREATE DATABASE ${name}`);
    await connected(name, async (db) => {
      await db.query('CREATE EXTENSION ops_runner');
      await eventually(`worker of ${name}`, async () => (await workerState(db)) === 'working');
    });
  }
  assert.ok((await timed(() => world.db.query('DROP DATABASE third'))) < 5000);
  await connected('second', async (db) => assert.equal(await workerState(db), 'working'));
});

test('a copy by CREATE DATABASE .. TEMPLATE comes up disarmed until ops.arm()', async () => {
  await world.db.query('CREATE DATABASE copy TEMPLATE second');
  await connected('copy', async (db) => {
    await eventually('the copy is disarmed', async () => (await workerState(db)).startsWith('disarmed'));
    await db.query('SELECT ops.arm()');
    await eventually('the copy works', async () => (await workerState(db)) === 'working');
  });
  await connected('second', async (db) => eventually('the original works again', async () => (await workerState(db)) === 'working'));
});

test('rows that arrive by COPY or direct INSERT are claimed', async () => {
  const environment = await world.environment('direct', { phases: [{ name: 'smoke', kind: 'odoo_smoke' }] });
  const { rows } = await world.db.query(`INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) VALUES ('acme', $1, 'abcdef1', 'main') RETURNING run_id`, [environment]);
  assert.equal((await world.finished(rows[0].run_id)).status, 'success');
});

test('one active run per environment: the second waits for the first', async () => {
  const environment = await world.environment('one-at-a-time', { phases: [{ name: 'smoke', kind: 'odoo_smoke' }] });
  const ids = [];
  for (let i = 0; i < 5; ++i) ids.push(await world.queue(environment));
  for (const id of ids) assert.equal((await world.finished(id)).status, 'success');
  const { rows } = await world.db.query('SELECT started_at, finished_at FROM ops.runs WHERE env_id = $1 ORDER BY started_at', [environment]);
  for (let i = 1; i < rows.length; ++i) assert.ok(rows[i].started_at >= rows[i - 1].finished_at, 'two runs of one environment were active at once');
});

test('F23 CREATE DATABASE beside a hung request; cancel of the hung run is quick', async () => {
  const runId = await hangingRun('hung-cancel');
  assert.ok((await timed(() => world.db.query('CREATE DATABASE beside'))) < 5000);
  const taken = await timed(async () => {
    await world.db.query('SELECT ops.cancel_run($1)', [runId]);
    assert.equal((await world.finished(runId)).status, 'cancelled');
  });
  assert.ok(taken < 2000, `cancel took ${taken} ms`);
});

test('F10 a terminated worker comes back by itself and takes its runs over', async () => {
  world.services.github.buildMs = 1500;
  const runId = await world.queue(await world.environment('terminated'));
  await eventually('the build is dispatched', async () => (await world.events(runId)).some((e) => e.message.includes('dispatched')));
  await world.db.query('SELECT pg_terminate_backend(pid) FROM ops.worker_status');
  const run = await world.finished(runId);
  world.services.github.buildMs = 300;
  assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
  const { run_token: token } = (await world.phases(runId)).build_image.remembered;
  assert.equal(world.services.journal.accepted('actions/create-workflow-dispatch').filter((e) => e.key === token).length, 1);
  assert.ok((await world.events(runId)).some((e) => e.message.startsWith('taken over')));
});

test('200 runs, 100 at once, over services that take 2 s for an answer: one worker, no long transaction', async () => {
  const services = [world.services.github.service, world.services.registry.service, world.services.digitalocean.service, world.services.odoo.service];
  for (const service of services) service.delayMs = Number(process.env.OPS_SLOW_MS ?? 2000);
  const changes = { github: { poll_interval: '1 s' }, digitalocean: { poll_interval: '1 s' }, smoke: { timeout: '60 s', interval: '1 s', consecutive_passes: 1, checks: [] }, storage: undefined };
  const ids = [];
  for (let i = 0; i < 200; ++i) ids.push(await world.queue(await world.environment(`many-${i}`, changes)));
  let longest = 0;
  let most = 0;
  let over = false;
  const workers = new Set();
  const watching = (async () => {
    const db = await client();
    while (!over) {
      const { rows } = await db.query(`SELECT pid, coalesce(extract(epoch FROM clock_timestamp() - xact_start) * 1000, 0)::float8 AS ms FROM pg_stat_activity WHERE backend_type = 'ops_runner worker' AND datname = 'postgres'`);
      for (const row of rows) { workers.add(row.pid); longest = Math.max(longest, row.ms); }
      most = Math.max(most, (await db.query('SELECT running_runs FROM ops.worker_status')).rows[0].running_runs);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await db.end();
  })();
  try {
    for (const id of ids) assert.equal((await world.finished(id, '4 min')).status, 'success', JSON.stringify(await world.error(id)));
  } finally {
    over = true; // else the watcher would keep this process for ever
    await watching;
  }
  assert.equal(workers.size, 1);
  assert.equal(most, 100);
  assert.ok(longest < 100, `a transaction of the worker was ${longest} ms old`);
  const keys = world.services.journal.accepted('actions/create-workflow-dispatch').map((e) => e.key);
  assert.equal(new Set(keys).size, keys.length, 'a run was dispatched twice');
  const puts = world.services.journal.accepted('apps_update').map((e) => e.key);
  assert.equal(new Set(puts).size, puts.length, 'an app was put twice');
  assert.deepEqual(world.services.journal.invalid(), []);
});

test('F21 DROP EXTENSION beside a hung request ends at once; created again, it works again', async () => {
  await hangingRun('hung-drop');
  const taken = await timed(() => world.db.query('DROP EXTENSION ops_runner CASCADE'));
  assert.ok(taken < 5000, `DROP EXTENSION took ${taken} ms`);
  await world.db.query('CREATE EXTENSION ops_runner');
  await eventually('the worker works again', async () => (await workerState(world.db)) === 'working');
});

test('T26 the server was never re-initialised', async () => {
  const { readFileSync } = await import('node:fs');
  assert.ok(!/terminating any other active server processes/.test(readFileSync(process.env.OPS_SERVER_LOG, 'utf8')));
});
