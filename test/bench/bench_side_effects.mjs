// Target 8: sizes of the tables while many runs pass through a queue of constant length, autovacuum on.
// BENCH_RUNS is the number of runs.
import { configure, Database, letRun, noopPhases, sleep } from './harness.mjs';

const environments = 50;
const backlog = 5_000;

const sizesOf = async (database, tables) => Object.fromEntries((await database.query(
  `SELECT c.relname AS name, pg_table_size(c.oid) + pg_indexes_size(c.oid) AS bytes
     FROM pg_class c WHERE c.relnamespace = 'ops'::regnamespace AND c.relname = ANY ($1)`, [tables])).map((row) => [row.name, Number(row.bytes)]));

export default async function sideEffects(bench) {
  const count = Number(process.env.BENCH_RUNS ?? bench.size(200_000, 10_000));
  const passing = ['run_queue', 'run_slots'];
  const kept = ['runs', 'run_phases', 'run_events'];
  await configure({ 'autovacuum_naptime': count < 500_000 ? '5s' : '60s' });
  await letRun(0);
  const database = await Database.create('side_effects');
  await database.environments(environments, { phases: noopPhases(4) });
  let queued = 0;
  const first = {}, second = {}; // largest sizes while half of the runs passed
  let dead = 0;
  const fill = async () => {
    const more = Math.min(backlog, count - queued);
    await database.queue(more, { environments });
    queued += more;
  };
  await fill();
  await letRun(1000);
  const begin = Date.now();
  for (let done = 0; done < count; await sleep(100)) {
    done = await database.finished();
    if (queued < count && queued - done < backlog) await fill();
    const half = done < count / 2 ? first : second;
    for (const [name, bytes] of Object.entries(await sizesOf(database, passing))) half[name] = Math.max(half[name] ?? 0, bytes);
    dead = Math.max(dead, Number(await database.one(
      `SELECT sum(n_dead_tup)::float8 / greatest(sum(n_live_tup), 1) FROM pg_stat_user_tables WHERE relname = ANY ($1)`, [kept])));
  }
  const rate = count / ((Date.now() - begin) / 1000);
  await database.statisticsOf(count);
  const hot = Object.fromEntries((await database.query(
    `SELECT relname, n_tup_hot_upd::float8 / greatest(n_tup_upd, 1) AS hot FROM pg_stat_user_tables WHERE relname = ANY ($1)`, [kept]))
    .map((row) => [row.relname, Number(row.hot)]));
  const indexBytes = async () => Object.fromEntries((await database.query(
    `SELECT relname, pg_indexes_size(oid) AS bytes FROM pg_class WHERE relnamespace = 'ops'::regnamespace AND relname = ANY ($1)`, [kept]))
    .map((row) => [row.relname, Number(row.bytes)]));
  const before = await indexBytes();
  for (const name of kept) await database.query(`REINDEX TABLE ops.${name}`);
  const after = await indexBytes();
  await database.drop();
  await configure({ 'autovacuum_naptime': '60s' });

  bench.figure('side_effects_rate', 'runs/s', [rate], { note: `${count} runs, ${backlog} queued at a time` });
  bench.figure('side_effects_runs_hot', '%', [100 * hot.runs], { target: '>=90' });
  bench.figure('side_effects_phases_hot', '%', [100 * hot.run_phases]);
  for (const name of kept)
    bench.figure(`side_effects_${name}_index`, 'MiB', [before[name] / 2 ** 20], { ratio: 'to_rebuilt', ratios: [before[name] / after[name]], target: '<=2', targetOf: 'ratio' });
  for (const name of passing)
    bench.figure(`side_effects_${name}_largest`, 'MiB', [second[name] / 2 ** 20], { ratio: 'to_first_half', ratios: [second[name] / first[name]], target: '<=2', targetOf: 'ratio' });
  bench.figure('side_effects_dead_rows', 'of_live', [dead], { target: '<=1' });
}
