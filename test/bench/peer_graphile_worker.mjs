// graphile-worker with what its documentation advises for throughput (drain) and as it comes (listen).
//   drain COUNT   queues no-op jobs, performs them, prints `drained JOBS_PER_SECOND`
//   listen        prints `ready`, then `handled NS JOB_ID` when a handler begins
import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import pg from 'pg';

const [what, countText] = process.argv.slice(2);
const pgPool = new pg.Pool({ max: 12 });
const logger = new Logger(() => () => {});
const utils = await makeWorkerUtils({ pgPool, logger });
await utils.migrate();

if (what === 'drain') {
  const count = Number(countText);
  await pgPool.query(`SELECT graphile_worker.add_job('noop', json_build_object('i', i)) FROM generate_series(1, $1::int) i`, [count]);
  await pgPool.query('VACUUM ANALYZE');
  let done = 0;
  const begin = process.hrtime.bigint();
  const runner = await run({
    pgPool, logger, noHandleSignals: true, concurrency: 24,
    preset: { worker: { concurrentJobs: 24, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } },
    taskList: { noop: async () => { done += 1; } },
  });
  while (done < count || (await pgPool.query('SELECT 1 FROM graphile_worker._private_jobs LIMIT 1')).rowCount > 0)
    await new Promise((resolve) => setTimeout(resolve, 20));
  process.stdout.write(`drained ${count / (Number(process.hrtime.bigint() - begin) / 1e9)}\n`);
  await runner.stop();
} else {
  await run({
    pgPool, logger, noHandleSignals: true, concurrency: 4,
    taskList: { noop: async (_, helpers) => { process.stdout.write(`handled ${process.hrtime.bigint()} ${helpers.job.id}\n`); } },
  });
  process.stdout.write('ready\n');
  await new Promise(() => {});
}
await utils.release();
await pgPool.end();
