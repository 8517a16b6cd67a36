// Target 3: the same work in an empty database and in one with a long history and a long queue of which nearly all runs are
// blocked by their environment. BENCH_HISTORY is the number of finished runs (ten events each); a tenth of it is queued.
import { latencies } from './bench_pickup.mjs';
import { configure, Database, freePort, letRun, noopPhases, quantile, slowServer, until } from './harness.mjs';

const environments = 50;
const blockedEnvironments = 100;

async function prepare(name, url) {
  await letRun(0);
  const database = await Database.create(name);
  await database.environments(environments, { phases: noopPhases(4) });
  await database.environments(1, { prefix: 'free', phases: [{ name: 'request', kind: 'bench_requests' }], url });
  return database;
}

/** Finished runs as if the product had made them long ago: rows of another time than now are history and queue nothing. */
async function addHistory(database, runs) {
  await database.query(`SET synchronous_commit = off`);
  for (let done = 0; done < runs; done += 50_000) {
    await database.query(`
      WITH finished AS (
        INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, status, claimed_by, claim_token, claimed_at, started_at, finished_at,
                              attempt, queued_at, created_at)
        SELECT 'bench', 'env-' || (1 + i % ${environments}), '0123456789abcdef0123456789abcdef01234567', 'main', 'success', 'worker',
               gen_random_uuid(), now(), now(), now(), 1, now(), now() - interval '1 day'
          FROM generate_series(1, $1::int) i RETURNING run_id),
      phases AS (
        INSERT INTO ops.run_phases (run_id, phase_no, phase, kind, timeout, state, attempt, started_at, finished_at, remembered, outcome)
        SELECT f.run_id, p, 'phase_' || p, 'bench_noop', '1 hour', 'succeeded', 1, now(), now(), '{"value": 1}', '{"value": 1}'
          FROM finished f CROSS JOIN generate_series(1, 4) p)
      INSERT INTO ops.run_events (run_id, seq, level, message, payload, phase)
      SELECT f.run_id, s, 'info', 'phase succeeded', '{"kind": "bench_noop"}', 'phase_1' FROM finished f CROSS JOIN generate_series(1, 10) s`,
    [Math.min(50_000, runs - done)]);
  }
  await database.query('RESET synchronous_commit');
}

/** Queues runs whose environments have their only slot taken by a worker outside the server. */
async function addBlocked(database, runs) {
  await database.environments(blockedEnvironments, { prefix: 'blocked', slots: 1, phases: noopPhases(4) });
  await database.queue(blockedEnvironments, { environments: blockedEnvironments, prefix: 'blocked' });
  for (let i = 0; i < blockedEnvironments; ++i)
    if ((await database.query(`SELECT run_id FROM ops.claim_next_run('holder')`)).length !== 1) throw new Error('no run to hold');
  await database.queue(runs, { environments: blockedEnvironments, prefix: 'blocked' });
  const begin = Date.now();
  await letRun(1000);
  await until('every blocked run was examined', async () =>
    (await database.one(`SELECT count(*) FROM ops.run_queue WHERE state = 'blocked'`)) >= runs, { every: 100 });
  return (Date.now() - begin) / 1000;
}

async function measure(database, server, count, pickups) {
  await letRun(0);
  await database.queue(count, { environments });
  await database.query('CHECKPOINT');
  const seconds = await database.drain(count);
  await latencies(database, server, 10);
  const milliseconds = await latencies(database, server, pickups, 'begin');
  return { rate: count / seconds, pickup: quantile(milliseconds, 0.5) };
}

export default async function flat(bench) {
  const history = Number(process.env.BENCH_HISTORY ?? bench.size(200_000, 10_000));
  const count = bench.size(5_000, 1_000);
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  await configure({ 'ops_runner.allowed_hosts': url });
  const server = await slowServer(port, 0);

  const full = await prepare('full', url);
  await addHistory(full, history);
  bench.progress(`${history} finished runs are there`);
  const blocked = Math.round(history / 10 * 0.95);
  const examined = await addBlocked(full, blocked);
  await full.analyze();

  const rates = { empty: [], full: [] };
  const pickups = { empty: [], full: [] };
  await bench.repeat(async () => {
    const empty = await prepare('empty', url);
    for (const [name, database] of [['empty', empty], ['full', full]]) {
      const { rate, pickup } = await measure(database, server, count, bench.size(100, 50));
      rates[name].push(rate);
      pickups[name].push(pickup);
    }
    await empty.drop();
  });
  await full.drop();
  await server.stop();
  const note = `${history} finished runs, ${10 * history} events, ${blocked} runs blocked in ${blockedEnvironments} environments`;
  bench.figure('flat_runs_4_phases', 'runs/s', rates.full, { ratio: 'empty_to_full', ratios: rates.empty.map((rate, i) => rate / rates.full[i]), target: '<=1.2', targetOf: 'ratio', note });
  bench.figure('flat_queue_to_request_p50', 'ms', pickups.full, { ratio: 'full_to_empty', ratios: pickups.full.map((ms, i) => ms / pickups.empty[i]), target: '<=1.2', targetOf: 'ratio' });
  bench.figure('flat_examine_blocked', 'runs/s', [blocked / examined]);
}
