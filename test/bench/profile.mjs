// Where the worker's time goes while it drains a queue: its statements, and, where `perf` works, its functions.
//   profile.mjs KIND PHASES RUNS [ENVIRONMENTS [serial]]    run by test/run/bench_profile.sh
// BENCH_SQL is executed once the extension is there: to try a change of a table or a function.
// serial: runs are queued one at a time, a few milliseconds apart, so that each has its turns for itself.
import { spawn } from 'node:child_process';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { built, configure, Database, freePort, letRun, nginx, noopPhases, processFacts, statements, until } from './harness.mjs';

const [kind = 'bench_noop', phases = '4', countText = '20000', environmentsText = '50', serial] = process.argv.slice(2);
const count = Number(countText);
const environments = Number(environmentsText);
const requests = kind === 'bench_requests';
const port = await freePort();
const url = `http://127.0.0.1:${port}`;
await configure({ 'ops_runner.allowed_hosts': url });
const server = requests ? await nginx(port) : null;
await letRun(0);
const database = await Database.create('profile');
await database.query('CREATE EXTENSION pg_stat_statements');
if (process.env.BENCH_SQL) await database.query(process.env.BENCH_SQL);
await database.environments(environments, { phases: noopPhases(Number(phases), kind), url });
const requestsPerRun = serial ? 1 : 400;
if (!serial) await database.queue(count, { environments, metadata: { requests: requestsPerRun } });
await database.analyze();
const { pid } = await database.status();
await database.query('SELECT pg_stat_statements_reset()');

const data = path.join(built, 'perf.data');
fs.rmSync(data, { force: true });
const perf = spawn('perf', ['record', '-q', '-e', 'cpu-clock', '-F', '1999', '-g', '-o', data, '-p', String(pid)], { stdio: 'ignore' });
let ended = false;
const recorded = new Promise((resolve) => { perf.on('close', resolve); perf.on('error', resolve); }).then(() => (ended = true));
await until('perf records or cannot', () => ended || fs.existsSync(data));
const cpu = processFacts(pid).cpuMs;
const drained = database.drain(count, { runs: requests ? 100 : 1000 });
if (serial) await statements(database.name, count, 4, 8, `SELECT run_id FROM ops.queue_run('bench', 'env-1', '0123456789abcdef', 'main')`);
const seconds = await drained;
const cpuMs = processFacts(pid).cpuMs - cpu;
perf.kill('SIGINT');
await recorded;

const unit = requests && !serial ? 'request' : 'run';
const units = requests ? requestsPerRun * count : count;
process.stdout.write(`${kind} x ${phases}: ${(units / seconds).toFixed(0)} ${unit}s/s, ${(1000 * cpuMs / units).toFixed(0)} us of the worker's CPU a ${unit}, ` +
                     `CPU ${(cpuMs / seconds / 10).toFixed(0)} %\n\n`);
process.stdout.write(`  ms in all   % of time     calls   rows/call   us/${unit}  statement (nested ones are counted in the outer one too)\n`);
for (const row of await database.query(`
    SELECT total_exec_time AS ms, calls, rows, regexp_replace(query, '\\s+', ' ', 'g') AS query, toplevel FROM pg_stat_statements
     WHERE query NOT LIKE '%worker_status%' ORDER BY total_exec_time DESC LIMIT 25`))
  process.stdout.write(`${row.ms.toFixed(0).padStart(11)} ${(row.ms / seconds / 10).toFixed(1).padStart(11)} ${String(row.calls).padStart(9)} ` +
                       `${(row.rows / row.calls).toFixed(1).padStart(11)} ${(1000 * row.ms / units).toFixed(1).padStart(8)}  ${row.toplevel ? '' : '  '}${row.query.slice(0, 130)}\n`);
await database.statisticsOf(count);
const tables = await database.query(`SELECT relname, n_tup_upd, 100.0 * n_tup_hot_upd / n_tup_upd AS hot FROM pg_stat_user_tables WHERE n_tup_upd > 0 ORDER BY n_tup_upd DESC`);
process.stdout.write('\nupdates that stayed on their page: ' + tables.map((row) => `${row.relname} ${Number(row.hot).toFixed(0)} % of ${row.n_tup_upd}`).join(', ') + '\n');
try {
  const report = execFileSync('perf', ['report', '-i', data, '--no-children', '--sort', 'dso,symbol', '-g', 'none', '--percent-limit', '0.6', '--stdio'],
                              { stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 28 }).toString();
  process.stdout.write('\n' + report.split('\n').filter((line) => /^ +\d/.test(line)).map((line) => line.slice(0, 150).trimEnd()).slice(0, 40).join('\n') + '\n');
} catch {
  process.stdout.write('\nperf does not work here\n');
}
await database.drop();
await server?.stop();
process.exit(0);
