// Target 2: runs without network, every state change and event kept. The queue is filled while the worker is held; the time
// is that from letting it go to the last run's commit.
import { readFileSync } from 'node:fs';
import { Database, letRun, noopPhases, peer, pgbench } from './harness.mjs';

const environments = 50;

async function oneWorker(name, phases, count) {
  await letRun(0);
  const database = await Database.create(name);
  await database.environments(environments, { phases });
  await database.queue(count, { environments });
  await database.analyze();
  const seconds = await database.drain(count);
  const events = Number(await database.one('SELECT count(*) FROM ops.run_events')) / count;
  const wrong = Number(await database.one(`SELECT count(*) FROM ops.runs WHERE status <> 'success'`));
  if (wrong) throw new Error(`${wrong} runs did not succeed`);
  await database.drop();
  return { rate: count / seconds, events };
}

/** Two databases, each with its own worker. */
async function twoWorkers(phases, count) {
  await letRun(0);
  const databases = [await Database.create('first'), await Database.create('second')];
  for (const database of databases) {
    await database.environments(environments, { phases });
    await database.queue(count / 2, { environments });
    await database.analyze();
  }
  const seconds = await Promise.all(databases.map((database) => database.drain(count / 2)));
  for (const database of databases) await database.drop();
  return count / Math.max(...seconds);
}

/** Row at a time through functions, one run after the other: claim, events, finish. */
async function predecessor(count, events) {
  const database = await Database.create('predecessor', { extension: false });
  await database.query(readFileSync(new URL('predecessor.sql', import.meta.url), 'utf8'));
  await database.query(
    `INSERT INTO old.runs (project_id, env_id, git_sha, git_ref)
     SELECT 'bench', 'env-' || i % 50, '0123456789abcdef0123456789abcdef01234567', 'main' FROM generate_series(1, $1::int) i`, [count + 1]);
  await database.analyze();
  const rate = await pgbench(database.name, `
    SELECT run_id AS run FROM old.claim_next_run('worker') \\gset
    ${`SELECT old.append_event(:run, 'info', 'phase succeeded', '{}');\n`.repeat(events)}
    SELECT old.finish_run(:run, 'success', '{}');
  `, { transactions: count });
  await database.drop();
  return rate;
}

async function drainedBy(name, count) {
  const database = await Database.create('peer', { extension: false });
  const program = peer(name, ['drain', count], database.name);
  if (!program) return null;
  const line = await program.line('drained');
  await program.ended;
  await database.drop();
  return Number(line.split(' ')[1]);
}

export default async function runs(bench) {
  const count = bench.size(20_000, 1_000);
  const rates = { four: [], steps: [], one: [], two: [], predecessor: [], predecessorOfFour: [], 'graphile-worker': [], 'pg-boss': [] };
  let events;
  await bench.repeat(async () => {
    const four = await oneWorker('runs', noopPhases(4), count);
    rates.four.push(four.rate);
    events = four.events;
    rates.steps.push((await oneWorker('runs', noopPhases(4, 'bench_step'), count)).rate);
    rates.one.push((await oneWorker('runs', noopPhases(1), count)).rate);
    rates.two.push(await twoWorkers(noopPhases(4), count));
    rates.predecessor.push(await predecessor(bench.size(2_000, 200), 3));
    rates.predecessorOfFour.push(await predecessor(bench.size(1_000, 100), 11));
    for (const name of ['graphile-worker', 'pg-boss']) {
      const rate = await drainedBy(name, count);
      if (rate) rates[name].push(rate);
    }
  });
  const by = (a, b) => rates[a].map((value, i) => value / rates[b][i]);
  bench.figure('runs_4_phases', 'runs/s', rates.four, { ratio: 'to_predecessor', ratios: by('four', 'predecessor'), target: '>=6000', note: `${events} events a run` });
  bench.figure('runs_4_phases_to_predecessor', 'runs/s', rates.four, { ratio: 'to_11_events', ratios: by('four', 'predecessorOfFour'), target: '>=10', targetOf: 'ratio' });
  bench.figure('runs_4_phases_committed_each', 'runs/s', rates.steps, { ratio: 'to_11_events', ratios: by('steps', 'predecessorOfFour'), target: '>=6000' });
  bench.figure('runs_1_phase', 'runs/s', rates.one, { ratio: 'to_predecessor', ratios: by('one', 'predecessor'), target: '>=12000' });
  bench.figure('runs_1_phase_to_predecessor', 'runs/s', rates.one, { ratio: 'to_predecessor', ratios: by('one', 'predecessor'), target: '>=10', targetOf: 'ratio' });
  bench.figure('runs_two_workers', 'runs/s', rates.two, { ratio: 'to_one_worker', ratios: by('two', 'four'), target: '>=1.5', targetOf: 'ratio' });
  bench.figure('predecessor_runs', 'runs/s', rates.predecessor, { note: '3 events a run' });
  bench.figure('predecessor_runs_11_events', 'runs/s', rates.predecessorOfFour);
  for (const name of ['graphile-worker', 'pg-boss'])
    if (rates[name].length) bench.figure(`${name.replace('-', '_')}_jobs`, 'jobs/s', rates[name], { ratio: 'to_runs_1_phase', ratios: by(name, 'one') });
    else bench.progress(`${name} is not installed: not measured`);
}
