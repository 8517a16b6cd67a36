// pg-boss in batches.   drain COUNT   queues no-op jobs, performs them, prints `drained JOBS_PER_SECOND`
//   send COUNT CLIENTS  one job per transaction, prints `sent JOBS_PER_SECOND`
//   listen COUNT MIN_MS MAX_MS   with notifications on: sends with random pauses, prints `handled LATENCY_NS`, then `done`
import { PgBoss } from 'pg-boss';

const [what, countText, ...rest] = process.argv.slice(2);
const count = Number(countText);
const notified = what === 'listen';
const boss = new PgBoss({ host: process.env.PGHOST, port: Number(process.env.PGPORT), user: 'postgres', database: process.env.PGDATABASE, max: 12, useListenNotify: notified });
boss.on('error', (error) => process.stderr.write(`${error.stack}\n`));
await boss.start();
await boss.createQueue('noop', notified ? { notify: true } : {});
const now = () => process.hrtime.bigint();
const seconds = (begin) => Number(now() - begin) / 1e9;

if (what === 'drain') {
  for (let sent = 0; sent < count; sent += 1000)
    await boss.insert('noop', Array.from({ length: Math.min(1000, count - sent) }, () => ({ data: {} })));
  const begin = now();
  await new Promise((resolve, reject) => {
    let done = 0;
    boss.work('noop', { batchSize: 500, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true, localConcurrency: 2 },
              async (jobs) => { if ((done += jobs.length) >= count) resolve(); }).catch(reject);
  });
  process.stdout.write(`drained ${count / seconds(begin)}\n`);
} else if (what === 'send') {
  const clients = Number(rest[0]);
  const begin = now();
  await Promise.all(Array.from({ length: clients }, async () => {
    for (let i = 0; i < count / clients; ++i) await boss.send('noop', {});
  }));
  process.stdout.write(`sent ${count / seconds(begin)}\n`);
} else {
  const [least, most] = rest.map(Number);
  const handled = new Map();
  await boss.work('noop', { batchSize: 1 }, async ([job]) => { handled.set(job.id, now()); });
  process.stdout.write('ready\n');
  for (let i = 0; i < count; ++i) {
    const id = await boss.send('noop', {});
    const acknowledged = now();
    while (!handled.has(id)) await new Promise((resolve) => setImmediate(resolve));
    process.stdout.write(`handled ${handled.get(id) - acknowledged}\n`);
    await new Promise((resolve) => setTimeout(resolve, least + Math.random() * (most - least)));
  }
  process.stdout.write('done\n');
}
await boss.stop({ graceful: false });
process.exit(0);
