// Target 4: requests completed and recorded as events, 100 runs at a time against nginx with one worker process, beside what
// libcurl alone does with 100 transfers in flight.
import { configure, curlLimit, Database, freePort, letRun, nginx } from './harness.mjs';

const runs = 100;

async function recorded(port, requestsPerRun) {
  await letRun(0);
  const database = await Database.create('http');
  await database.environments(1, { phases: [{ name: 'requests', kind: 'bench_requests' }], url: `http://127.0.0.1:${port}` });
  await database.queue(runs, { environments: 1, metadata: { requests: requestsPerRun } });
  await database.analyze();
  const seconds = await database.drain(runs);
  const answered = Number(await database.one(`SELECT count(*) FROM ops.run_events WHERE message = 'answered' AND payload ->> 'status' = '200'`));
  if (answered !== runs * requestsPerRun) throw new Error(`${answered} of ${runs * requestsPerRun} answers are recorded`);
  await database.drop();
  return answered / seconds;
}

export default async function http(bench) {
  const port = await freePort();
  await configure({ 'ops_runner.allowed_hosts': `http://127.0.0.1:${port}` });
  const server = await nginx(port);
  const rates = [];
  const limits = [];
  await bench.repeat(async () => {
    limits.push((await curlLimit(`http://127.0.0.1:${port}/`, bench.size(100_000, 10_000), runs)).requests_per_second);
    rates.push(await recorded(port, bench.size(400, 50)));
  });
  const ratios = rates.map((rate, i) => rate / limits[i]);
  bench.figure('http_recorded', 'requests/s', rates, { ratio: 'to_libcurl_alone', ratios, target: '>=10000' });
  bench.figure('http_to_libcurl_alone', 'requests/s', rates, { ratio: 'to_libcurl_alone', ratios, target: '>=0.3', targetOf: 'ratio' });
  bench.figure('libcurl_alone', 'requests/s', limits);
  await server.stop();
}
