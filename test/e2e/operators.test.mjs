// Operators at work at the same time, and cancel in every state.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { World, client, eventually, logFromHere } from './world.mjs';

let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());
afterEach(() => world?.services.heal());

const accepted = (operation, key) => world.services.journal.accepted(operation).filter((entry) => entry.key === key);
const row = async (runId) => (await world.db.query('SELECT * FROM ops.runs WHERE run_id = $1', [runId])).rows[0];
const told = (runId, text) => eventually(text, async () => (await world.events(runId)).some((event) => event.message.includes(text)));
const cancel = (runId) => world.db.query('SELECT ops.cancel_run($1)', [runId]);

// Cancel in each state ----------------------------------------------------------------------------------------------

test('F77 cancel while queued behind another run, and while it waits for its time: at once', async () => {
  const environment = await world.environment('cancel-queued');
  world.services.github.outcome = { neverEnds: true };
  const first = await world.queue(environment);
  await told(first, 'dispatched');
  const second = await world.queue(environment, 'b'.repeat(40));
  const { rows: [later] } = await world.db.query(`SELECT run_id FROM ops.queue_run('acme', $1, 'abcdef1', 'main', p_not_before := now() + interval '1 hour')`, [environment]);
  for (const run of [second, later.run_id]) {
    await cancel(run);
    assert.equal((await row(run)).status, 'cancelled');
    assert.deepEqual(Object.values(await world.phases(run)).map((phase) => phase.state), Array(4).fill('skipped'));
  }
  await cancel(first);
  assert.equal((await world.finished(first)).status, 'cancelled');
});

test('F77 cancel while it waits for a secret: at once', async () => {
  const runId = await world.queue(await world.environment('cancel-waiting', { github: { credential: 'never' } }));
  await eventually('it waits', async () => (await row(runId)).status === 'waiting');
  await cancel(runId);
  assert.equal((await row(runId)).status, 'cancelled');
});

test('F77 cancel with a dispatch on the wire that is answered late: heard, found and stopped outside', async () => {
  world.services.github.service.fault({ operation: 'actions/create-workflow-dispatch', delayMs: 1500 });
  world.services.github.outcome = { neverEnds: true };
  const runId = await world.queue(await world.environment('cancel-on-the-wire'));
  await eventually('the intent is recorded', async () =>
    (await world.db.query(`SELECT FROM ops.effects WHERE run_id = $1 AND state = 'intended'`, [runId])).rowCount > 0);
  await cancel(runId);
  const asked = await row(runId);
  assert.equal(asked.status, 'running');
  assert.ok(asked.cancel_requested_at);
  assert.equal((await world.finished(runId)).status, 'cancelled');
  const key = (await world.phases(runId)).build_image.remembered.run_token;
  assert.equal(accepted('actions/create-workflow-dispatch', key).length, 1);
  assert.equal(accepted('actions/cancel-workflow-run', key).length, 1);
});

test('F77 cancel with a dispatch whose answer is lost: looked for and stopped outside', async () => {
  world.services.github.service.fault({ operation: 'actions/create-workflow-dispatch', delayMs: 700, drop: 'after' });
  world.services.github.outcome = { neverEnds: true };
  const runId = await world.queue(await world.environment('cancel-lost'));
  await eventually('the intent is recorded', async () =>
    (await world.db.query(`SELECT FROM ops.effects WHERE run_id = $1`, [runId])).rowCount > 0);
  await cancel(runId);
  assert.equal((await world.finished(runId)).status, 'cancelled');
  const key = (await world.phases(runId)).build_image.remembered.run_token;
  assert.equal(accepted('actions/create-workflow-dispatch', key).length, 1);
  assert.equal(accepted('actions/cancel-workflow-run', key).length, 1);
});

test('F77 cancel during the smoke tests: cancelled, what is deployed is named', async () => {
  world.services.odoo.healthy = false;
  const runId = await world.queue(await world.environment('cancel-smoke', { smoke: { timeout: '60 s' } }));
  await eventually('smoke tests run', async () => (await world.phases(runId)).smoke_tests.state === 'running');
  await cancel(runId);
  assert.equal((await world.finished(runId)).status, 'cancelled');
  assert.deepEqual(Object.values(await world.phases(runId)).map((phase) => phase.state), ['succeeded', 'succeeded', 'cancelled', 'skipped']);
});

test('F77 cancel while the remote cancel is refused for a while: not cancelled before the build has ended', async () => {
  world.services.github.outcome = { neverEnds: true };
  world.services.github.service.fault({ operation: 'actions/cancel-workflow-run', status: 502, times: 3 });
  const runId = await world.queue(await world.environment('cancel-refused'));
  await told(runId, 'dispatched');
  await cancel(runId);
  assert.equal((await world.finished(runId)).status, 'cancelled');
  await told(runId, 'ended as cancelled');
});

test('F77 F78 cancel of a run that is over says how it ended', async () => {
  const environment = await world.environment('cancel-over', { phases: [{ name: 'smoke', kind: 'odoo_smoke' }] });
  const { run_id } = await world.perform(environment);
  await assert.rejects(cancel(run_id), (error) => error.code === '55000' && /is already success/.test(error.message));
});

test('F77 cancel at every moment of a run: when it is cancelled, nothing goes on outside', async () => {
  world.services.github.buildMs = 1000;
  world.services.digitalocean.outcome = { neverEnds: true };
  const { github, digitalocean } = world.services;
  const moments = Array.from({ length: 40 }, async (_, i) => {
    const environment = await world.environment(`moment-${i}`);
    const runId = await world.queue(environment);
    const db = await client();
    const events = Math.floor(i * 0.7); // the deployment that never ends has told 28 events and more
    await eventually(`${events} events of ${environment}`, async () => (await world.events(runId)).length >= events);
    await db.query('SELECT ops.cancel_run($1)', [runId]);
    const { rows: [run] } = await db.query(`SELECT * FROM ops.wait_for_run($1, '60 s')`, [runId]);
    assert.equal(run.status, 'cancelled');
    const key = (await world.phases(runId)).build_image.remembered.run_token;
    const builds = [...github.runs.values()].filter((build) => build.inputs.run_token === key);
    assert.ok(builds.length <= 1);
    for (const build of builds) assert.ok(build.cancelledAt || Date.now() - build.createdAt >= github.buildMs, `the build of ${environment} goes on`);
    const { rows: [app] } = await db.query(`SELECT config -> 'digitalocean' ->> 'app_id' AS id FROM ops.environments WHERE env_id = $1`, [environment]);
    for (const deployment of digitalocean.apps.get(app.id).deployments) assert.ok(deployment.cancelledAt, `the deployment of ${environment} goes on`);
    assert.equal((await db.query(`SELECT FROM ops.effects WHERE run_id = $1 AND state NOT IN ('done', 'absent')`, [runId])).rowCount, 0);
    await db.end();
    return builds.length;
  });
  const builds = (await Promise.all(moments)).reduce((sum, count) => sum + count);
  world.services.github.buildMs = 300;
  assert.ok(builds >= 20, `only ${builds} cancels met a build`);
});

// Several operators -------------------------------------------------------------------------------------------------

test('F78 two operators do the same at once: one wins, the other is told', async () => {
  const [one, two] = [await client(), await client()];
  const both = async (sql, parameters, said) => {
    const results = await Promise.allSettled([one, two].map((db) => db.query(sql, parameters)));
    const lost = results.filter((result) => result.status === 'rejected').map((result) => result.reason);
    assert.equal(lost.length, 1, sql);
    assert.equal(lost[0].code, '55000');
    assert.match(lost[0].message, said);
  };
  world.services.github.outcome = { neverEnds: true };
  for (let round = 0; round < 10; ++round) {
    const runId = await world.queue(await world.environment(`both-${round}`));
    await told(runId, 'dispatched');
    await both('SELECT ops.cancel_run($1)', [runId], /is already (being )?cancelled/);
    await world.finished(runId);
    await both('SELECT ops.retry_run($1)', [runId], /is already being retried by/);
    await cancel((await world.db.query('SELECT run_id FROM ops.runs WHERE origin_run_id = $1', [runId])).rows[0].run_id);
  }
});

test('I19 one idempotency key from 200 callers at once: one run, everybody gets its id', async () => {
  const environment = await world.environment('one-key', { phases: [{ name: 'smoke', kind: 'odoo_smoke' }] });
  const sessions = await Promise.all(Array.from({ length: 50 }, () => client()));
  const answers = await Promise.all(Array.from({ length: 200 }, (_, i) =>
    sessions[i % 50].query(`SELECT run_id FROM ops.queue_run('acme', $1, 'abcdef1', 'main', '{}', 'the key')`, [environment])));
  await Promise.all(sessions.map((session) => session.end()));
  assert.equal(new Set(answers.map(({ rows: [answer] }) => answer.run_id)).size, 1);
  assert.equal((await world.db.query('SELECT FROM ops.runs WHERE env_id = $1', [environment])).rowCount, 1);
});

test('F36 a reader that follows a run by seq misses nothing of two writers that commit late', async () => {
  const other = await world.beside('readers');
  await other.db.query('ALTER DATABASE readers SET ops_runner.max_concurrent_runs = 0');
  await other.db.query('SELECT pg_terminate_backend(pid) FROM ops.worker_status');
  await eventually('a new life', async () => (await other.db.query(`SELECT FROM pg_stat_activity WHERE datname = 'readers' AND backend_type = 'ops_runner worker'`)).rowCount === 1);
  await other.working();
  const runId = await other.queue(await other.environment('followed'));
  await other.db.query(`SELECT ops.claim_next_run('outside')`);
  const tail = await client('readers');
  const printed = [];
  tail.on('notice', (notice) => printed.push(notice.message.trim().split(/\s+/).slice(3).join(' ')));
  const tailing = tail.query('CALL ops.tail($1)', [runId]);
  let over = false;
  let looks = 0;
  const followed = [];
  const following = (async () => {
    const reader = await client('readers');
    while (!over || (await reader.query('SELECT max(seq) AS last FROM ops.run_events WHERE run_id = $1', [runId])).rows[0].last > followed.length) {
      followed.push(...(await reader.query('SELECT seq, message FROM ops.run_events WHERE run_id = $1 AND seq > $2 ORDER BY seq', [runId, followed.length])).rows);
      ++looks;
    }
  })();
  await Promise.all(['one', 'two'].map(async (name) => {
    const writer = await client('readers');
    for (let i = 0; i < 40; ++i) {
      await writer.query('BEGIN');
      await writer.query('SELECT ops.append_event($1, $2, $3)', [runId, 'info', `${name} ${i}`]);
      const before = looks;
      await eventually('the reader has looked while this is not committed', () => looks >= before + 2);
      await writer.query(i % 7 === 3 ? 'ROLLBACK' : 'COMMIT');
    }
  }));
  await other.db.query(`SELECT ops.finish_run($1, 'success')`, [runId]);
  over = true;
  await Promise.all([following, tailing]);
  const stored = (await other.events(runId)).map((event) => event.message);
  assert.ok(stored.length > 60);
  assert.deepEqual(followed.map((event) => event.seq), stored.map((_, i) => i + 1));
  assert.deepEqual(followed.map((event) => event.message), stored);
  assert.deepEqual(printed, stored);
});

const calls = 12_000;
test(`F27 ${calls} calls of 8 operators and workers in random order beside the worker: no deadlock, nothing broken`, async () => {
  const other = await world.beside('driven');
  await other.db.query(`ALTER DATABASE driven SET deadlock_timeout = '20ms'`);
  for (const name of ['red', 'green', 'blue']) await other.environment(name, { phases: [{ name: 'smoke', kind: 'odoo_smoke' }], max_active_runs: 2 });
  await other.db.query(`
    CREATE SCHEMA drive;
    CREATE TABLE drive.said (call text, sqlstate text, message text);
    CREATE FUNCTION drive.some(p_status text[]) RETURNS text LANGUAGE sql VOLATILE AS
      $$ SELECT run_id FROM (SELECT run_id FROM ops.runs WHERE status = ANY (p_status) ORDER BY queued_at DESC LIMIT 6) r ORDER BY random() LIMIT 1 $$;
    CREATE PROCEDURE drive.operate(p_calls int) LANGUAGE plpgsql AS $$
    DECLARE
      v_active CONSTANT text[] := ARRAY['queued', 'claimed', 'running', 'waiting'];
      v_call text;
      v_env text;
    BEGIN
      FOR i IN 1 .. p_calls LOOP
        -- Once for each call: in a WHERE it would be drawn for each row, and an edit could lock several in any order.
        v_env := (ARRAY['red', 'green', 'blue'])[1 + floor(random() * 3)];
        v_call := (ARRAY['queue', 'cancel', 'cancel', 'retry', 'retry', 'reset', 'claim', 'event', 'finish', 'finish', 'stuck', 'edit'])[1 + floor(random() * 12)];
        BEGIN
          CASE v_call
            WHEN 'queue' THEN PERFORM ops.queue_run('acme', v_env, 'abcdef1', 'main', '{}', NULL, (random() * 3)::int);
            WHEN 'cancel' THEN PERFORM ops.cancel_run(drive.some(v_active), 'why');
            WHEN 'retry' THEN PERFORM ops.retry_run(drive.some('{failed,cancelled}'));
            WHEN 'reset' THEN PERFORM ops.reset_run(drive.some('{claimed,running}'));
            WHEN 'claim' THEN PERFORM ops.claim_next_run('outside ' || pg_backend_pid());
            WHEN 'event' THEN PERFORM ops.append_event(drive.some('{claimed,running}'), 'info', 'at work');
            WHEN 'finish' THEN PERFORM ops.finish_run(drive.some('{claimed,running}'), (ARRAY['success', 'failed', 'cancelled'])[1 + floor(random() * 3)]);
            WHEN 'stuck' THEN PERFORM ops.reset_stuck_runs('0');
            WHEN 'edit' THEN UPDATE ops.environments SET branch_pattern = 'x' || i WHERE env_id = v_env;
          END CASE;
          INSERT INTO drive.said VALUES (v_call, '00000', '');
        EXCEPTION WHEN OTHERS THEN
          INSERT INTO drive.said VALUES (v_call, SQLSTATE, regexp_replace(SQLERRM, 'run-[0-9a-f-]{36}', 'x'));
        END;
        COMMIT;
      END LOOP;
    END $$`);
  const log = logFromHere();
  const sessions = await Promise.all(Array.from({ length: 8 }, () => client('driven')));
  await Promise.all(sessions.map((session) => session.query('CALL drive.operate($1)', [calls / sessions.length])));
  const { rows } = await other.db.query('SELECT call, sqlstate, count(*)::int, min(message) AS message FROM drive.said GROUP BY 1, 2 ORDER BY 1, 2');
  assert.equal(rows.reduce((sum, said) => sum + said.count, 0), calls);
  assert.deepEqual(rows.filter((said) => !['00000', '55000', '22004', 'OP002'].includes(said.sqlstate)), []);
  for (const call of ['queue', 'cancel', 'retry', 'reset', 'claim', 'event', 'finish'])
    assert.ok(rows.find((said) => said.call === call && said.sqlstate === '00000')?.count >= 20, `${call} hardly ever succeeded: ${JSON.stringify(rows)}`);
  assert.deepEqual(log(/deadlock detected/), []);
  // What is left comes to an end by itself, and everything fits together.
  await other.db.query(`SELECT ops.reset_run(run_id) FROM ops.runs WHERE status IN ('claimed', 'running') AND claimed_role IS NOT NULL`);
  await eventually('everything ends', async () =>
    (await other.db.query(`SELECT FROM ops.runs WHERE status NOT IN ('success', 'failed', 'cancelled')`)).rowCount === 0, 60_000);
  for (const table of ['run_queue', 'run_slots']) assert.equal((await other.db.query(`SELECT FROM ops.${table}`)).rowCount, 0, table);
  const { rows: gaps } = await other.db.query(`SELECT run_id, min(e.seq), max(e.seq), count(e.seq) FROM ops.runs LEFT JOIN ops.run_events e USING (run_id)
    GROUP BY 1 HAVING min(e.seq) IS DISTINCT FROM 1 OR max(e.seq) <> count(e.seq)`);
  assert.deepEqual(gaps, []);
});
