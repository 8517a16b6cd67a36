// Target 9: the server stops without warning while all runs wait for an answer; from its first accepted connection to the first
// and the last request that was sent again.
import { execFileSync } from 'node:child_process';
import { configure, connect, Database, freePort, letRun, slowServer, until } from './harness.mjs';

const asServerUser = (command, args) => {
  const [program, ...rest] = [...process.env.OPS_AS_SERVER_USER.split(' ').filter(Boolean), command, ...args];
  execFileSync(program, rest, { stdio: 'ignore', cwd: '/tmp' });
};
const control = (...args) => asServerUser(`${process.env.OPS_PGBIN}/pg_ctl`, ['-D', process.env.OPS_PGDATA, '-l', process.env.OPS_SERVER_LOG, ...args]);

async function restarted(count, port) {
  await letRun(0);
  const database = await Database.create('restart');
  const environments = Math.ceil(count / 100);
  await database.environments(environments, { phases: [{ name: 'request', kind: 'bench_requests' }], url: `http://127.0.0.1:${port}` });
  await database.queue(count, { environments, metadata: { timeout_ms: 3_600_000 } });
  const server = await slowServer(port, 3_600_000);
  await letRun(2 * count);
  await until('all runs wait for an answer', () => server.arrivals().size >= count, { every: 100 });

  control('-m', 'immediate', '-w', 'stop');
  const sent = server.lines.length;
  control('-W', 'start');
  let accepted;
  await until('the server accepts connections', async () => {
    const client = await connect(database.name).catch(() => null);
    accepted = Number(process.hrtime.bigint());
    await client?.end();
    return client !== null;
  }, { every: 2 });
  const resumed = await until('all requests are sent again', () => {
    const again = server.lines.slice(sent);
    return again.length >= count && again;
  }, { every: 100 });
  const seconds = (line) => (Number(line.split(' ')[1]) - accepted) / 1e9;
  await server.stop();
  database.client = await connect(database.name);
  await database.drop();
  return { first: seconds(resumed[0]), last: seconds(resumed[count - 1]) };
}

export default async function restart(bench) {
  const count = bench.size(10_000, 500);
  const port = await freePort();
  await configure({ 'ops_runner.allowed_hosts': `http://127.0.0.1:${port}` });
  const measured = [];
  await bench.repeat(async () => measured.push(await restarted(count, port)));
  bench.figure('restart_first_request', 's', measured.map(({ first }) => first), { target: '<=2', note: `${count} runs in flight` });
  bench.figure('restart_all_requests', 's', measured.map(({ last }) => last));
}
