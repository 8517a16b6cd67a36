// Target 1: from the moment the client has read that its commit is done to the request of the run's first phase on the wire
// (read by a server on loopback). Peers: to the first line of their handler. One clock for all.
import { configure, Database, freePort, isolate, letRun, peer, quantile, slowServer, statements, until } from './harness.mjs';

const pauses = [20, 60];
const requests = [{ name: 'request', kind: 'bench_requests' }];

/**
 * Milliseconds, one per run, from the commit as the client heard of it, or from the beginning of its statement. A request may
 * leave before the client has heard of its commit: then the first one is negative.
 */
export async function latencies(database, server, count, from) {
  const queued = await statements(database.name, count, ...pauses,
                                  `SELECT run_id FROM ops.queue_run('bench', 'free-1', '0123456789abcdef', 'main')`);
  const arrivals = await until('every request has arrived', () => {
    const seen = server.arrivals();
    return queued.every(({ value }) => seen.has(`/${value}`)) && seen;
  });
  return queued.map(({ value, ...times }) => {
    const arrival = arrivals.get(`/${value}`);
    const since = (moment) => (arrival - times[moment]) / 1e6;
    return from ? since(from) : { commit: since('end'), statement: since('begin') };
  });
}

async function ours(bench, ports, others, count) {
  const [fast, slow] = [await slowServer(ports[0], 0), await slowServer(ports[1], 1000)];
  const database = await Database.create('pickup');
  await database.environments(1, { prefix: 'free', phases: requests, url: `http://127.0.0.1:${ports[0]}` });
  await letRun(1000);
  await isolate((await database.status()).pid);
  if (others) {
    await database.environments(1, { phases: requests, url: `http://127.0.0.1:${ports[1]}` });
    await database.queue(others, { environments: 1, metadata: { requests: 3600 } });
    await slow.line('arrival');
  }
  await latencies(database, fast, 20); // connections and plans are made
  const measured = await latencies(database, fast, count);
  await database.drop();
  await fast.stop();
  await slow.stop();
  return measured;
}

async function graphile(count) {
  const database = await Database.create('pickup_peer', { extension: false });
  const program = peer('graphile-worker', ['listen'], database.name);
  if (!program) return null;
  await program.line('ready');
  await isolate(program.child.pid);
  const add = `SELECT (graphile_worker.add_job('noop', '{}')).id`;
  await statements(database.name, 20, ...pauses, add);
  const queued = await statements(database.name, count, ...pauses, add);
  const handled = await until('every job is handled', () => {
    const seen = new Map(program.lines.filter((line) => line.startsWith('handled')).map((line) => line.split(' ').slice(1).reverse()));
    return queued.every(({ value }) => seen.has(value)) && seen;
  });
  await program.stop();
  await database.drop();
  return queued.map(({ begin, end, value }) => ({ commit: (Number(handled.get(value)) - end) / 1e6, statement: (Number(handled.get(value)) - begin) / 1e6 }));
}

async function pgBoss(count) {
  const database = await Database.create('pickup_peer', { extension: false });
  const program = peer('pg-boss', ['listen', count, ...pauses], database.name);
  if (!program) return null;
  await program.line('done');
  await program.ended;
  await database.drop();
  return program.lines.filter((line) => line.startsWith('handled')).map((line) => ({ commit: Number(line.split(' ')[1]) / 1e6 }));
}

export default async function pickup(bench) {
  const ports = [await freePort(), await freePort()];
  await configure({ 'ops_runner.allowed_hosts': ports.map((port) => `http://127.0.0.1:${port}`).join(',') });
  const count = bench.size(200, 50);
  const measured = { idle: [], busy: [], graphile: [], pgBoss: [] };
  await bench.repeat(async () => {
    measured.idle.push(await ours(bench, ports, 0, count));
    measured.busy.push(await ours(bench, ports, 100, count));
    measured.graphile.push(await graphile(count));
    measured.pgBoss.push(await pgBoss(bench.size(100, 30)));
  });
  const at = (name, q, since = 'commit') => measured[name].filter(Boolean).map((values) => quantile(values.map((value) => value[since]), q));
  // Where the request leaves before the client has heard of its commit there is no ratio worth the name: counted as 0.1 ms.
  const ratios = (q, since = 'commit') => at('graphile', q, since).map((value, i) => value / Math.max(0.1, at('idle', q, since)[i]));
  const named = { ratio: 'graphile_to_this' };
  bench.figure('pickup_idle_p50', 'ms', at('idle', 0.5), { ...named, ratios: ratios(0.5), target: '<=0.5' });
  bench.figure('pickup_idle_p99', 'ms', at('idle', 0.99), { ...named, ratios: ratios(0.99), target: '<=2' });
  bench.figure('statement_to_request_p50', 'ms', at('idle', 0.5, 'statement'), { ...named, ratios: ratios(0.5, 'statement') });
  bench.figure('pickup_beside_100_runs_p99', 'ms', at('busy', 0.99), { target: '<=5' });
  bench.figure('pickup_beside_100_runs_p50', 'ms', at('busy', 0.5));
  if (measured.graphile[0]) {
    bench.figure('pickup_to_graphile_worker', 'ms', at('idle', 0.5), { ...named, ratios: ratios(0.5), target: '>=3', targetOf: 'ratio' });
    bench.figure('graphile_worker_pickup_p50', 'ms', at('graphile', 0.5));
    bench.figure('graphile_worker_pickup_p99', 'ms', at('graphile', 0.99));
  } else bench.progress('graphile-worker is not installed: not measured');
  if (measured.pgBoss[0]) {
    bench.figure('pg_boss_pickup_p50', 'ms', at('pgBoss', 0.5));
    bench.figure('pg_boss_pickup_p99', 'ms', at('pgBoss', 0.99));
  } else bench.progress('pg-boss is not installed: not measured');
}
