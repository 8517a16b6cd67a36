// Target 7: what a worker without work costs, with the safety check as it is set by default and with one an hour.
import { configure, connect, Database, letRun, processFacts, sleep, until } from './harness.mjs';

async function idleFor(seconds, pollInterval) {
  await configure({ 'ops_runner.poll_interval': pollInterval });
  await letRun(100);
  const database = await Database.create('idle');
  const { pid } = await database.status();
  await database.client.end();
  // After what follows the making of a database: the worker was not woken for a second.
  let wakeups = -1;
  await until('the worker is idle', () => wakeups === (wakeups = processFacts(pid).wakeups), { every: 1_000 });
  const observer = await connect();
  const transactions = async () => Number((await observer.query(
    `SELECT xact_commit + xact_rollback AS n FROM pg_stat_database WHERE datname = $1`, [database.name])).rows[0].n);
  const before = { ...processFacts(pid), transactions: await transactions() };
  await sleep(seconds * 1000);
  const after = { ...processFacts(pid), transactions: await transactions() };
  await observer.query(`DROP DATABASE ${database.name} WITH (FORCE)`);
  await observer.end();
  const minute = (name) => (after[name] - before[name]) * 60 / seconds;
  return { wakeups: minute('wakeups'), transactions: minute('transactions'), cpuMs: minute('cpuMs') };
}

export default async function idle(bench) {
  const seconds = bench.size(60, 15);
  const usual = await idleFor(seconds, '5s');
  const rare = await idleFor(seconds, '1h');
  await configure({ 'ops_runner.poll_interval': '5s' });
  await letRun(0);
  bench.figure('idle_cpu', 'ms/min', [usual.cpuMs], { target: '<=20', note: 'with a safety check each 5 s' });
  bench.figure('idle_wakeups', '/min', [usual.wakeups], { note: 'twelve safety checks a minute' });
  bench.figure('idle_transactions', '/min', [usual.transactions]);
  bench.figure('idle_wakeups_without_checks', '/min', [rare.wakeups], { target: '<=0' });
  bench.figure('idle_transactions_without_checks', '/min', [rare.transactions], { target: '<=0' });
}
