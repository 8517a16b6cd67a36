// Target 6: ops.queue_run, one per transaction, against the commit limit of the same minute; then many runs in one statement.
// The worker is woken by every commit and claims nothing.
import { CommitLimit } from './bench_limit.mjs';
import { Database, letRun, noopPhases, peer, pgbench } from './harness.mjs';

const environments = 50;
const one = `\\set n random(1, ${environments})
SELECT run_id FROM ops.queue_run('bench', 'env-' || :n, '0123456789abcdef0123456789abcdef01234567', 'main');`;

async function filled(count, sql) {
  const database = await Database.create('bulk');
  await database.environments(environments, { phases: noopPhases(4) });
  const begin = process.hrtime.bigint();
  await database.query(sql, [count]);
  const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
  const queued = Number(await database.one('SELECT count(*) FROM ops.run_queue'));
  if (queued !== count) throw new Error(`${queued} of ${count} runs are queued`);
  await database.drop();
  return count / seconds;
}

async function bossSends(count, clients) {
  const database = await Database.create('peer', { extension: false });
  const program = peer('pg-boss', ['send', count, clients], database.name);
  if (!program) return null;
  const line = await program.line('sent');
  await program.ended;
  await database.drop();
  return Number(line.split(' ')[1]);
}

export default async function enqueue(bench) {
  await letRun(0);
  const commits = await CommitLimit.prepare();
  const seconds = bench.size(4, 2);
  for (const clients of [1, 8]) {
    const rates = [], limits = [], graphile = [], boss = [];
    await bench.repeat(async () => {
      const database = await Database.create('enqueue');
      await database.environments(environments, { phases: noopPhases(4) });
      const before = await commits.measure(clients, seconds / 2);
      rates.push(await pgbench(database.name, one, { clients, seconds }));
      limits.push((before + await commits.measure(clients, seconds / 2)) / 2);
      await database.drop();

      const empty = await Database.create('peer', { extension: false });
      const program = peer('graphile-worker', ['listen'], empty.name); // makes its tables
      if (program) {
        await program.line('ready');
        await program.stop();
        graphile.push(await pgbench(empty.name, `SELECT graphile_worker.add_job('noop', '{}');`, { clients, seconds }));
      }
      await empty.drop();
      const sent = await bossSends(bench.size(3_000, 300), clients);
      if (sent) boss.push(sent);
    });
    const to = (values) => values.map((value, i) => value / limits[i]);
    bench.figure(`queue_run_${clients}_clients`, 'runs/s', rates, { ratio: 'to_commit_limit', ratios: to(rates), target: '>=0.5', targetOf: 'ratio' });
    if (graphile.length) bench.figure(`graphile_worker_add_job_${clients}_clients`, 'jobs/s', graphile, { ratio: 'to_commit_limit', ratios: to(graphile) });
    if (boss.length) bench.figure(`pg_boss_send_${clients}_clients`, 'jobs/s', boss, { ratio: 'to_commit_limit', ratios: to(boss) });
    bench.figure(`commit_limit_beside_enqueue_${clients}_clients`, 'commits/s', limits);
  }
  await commits.drop();

  const rates = { insert: [], select: [] };
  await bench.repeat(async () => {
    rates.insert.push(await filled(10_000, `
      INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref)
      SELECT 'bench', 'env-' || (1 + i % ${environments}), '0123456789abcdef0123456789abcdef01234567', 'main'
        FROM generate_series(1, $1::int) i`));
    rates.select.push(await filled(10_000, `
      SELECT count(q.run_id) FROM generate_series(1, $1::int) i
       CROSS JOIN LATERAL ops.queue_run('bench', 'env-' || (1 + i % ${environments}), '0123456789abcdef0123456789abcdef01234567', 'main') q`));
  });
  bench.figure('bulk_insert_10000', 'runs/s', rates.insert, { target: '>=10000' });
  bench.figure('bulk_queue_run_10000', 'runs/s', rates.select);
}
