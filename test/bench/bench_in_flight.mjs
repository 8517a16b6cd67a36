// Target 5: runs that each wait five seconds, for an answer or by a timer, in one worker.
import { configure, curlLimit, Database, freePort, isolate, letRun, noopPhases, processFacts, quantile, slowServer, sleep, statements, until } from './harness.mjs';

const waitMs = 5_000;

const environmentsFor = (count) => Math.ceil(count / 100);

async function prepare(count, phase, url) {
  const database = await Database.create('in_flight');
  await database.environments(environmentsFor(count), { phases: [phase], url });
  await database.environments(1, { prefix: 'beside', phases: noopPhases(1) });
  return database;
}

/** Queues them all while the worker is held. */
async function queueHeld(database, count) {
  await letRun(0);
  await database.queue(count, { environments: environmentsFor(count), metadata: { sleep_ms: waitMs, timeout_ms: 120_000 } });
  await database.analyze();
}

/** Seconds until all are done, and the worker's memory for each at its peak. */
async function waited(count, phase, url) {
  const database = await prepare(count, phase, url);
  await queueHeld(database, count);
  const { pid } = await database.status();
  const before = processFacts(pid).anonymousKib;
  let peak = before;
  let over = false;
  const watching = (async () => {
    for (; !over; await sleep(100)) peak = Math.max(peak, processFacts(pid).anonymousKib);
  })();
  const seconds = await database.drain(count, { runs: 2 * count });
  over = true;
  await watching;
  const connections = Number(await database.one(
    `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`));
  const failed = Number(await database.one(`SELECT count(*) FROM ops.runs WHERE status <> 'success'`));
  if (failed) throw new Error(`${failed} runs did not succeed`);
  await database.drop();
  return { seconds, kib: (peak - before) / count, connections };
}

const queueBeside = (database, count) =>
  statements(database.name, count, 2, 6, `SELECT run_id FROM ops.queue_run('bench', 'beside-1', '0123456789abcdef', 'main')`);
const p99 = (measured) => quantile(measured.map(({ begin, end }) => (end - begin) / 1e6), 0.99);

/** p99 of ops.queue_run while the worker performs what it queues, with nothing else in flight and beside all of them. */
async function latencyBeside(count, phase, url, samples, server) {
  const database = await prepare(count, phase, url);
  await database.analyze();
  await letRun(2 * count);
  await isolate((await database.status()).pid);
  await queueBeside(database, 50);
  const idle = p99(await queueBeside(database, samples));
  await queueHeld(database, count);
  await letRun(2 * count);
  await until('every run waits for its answer', () => server.arrivals().size >= count, { every: 100 });
  const beside = p99(await queueBeside(database, samples));
  await database.drop();
  return { idle, beside };
}

export default async function inFlight(bench) {
  const count = bench.size(10_000, 500);
  const ports = [await freePort(), await freePort()];
  await configure({ 'ops_runner.allowed_hosts': ports.map((port) => `http://127.0.0.1:${port}`).join(',') });
  const urls = ports.map((port) => `http://127.0.0.1:${port}`);
  const request = { name: 'request', kind: 'bench_requests' };
  const server = await slowServer(ports[0], waitMs);
  const http = [], timers = [], curls = [], besides = [];
  await bench.repeat(async () => {
    curls.push((await curlLimit(`${urls[0]}/`, count, count)).kib_per_transfer);
    http.push(await waited(count, request, urls[0]));
    timers.push(await waited(count, { name: 'wait', kind: 'bench_sleep' }));
    const slower = await slowServer(ports[1], 60_000);
    besides.push(await latencyBeside(count, request, urls[1], bench.size(2_000, 100), slower));
    await slower.stop();
  });
  await server.stop();
  bench.figure('in_flight_http', 's', http.map(({ seconds }) => seconds), { target: '<=6.5', note: `${count} runs wait ${waitMs} ms each` });
  bench.figure('in_flight_timers', 's', timers.map(({ seconds }) => seconds), { target: '<=6.5' });
  const own = http.map(({ kib }, i) => kib - curls[i]);
  bench.figure('in_flight_http_memory', 'KiB/run', own, { ratio: 'to_libcurl_alone', ratios: own.map((kib, i) => kib / curls[i]), target: '<=40' });
  bench.figure('in_flight_timers_memory', 'KiB/run', timers.map(({ kib }) => kib), { target: '<=40' });
  bench.figure('libcurl_alone_memory', 'KiB/transfer', curls);
  bench.figure('in_flight_connections', 'connections', http.map(({ connections }) => connections), { target: '<=1' });
  bench.figure('in_flight_queue_run_p99', 'ms', besides.map(({ beside }) => beside), { ratio: 'to_idle', ratios: besides.map(({ beside, idle }) => beside / idle), target: '<=1.2', targetOf: 'ratio' });
}
