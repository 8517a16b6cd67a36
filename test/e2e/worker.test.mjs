// The worker where something is missing, late, locked, old or jumps.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { World, client, eventually, logFromHere, serverProgram, timed } from './world.mjs';

let world;
before(async () => {
  world = await World.start();
  await world.restart({ settings: { max_prepared_transactions: 10, max_worker_processes: 5 } });
});
after(() => world?.stop());
afterEach(() => world?.services.heal());

const smoke = { phases: [{ name: 'smoke', kind: 'odoo_smoke' }] };
const row = async (runId, db = world.db) => (await db.query('SELECT * FROM ops.runs WHERE run_id = $1', [runId])).rows[0];
const stateIs = (other, pattern, ms) => eventually(`state ${pattern}`, async () => pattern.test((await other.worker())?.state ?? ''), ms);
const terminate = (other) => other.db.query('SELECT pg_terminate_backend(pid) FROM ops.worker_status WHERE pid IS NOT NULL');
const workers = async (database) => (await world.db.query(`SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'ops_runner worker'`, [database])).rowCount;

// F17, F18: it cannot start or cannot work -----------------------------------------------------------------------------

test('F17 role missing: the status and one log line say so; renamed back, the worker works', async () => {
  const log = logFromHere();
  await world.db.query('ALTER ROLE ops_runner_worker RENAME TO ops_runner_gone');
  await terminate(world);
  await stateIs(world, /role ops_runner_worker is missing/);
  const runId = await world.queue(await world.environment('no-role', smoke));
  await eventually('the log says it', () => log(/role "ops_runner_worker" is missing/).length > 0);
  await world.db.query('ALTER ROLE ops_runner_gone RENAME TO ops_runner_worker');
  assert.equal((await world.finished(runId)).status, 'success');
  assert.equal(log(/role "ops_runner_worker" is missing/).length, 1);
});

test('F17 extension missing or database gone: no worker, no log line', async () => {
  const log = logFromHere();
  const other = await world.beside('bare');
  await other.db.query('DROP EXTENSION ops_runner');
  await eventually('no worker', async () => (await workers('bare')) === 0);
  await other.db.end();
  await world.db.query('DROP DATABASE bare');
  await world.db.query('CREATE DATABASE bare');
  await world.db.query('DROP DATABASE bare');
  assert.deepEqual(log(/ERROR|FATAL(?!.*administrator command)/), []);
});

test('F17 library and extension of different versions: idle with a clear state, one log line; updated back, the run goes on', async () => {
  const extensions = path.join(String(serverProgram('pg_config', ['--sharedir'])).trim(), 'extension');
  for (const step of ['0.1.0--0.9.0', '0.9.0--0.1.0']) writeFileSync(path.join(extensions, `ops_runner--${step}.sql`), '');
  const other = await world.beside('versions');
  const log = logFromHere();
  await other.db.query(`ALTER EXTENSION ops_runner UPDATE TO '0.9.0'`);
  await stateIs(other, /the library is 0\.1\.0, the extension is not/);
  const runId = await other.queue(await other.environment('newer', smoke));
  await terminate(other);
  await stateIs(other, /the library is/);
  assert.equal((await row(runId, other.db)).status, 'queued');
  assert.ok(log(/another version of the extension/).length <= 2); // one per life
  await other.db.query(`ALTER EXTENSION ops_runner UPDATE TO '0.1.0'`);
  assert.equal((await other.finished(runId)).status, 'success');
  await other.db.end();
  await world.db.query('DROP DATABASE versions');
});

test('F17 a database on which the worker may not act: ever fewer log lines, the queue is kept', async () => {
  const log = logFromHere();
  await world.db.query('REVOKE DELETE ON ops.run_queue FROM ops_runner_worker');
  const runId = await world.queue(await world.environment('refused', smoke));
  await eventually('it is told', async () => /permission denied/.test((await world.worker()).last_error));
  const told = () => log(/LOG: .*permission denied/).map((line) => Date.parse(line.slice(0, 23) + 'Z'));
  await eventually('half a second lies between two lines', () => told().some((at, i, all) => i > 0 && at - all[i - 1] >= 500));
  assert.ok(told().length <= 12, `${told().length} log lines until the pauses are that long`);
  await world.db.query('GRANT DELETE ON ops.run_queue TO ops_runner_worker');
  assert.equal((await world.finished(runId)).status, 'success');
});

test('F18 no free process: the queue is kept and the status says why; resumed when one is free', async () => {
  // Five processes: two launchers and three workers, one of them for this test's own database.
  const takers = [await world.beside('taker_1'), await world.beside('taker_2')];
  await world.db.query('CREATE DATABASE starved');
  const starved = Object.assign(new World(), { services: world.services, db: await client('starved') });
  await starved.db.query('CREATE EXTENSION ops_runner');
  await starved.db.query(`INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ('acme', 'Acme', 'acme/odoo', '19.0')`);
  await stateIs(starved, /no free background process: raise max_worker_processes/);
  const runId = await starved.queue(await starved.environment('starved', smoke));
  assert.equal((await row(runId, starved.db)).status, 'queued');
  await takers[0].db.end();
  await world.db.query('DROP DATABASE taker_1');
  assert.equal((await starved.finished(runId)).status, 'success');

  // Connections of people take none away from it.
  await world.db.query('ALTER DATABASE starved CONNECTION LIMIT 0');
  await terminate(starved);
  assert.equal((await starved.perform('starved')).status, 'success');
  await starved.db.end();
  await takers[1].db.end();
  for (const name of ['starved', 'taker_2']) await world.db.query(`DROP DATABASE ${name}`);
});

// F26 ----------------------------------------------------------------------------------------------------------------

test('F26 nothing of the worker is open while 20 requests hang', async () => {
  const runs = await world.hang(20, 'idle');
  const before = new Map();
  let looks = 0;
  await eventually('60 looks', async () => {
    const { rows } = await world.db.query(`SELECT pid, xact_start, backend_xmin, backend_xid, (SELECT count(*)::int FROM pg_locks l WHERE l.pid = a.pid AND l.locktype <> 'advisory') AS locks
      FROM pg_stat_activity a WHERE backend_type = 'ops_runner worker' AND datname = 'postgres'`);
    for (const [what, value] of Object.entries(rows[0])) {
      if (what === 'pid') continue;
      const seen = value === null || value === 0 ? 0 : (before.get(what) ?? 0) + 1;
      before.set(what, seen);
      // A safety check each 500 ms may be met once; three times in a row it is open.
      assert.ok(seen < 3, `${what} is held: ${value}`);
    }
    return ++looks === 60;
  });
  await world.db.query('SELECT ops.cancel_run(run_id) FROM unnest($1::text[]) AS run_id', [runs]);
  for (const run of runs) assert.equal((await world.finished(run)).status, 'cancelled');
});

// An idle worker gets ready while a run is being queued ---------------------------------------------------------------

test('an idle worker rehearses a claim when a run is about to be queued; rolled back, nothing has happened', async () => {
  const environment = await world.environment('rehearsed', smoke);
  const before = await world.worker();
  const lastText = async () => (await world.db.query('SELECT query FROM pg_stat_activity WHERE pid = $1', [before.pid])).rows[0].query;
  const session = await client();
  await eventually('the worker gets ready', async () => {
    await session.query('BEGIN');
    await session.query(`SELECT run_id FROM ops.queue_run('acme', $1, '0123456789abcdef', 'main')`, [environment]);
    const ready = (await lastText()) === 'getting ready for a run';
    await session.query('ROLLBACK');
    return ready;
  });
  await session.end();
  const { rows } = await world.db.query(`
    SELECT (SELECT count(*)::int FROM ops.runs WHERE env_id = $1) AS runs, (SELECT count(*)::int FROM ops.run_slots) AS slots,
           (SELECT count(*)::int FROM ops.run_queue) AS queued, (SELECT count(*)::int FROM ops.run_events WHERE run_id = '') AS events`, [environment]);
  assert.deepEqual(rows[0], { runs: 0, slots: 0, queued: 0, events: 0 });
  const { pid, last_error: error } = await world.worker();
  assert.deepEqual([pid, error], [before.pid, before.last_error]);
  assert.equal((await world.perform(environment)).status, 'success');
});

// A vault in the database --------------------------------------------------------------------------------------------

test('secrets come from the vault where the database has one, also while a claim is not committed yet', async (t) => {
  await world.db.query(`
    CREATE SCHEMA vault;
    CREATE TABLE vault.decrypted_secrets (name text, decrypted_secret text);
    GRANT USAGE ON SCHEMA vault TO ops_runner_worker;
    GRANT SELECT ON vault.decrypted_secrets TO ops_runner_worker`);
  t.after(() => world.db.query('DROP SCHEMA vault CASCADE'));
  await world.db.query('INSERT INTO vault.decrypted_secrets VALUES ($1, $2)', ['only-in-the-vault', readFileSync(path.join(process.env.OPS_SECRETS, 'github'), 'utf8').trim()]);
  const log = logFromHere();
  // The vault is known by the second one at the latest. The first request of each carries the secret.
  const deploy = { registry: undefined, phases: [{ name: 'deploy', kind: 'github_workflow' }], github: { role: 'deploy', credential: 'only-in-the-vault' } };
  for (const name of ['vault-first', 'vault-second'])
    assert.equal((await world.perform(await world.environment(name, deploy))).status, 'success');
  assert.deepEqual(log(/ops_runner worker:|WARNING|ERROR/), []);
});

// F32, F35: prepared transactions ring no bell -----------------------------------------------------------------------

test('F32 F35 a run queued by a prepared transaction starts at the next safety check; a rolled back one never', async () => {
  const environment = await world.environment('prepared', smoke);
  for (const [name, sha] of [['kept', 'a'.repeat(40)], ['dropped', 'b'.repeat(40)]]) {
    await world.db.query('BEGIN');
    await world.queue(environment, sha);
    await world.db.query(`PREPARE TRANSACTION '${name}'`);
  }
  assert.equal((await world.db.query('SELECT FROM ops.runs WHERE env_id = $1', [environment])).rowCount, 0);
  await world.db.query(`ROLLBACK PREPARED 'dropped'`);
  await world.db.query(`COMMIT PREPARED 'kept'`);
  const { rows: [run] } = await world.db.query('SELECT run_id, git_sha FROM ops.runs WHERE env_id = $1', [environment]);
  assert.equal(run.git_sha, 'a'.repeat(40));
  const taken = await timed(() => eventually('it is claimed', async () => (await row(run.run_id)).status !== 'queued'));
  assert.ok(taken < 3000, `${Math.round(taken)} ms with a poll interval of 500 ms`);
  assert.equal((await world.finished(run.run_id)).status, 'success');
  assert.equal((await world.db.query('SELECT FROM ops.runs WHERE env_id = $1', [environment])).rowCount, 1);
});

test('F35 lost wake-ups of a cancel, of a slot that is given back and of a restart are made up for', async () => {
  const [hung] = await world.hang(1, 'lost-cancel');
  await world.db.query('BEGIN');
  await world.db.query('SELECT ops.cancel_run($1)', [hung]);
  await world.db.query(`PREPARE TRANSACTION 'cancel'`);
  await world.db.query(`COMMIT PREPARED 'cancel'`);
  assert.equal((await world.finished(hung, '5 s')).status, 'cancelled');
  world.services.heal();

  const environment = await world.environment('lost-slot', smoke);
  await world.db.query('BEGIN');
  const outside = await world.queue(environment);
  assert.equal((await world.db.query(`SELECT run_id FROM ops.claim_next_run('outside')`)).rows[0].run_id, outside);
  await world.db.query('COMMIT');
  const next = await world.queue(environment);
  await eventually('the next run is blocked', async () => (await world.db.query(`SELECT FROM ops.run_queue WHERE run_id = $1 AND state = 'blocked'`, [next])).rowCount === 1);
  await world.db.query('BEGIN');
  await world.db.query(`SELECT ops.finish_run($1, 'success')`, [outside]);
  await world.db.query(`PREPARE TRANSACTION 'finish'`);
  await world.db.query(`COMMIT PREPARED 'finish'`);
  assert.equal((await world.finished(next, '5 s')).status, 'success');

  await terminate(world);
  assert.equal((await world.perform(environment)).status, 'success');
});

// F25, F33: old snapshots and many subtransactions -------------------------------------------------------------------

test('F25 F33 an old snapshot sees 100,000 runs that finished, 1,000 subtransactions: a claim costs at most twice', async () => {
  const other = await world.beside('history');
  await other.db.query('ALTER DATABASE history SET ops_runner.max_concurrent_runs = 0');
  await terminate(other);
  await other.working();
  await other.db.query(`
    INSERT INTO ops.environments (env_id, project_id, env_type, config) SELECT 'history-' || i, 'acme', 'dev',
      '{"url": "https://odoo.example", "max_active_runs": 100, "phases": [{"name": "smoke", "kind": "odoo_smoke"}]}' FROM generate_series(0, 999) i;
    CREATE SCHEMA t;
    CREATE PROCEDURE t.queue(p_runs int) LANGUAGE sql AS
      $$ INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref) SELECT 'acme', 'history-' || i % 1000, 'abcdef1', 'main' FROM generate_series(1, p_runs) i $$;
    CREATE PROCEDURE t.finish() LANGUAGE sql AS $$ UPDATE ops.runs SET status = 'success', finished_at = now() WHERE status = 'claimed' $$;
    CREATE PROCEDURE t.claims(INOUT ms float8) LANGUAGE plpgsql AS $$
    DECLARE v_begin timestamptz; v_taken float8[] := '{}';
    BEGIN
      FOR i IN 1 .. 200 LOOP
        v_begin := clock_timestamp();
        PERFORM ops._claim_runs('claimer', 1);
        v_taken := v_taken || extract(epoch FROM clock_timestamp() - v_begin)::float8 * 1000;
        COMMIT; -- as each worker does; a claim tells the next one where runs are ready when it commits
      END LOOP;
      ms := (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) FROM unnest(v_taken) t);
    END $$`);
  /** The median of 200 claims; the best of three rounds, so that a busy machine does not decide. */
  const claims = async (round = async () => {}) => {
    const medians = [];
    for (let i = 0; i < 3; ++i) {
      await round();
      await other.db.query('CALL t.queue(200)');
      medians.push((await other.db.query('CALL t.claims(NULL)')).rows[0].ms);
      await other.db.query('CALL t.finish()');
    }
    return Math.min(...medians);
  };
  const fresh = await claims();
  const old = await client('history');
  await old.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await old.query('SELECT count(*) FROM ops.projects');
  // Nothing that these leave behind in the queue can be removed while the snapshot is there.
  for (let i = 0; i < 20; ++i) {
    await other.db.query('CALL t.queue(5000)');
    assert.equal((await other.db.query(`SELECT count(*)::int AS n FROM ops._claim_runs('claimer', 5000)`)).rows[0].n, 5000);
    await other.db.query('CALL t.finish()');
  }
  const withOldSnapshot = await claims();
  console.log(`# claim, median of 200: fresh ${fresh.toFixed(2)} ms, 100,000 runs finished under an old snapshot ${withOldSnapshot.toFixed(2)} ms`);
  assert.ok(withOldSnapshot <= 2 * fresh, `${withOldSnapshot} ms, fresh ${fresh} ms`);

  const queueing = await client('history');
  await queueing.query('BEGIN');
  await queueing.query(`DO $$ BEGIN FOR i IN 1 .. 1000 LOOP BEGIN
    PERFORM ops.queue_run('acme', 'history-' || i % 1000, 'abcdef1', 'main');
    EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$`);
  const beside = await claims();
  console.log(`# beside a transaction with 1,000 subtransactions ${beside.toFixed(2)} ms`);
  assert.ok(beside <= 4 * fresh, `${beside} ms, fresh ${fresh} ms`);
  await queueing.query('COMMIT');
  assert.equal((await other.db.query(`SELECT count(*)::int AS n FROM ops._claim_runs('claimer', 2000)`)).rows[0].n, 1000);
});

const scratch = mkdtempSync('/tmp/ops_clock.');
chmodSync(scratch, 0o755);
after(() => rmSync(scratch, { recursive: true }));
function jump(seconds) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(seconds));
  const file = openSync(path.join(scratch, 'clock'), constants.O_CREAT | constants.O_RDWR); // not cut short: it is mapped
  writeSync(file, bytes, 0, 8, 0);
  closeSync(file);
}

// F49 ----------------------------------------------------------------------------------------------------------------

test('F49 the server runs with a clock that can be set', async () => {
  const library = path.join(scratch, 'set_clock.so');
  execFileSync('cc', ['-O1', '-shared', '-fPIC', '-o', library, fileURLToPath(new URL('set_clock.c', import.meta.url)), '-ldl']);
  jump(0);
  await world.restart({ environment: { LD_PRELOAD: library, SET_CLOCK_FILE: path.join(scratch, 'clock') } });
});

test('F17 F49 the worker may not log in: one log line per step of the back-off, which does not follow a clock that is set back', async () => {
  const log = logFromHere();
  await world.db.query('ALTER ROLE ops_runner_worker NOLOGIN');
  const begin = performance.now();
  await terminate(world);
  await eventually('three attempts', () => log(/FATAL: .*not permitted to log in/).length >= 3);
  await stateIs(world, /backing off after an error/);
  assert.ok(performance.now() - begin > 2900, 'attempts after 0, 1 and 2 s');
  jump(-3600);
  await world.db.query('ALTER ROLE ops_runner_worker LOGIN');
  await world.working();
  assert.ok(log(/FATAL: .*not permitted to log in/).length <= 4);
  jump(0);
});

test('F49 the clock jumps +1 h, -1 h and +400 days while runs wait: they go on, and none starts before its time', async () => {
  const changes = { ...smoke, smoke: { timeout: '30 s' } };
  let reached = false;
  const { rows: [{ run_id: later }] } = await world.db.query(`SELECT run_id FROM ops.queue_run('acme', $1, 'abcdef1', 'main', p_not_before := now() + interval '2 hours')`,
                                                             [await world.environment('clock-later', changes)]);
  for (const hours of [1, -1, 0, 9600, 0]) {
    world.services.odoo.healthy = false;
    const runId = await world.queue(await world.environment(`clock-${Math.round(performance.now())}`, changes));
    await eventually('smoke tests run', async () => (await row(runId)).status === 'running');
    const waiting = await client();
    const wait = waiting.query(`SELECT status FROM ops.wait_for_run($1, '20 s')`, [runId]);
    jump(hours * 3600);
    await eventually('the worker lives in the new time', async () => {
      const { rows: [{ off }] } = await world.db.query(`SELECT extract(epoch FROM max(query_start) - to_timestamp($1))::float8 / 3600 AS off FROM pg_stat_activity
        WHERE backend_type = 'ops_runner worker' AND datname = 'postgres'`, [Date.now() / 1000]);
      return Math.abs(off - hours) < 0.1;
    });
    world.services.odoo.healthy = true;
    if (hours === 9600) assert.equal((await world.finished(later, '10 s')).status, 'success');
    else if (!reached) assert.equal((await row(later)).status, 'queued', `started too early, ${hours} hours on`);
    reached ||= hours === 9600;
    assert.equal((await wait).rows[0].status, 'success', JSON.stringify(await world.error(runId)));
    await waiting.end();
  }
  const full = await world.perform(await world.environment('clock-full'));
  assert.equal(full.status, 'success', JSON.stringify(await world.error(full.run_id)));
});

test('T26 no server process was ended by a fault', () => {
  assert.ok(!/terminating any other active server processes/.test(readFileSync(process.env.OPS_SERVER_LOG, 'utf8')));
});
