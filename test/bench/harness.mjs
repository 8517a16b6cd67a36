// What every benchmark uses: figures, databases with their own worker, programs that run beside the server.
import { execFile, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';

const here = path.dirname(fileURLToPath(import.meta.url));
export const built = path.join(here, '../../build/bench');
const run = promisify(execFile);

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const quantile = (values, q) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
};
export const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
};
const shown = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** Calls `look` until it returns something true. */
export async function until(what, look, { ms = 120_000, every = 10 } = {}) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(every);
  }
}

export async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A program beside the server; `lines` collects what it prints. End it with stop(). */
export class Program {
  constructor(command, args, { env = {}, cwd } = {}) {
    this.lines = [];
    this.waiting = [];
    this.child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env }, cwd });
    this.ended = new Promise((resolve) => this.child.on('close', resolve));
    readline.createInterface({ input: this.child.stdout }).on('line', (line) => {
      this.lines.push(line);
      this.waiting = this.waiting.filter(({ start, resolve }) => !line.startsWith(start) || (resolve(line), false));
    });
    Program.all.add(this);
  }
  static all = new Set();

  /** The first line, printed already or from now on, that begins like this. */
  line(start) {
    const found = this.lines.find((line) => line.startsWith(start));
    if (found) return Promise.resolve(found);
    const printed = new Promise((resolve) => this.waiting.push({ start, resolve }));
    return Promise.race([printed, this.ended.then((code) => {
      throw new Error(`${this.child.spawnfile} ended with ${code} before it printed "${start}"`);
    })]);
  }
  async stop(signal = 'SIGTERM') {
    Program.all.delete(this);
    this.child.kill(signal);
    await this.ended;
  }
}

export class Bench {
  /** @param scale  multiplies the sizes of everything that is measured; ratios of small sizes are rough */
  constructor(scale, repetitions) {
    this.scale = scale;
    this.repetitions = repetitions;
    this.figures = [];
  }
  size(usual, least = 1) {
    return Math.max(least, Math.round(usual * this.scale));
  }
  progress(text) {
    process.stderr.write(`  ${text}\n`);
  }
  async repeat(action) {
    for (let i = 0; i < this.repetitions; ++i) await action(i);
  }

  /**
   * Prints one figure. `target` such as '>=6000' is met by the value, or, with `targetOf: 'ratio'`, by the ratio. Without a
   * reference the ratio is the spread: largest by smallest repetition.
   */
  figure(name, unit, samples, { ratio = 'spread', ratios, target, targetOf = 'value', note } = {}) {
    const value = median(samples);
    const spread = Math.min(...samples) > 0 ? Math.max(...samples) / Math.min(...samples) : 1;
    const ratioValue = ratios ? median(ratios) : spread;
    const judged = targetOf === 'ratio' ? ratioValue : value;
    const limit = target && Number(target.replace(/^[<>]=/, ''));
    const met = !target || (target.startsWith('<=') ? judged <= limit : judged >= limit);
    const aim = target ? (targetOf === 'ratio' ? `${ratio}${target}` : target) : 'none';
    this.figures.push({ name, unit, value, samples, spread, ratio, ratioValue, ratios, target: aim, met, note });
    process.stdout.write(`bench ${name} ${shown(value)} ${unit} ${ratio}=${shown(ratioValue)} target=${aim} ${met ? 'ok' : 'miss'}\n`);
    if (note) this.progress(note);
  }
}

// The server ---------------------------------------------------------------------------------------------------------

export async function connect(database = 'postgres') {
  const client = new pg.Client({ host: process.env.PGHOST, port: Number(process.env.PGPORT), user: 'postgres', database });
  client.on('error', () => {});
  await client.connect();
  return client;
}

export async function configure(settings) {
  const client = await connect();
  for (const [name, value] of Object.entries(settings)) await client.query(`ALTER SYSTEM SET ${name} = '${value}'`);
  await client.query('SELECT pg_reload_conf()');
  await client.end();
}
/** The worker claims at most so many runs; 0 holds the queue. */
export const letRun = (runs) => configure({ 'ops_runner.max_concurrent_runs': runs });

export const noopPhases = (count, kind = 'bench_noop') =>
  Array.from({ length: count }, (_, i) => ({ name: `phase_${i + 1}`, kind }));

/** A new database with the extension, its worker and project `bench`; gone with drop(). */
export class Database {
  static async create(name, { extension = true } = {}) {
    const database = new Database();
    database.name = `bench_${name}`;
    const client = await connect();
    await client.query(`DROP DATABASE IF EXISTS ${database.name} WITH (FORCE)`);
    await client.query(`CREATE DATABASE ${database.name}`);
    await client.end();
    database.client = await connect(database.name);
    if (!extension) return database;
    await database.query('CREATE EXTENSION ops_runner');
    await database.query(`INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ('bench', 'Bench', 'a/b', '19.0')`);
    await until('the worker is working', async () => (await database.status())?.state === 'working');
    return database;
  }
  async query(sql, values) {
    return (await this.client.query(sql, values)).rows;
  }
  async one(sql, values) {
    return Object.values((await this.query(sql, values))[0])[0];
  }
  async status() {
    return (await this.query('SELECT * FROM ops.worker_status'))[0];
  }
  async finished() {
    return Number((await this.status()).finished);
  }
  async environments(count, { phases, slots = 100, url, prefix = 'env' }) {
    await this.query(
      `INSERT INTO ops.environments (env_id, project_id, env_type, config)
       SELECT $2 || '-' || i, 'bench', 'dev', $3 FROM generate_series(1, $1::int) i`,
      [count, prefix, { phases, max_active_runs: slots, ...(url ? { url } : {}) }]);
  }
  /** Queues runs in one statement, spread over the environments. */
  async queue(count, { environments, prefix = 'env', metadata = {} }) {
    await this.query(
      `INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref, metadata)
       SELECT 'bench', $2 || '-' || (1 + i % $3::int), '0123456789abcdef0123456789abcdef01234567', 'main', $4
         FROM generate_series(1, $1::int) i`, [count, prefix, environments, metadata]);
  }
  async analyze() {
    await this.query('VACUUM ANALYZE');
    await this.query('CHECKPOINT');
  }
  /** Lets the worker go until it has finished so many more runs; returns the seconds. */
  async drain(count, { runs = 1000, ms = 600_000 } = {}) {
    const goal = (await this.finished()) + count;
    const begin = process.hrtime.bigint();
    await letRun(runs);
    await until(`${count} runs finished`, async () => (await this.finished()) >= goal, { ms });
    return Number(process.hrtime.bigint() - begin) / 1e9;
  }
  /** The worker reports what its statements have counted when it is idle: waits until so many runs have been updated. */
  async statisticsOf(runs) {
    await until('the statistics are reported', () => this.one(
      `SELECT n_tup_upd >= $1::int FROM pg_stat_user_tables WHERE relid = 'ops.runs'::regclass`, [runs]));
  }
  async drop() {
    await this.client.end();
    const client = await connect();
    await client.query(`DROP DATABASE ${this.name} WITH (FORCE)`);
    await client.end();
  }
}

// Programs -----------------------------------------------------------------------------------------------------------

/** Transactions per second of a pgbench script. */
export async function pgbench(database, script, { clients = 1, seconds, transactions, prepared = true }) {
  const file = path.join(built, `pgbench.${process.pid}.sql`);
  fs.writeFileSync(file, script);
  const length = transactions ? ['-t', transactions] : ['-T', Math.max(1, Math.round(seconds))];
  const { stdout } = await run(`${process.env.OPS_PGBIN}/pgbench`,
                               ['-n', '-f', file, '-c', clients, '-j', Math.min(clients, 2), ...length, ...(prepared ? ['-M', 'prepared'] : []), database]);
  fs.unlinkSync(file);
  return Number(/tps = ([\d.]+)/.exec(stdout)[1]);
}

/** Answers each request on loopback after a delay; arrivals() maps the path to the nanosecond it arrived. */
export async function slowServer(port, delayMs) {
  const server = new Program(`${built}/probe`, ['serve', port, delayMs]);
  await server.line('ready');
  server.arrivals = () => new Map(server.lines.filter((line) => line.startsWith('arrival')).map((line) => {
    const [, at, url] = line.split(' ');
    return [url, Number(at)];
  }));
  return server;
}

/**
 * Who measures (with its server process) and what is measured each have their processor, where there are two: a client that waits
 * for the processor on which the worker has just begun hears of its commit when the worker is done.
 */
const processors = os.cpus().length > 1 ? { measuring: 0, measured: 1 } : null;

/** Keeps a process that is measured to its processor. */
export async function isolate(pid) {
  if (processors) await run('taskset', ['-acp', processors.measured, pid]);
}

/** One statement at a time with random pauses: [{begin, end, value}], nanoseconds. */
export async function statements(database, count, minMs, maxMs, sql) {
  const { stdout } = await run(`${built}/probe`, ['statements', count, minMs, maxMs, sql, processors?.measuring ?? -1],
                               { env: { ...process.env, PGDATABASE: database }, maxBuffer: 1 << 28 });
  return stdout.trim().split('\n').map((line) => {
    const [, begin, end, value] = line.split(' ');
    return { begin: Number(begin), end: Number(end), value };
  });
}

export async function curlLimit(url, requests, inFlight) {
  const { stdout } = await run(`${built}/curl_limit`, [url, requests, inFlight]);
  return Object.fromEntries(stdout.trim().split('\n').map((line) => line.split(' ')).map(([name, value]) => [name, Number(value)]));
}

/** nginx with one worker process that answers everything with two bytes. */
export async function nginx(port) {
  const directory = fs.mkdtempSync(path.join(built, 'nginx.'));
  fs.writeFileSync(path.join(directory, 'nginx.conf'), `
    daemon off; worker_processes 1; pid ${directory}/pid; error_log stderr crit; worker_rlimit_nofile 20000;
    events { worker_connections 15000; }
    http {
      access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
      client_body_temp_path ${directory}/a; proxy_temp_path ${directory}/b; fastcgi_temp_path ${directory}/c;
      uwsgi_temp_path ${directory}/d; scgi_temp_path ${directory}/e;
      server { listen 127.0.0.1:${port} backlog=4096; location / { default_type text/plain; return 200 "ok"; } }
    }`);
  const program = new Program('/usr/sbin/nginx', ['-c', path.join(directory, 'nginx.conf'), '-e', 'stderr']);
  await until('nginx answers', async () => fetch(`http://127.0.0.1:${port}/`).then((answer) => answer.ok, () => false), { ms: 10_000 });
  const stop = program.stop.bind(program);
  program.stop = async () => {
    await stop('SIGQUIT');
    fs.rmSync(directory, { recursive: true });
  };
  return program;
}

/** A peer, run by the Node that its package needs; nothing when it is not installed. */
export function peer(name, args, database) {
  const node = ['x64', 'arm64'].map((cpu) => path.join(here, `node_modules/node-linux-${cpu}/bin/node`)).find((file) => fs.existsSync(file));
  if (!node || !fs.existsSync(path.join(here, 'node_modules', name))) return null;
  return new Program(node, [path.join(here, `peer_${name.replace('-', '_')}.mjs`), ...args.map(String)], { env: { PGDATABASE: database } });
}

/** Memory and time of a process, from /proc. */
export function processFacts(pid) {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  const number = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)[1]);
  const anonymous = number('RssAnon');
  const [cpuNs] = fs.readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ').map(Number);
  return { anonymousKib: anonymous, cpuMs: cpuNs / 1e6, wakeups: number('voluntary_ctxt_switches') };
}
