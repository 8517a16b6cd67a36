// One server, one set of stand-ins, helpers to register environments and to follow runs. Used inside test/run/with_server.sh.
import { execFileSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import { startServices } from '../services/index.mjs';

const connections = new Set();

/** A connection; it ends with the world at the latest. */
export async function client(database = 'postgres') {
  const connection = new pg.Client({ host: process.env.PGHOST, port: Number(process.env.PGPORT), user: 'postgres', database });
  connection.on('error', () => {});
  connections.add(connection);
  connection.on('end', () => connections.delete(connection));
  await connection.connect();
  return connection;
}

/** Calls `look` until it returns something true; fails after `ms`. */
export async function eventually(what, look, ms = 20_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function timed(action) {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

/** Lines that the server writes into its log from now on. */
export function logFromHere() {
  const from = statSync(process.env.OPS_SERVER_LOG).size;
  return (pattern) => readFileSync(process.env.OPS_SERVER_LOG).subarray(from).toString().split('\n').filter((line) => pattern.test(line));
}

/** Runs a program of the server as its user, with a changed environment. */
export function serverProgram(name, parameters, environment = {}) {
  const words = [...process.env.OPS_AS_SERVER_USER.split(' ').filter(Boolean), 'env', ...Object.entries(environment).map((entry) => entry.join('=')),
                 path.join(process.env.OPS_PGBIN, name), ...parameters];
  return execFileSync(words[0], words.slice(1), { cwd: '/tmp', stdio: ['ignore', name === 'pg_ctl' ? 'ignore' : 'pipe', 'inherit'] });
}

export class World {
  static #prefixes = 0;

  static async start(options = {}) {
    const world = new World();
    world.services = await startServices(options);
    try {
      return await world.#prepare(options);
    } catch (error) {
      await world.stop(); // what listens would keep this process for ever
      throw error;
    }
  }

  async #prepare(options) {
    const world = this;
    world.db = await client();
    world.writeSecrets();
    await world.configure({
      'ops_runner.allowed_hosts': [world.services.allowedHosts, ...(options.allowedHosts ?? [])].join(', '),
      ...options.settings,
      'ops_runner.mutation_interval': '0',
      'ops_runner.retry_delay': '20ms',
      'ops_runner.poll_interval': options.pollInterval ?? '500ms',
    });
    await world.install();
    return world;
  }

  /** Those of the stand-ins, or these. */
  writeSecrets(values) {
    const owner = (flag) => Number(execFileSync('id', [flag, process.env.OPS_SERVER_USER]).toString());
    this.services.writeSecrets(process.env.OPS_SECRETS, owner('-u'), owner('-g'), values);
  }

  async configure(settings) {
    for (const [name, value] of Object.entries(settings)) await this.db.query(`ALTER SYSTEM SET ${name} = '${value}'`);
    await this.db.query('SELECT pg_reload_conf()');
  }

  /** A new environment with an app and an image of its own. */
  async environment(name, changes = {}) {
    await this.db.query('INSERT INTO ops.environments (env_id, project_id, env_type, config) VALUES ($1, $2, $3, $4)',
                        [name, 'acme', 'staging', this.services.environment(name, changes)]);
    return name;
  }

  async queue(environment, sha = '0123456789abcdef0123456789abcdef01234567', metadata = {}) {
    const { rows } = await this.db.query('SELECT run_id FROM ops.queue_run($1, $2, $3, $4, $5)', ['acme', environment, sha, 'main', metadata]);
    return rows[0].run_id;
  }

  async finished(runId, timeout = '30 s') {
    const { rows } = await this.db.query('SELECT * FROM ops.wait_for_run($1, $2::interval)', [runId, timeout]);
    return rows[0];
  }

  /** Queues a run and waits for its end. */
  async perform(environment, sha, metadata) {
    return this.finished(await this.queue(environment, sha, metadata));
  }

  /** `count` runs, each in an environment of its own and with a request that gets no answer. */
  async hang(count, prefix) {
    prefix += `-${World.#prefixes++}`; // an image that an earlier run has built would be adopted without a request
    this.services.github.service.fault({ operation: 'actions/get-workflow', hang: true, times: 1e6 });
    const names = Array.from({ length: count }, (_, i) => `${prefix}-${i}`);
    await this.db.query('INSERT INTO ops.environments (env_id, project_id, env_type, config) SELECT e.env, $1, $2, e.config FROM unnest($3::text[], $4::jsonb[]) AS e(env, config)',
                        ['acme', 'staging', names, names.map((name) => this.services.environment(name))]);
    const { rows } = await this.db.query('SELECT q.run_id FROM unnest($1::text[]) AS e(env), ops.queue_run($2, e.env, $3, $4) q', [names, 'acme', 'abcdef1', 'main']);
    await eventually(`${count} requests hang`, async () => (await this.worker()).requests_in_flight >= count);
    return rows.map((row) => row.run_id);
  }

  async worker() {
    return (await this.db.query('SELECT * FROM ops.worker_status')).rows[0];
  }

  async working() {
    return eventually('the worker is working', async () => (await this.worker())?.state === 'working' && this.worker());
  }

  /** The same stand-ins beside another database of the server, which is made if it is not there. */
  async beside(database) {
    const other = Object.assign(new World(), { services: this.services });
    if ((await this.db.query('SELECT FROM pg_database WHERE datname = $1', [database])).rowCount === 0) await this.db.query(`CREATE DATABASE ${database}`);
    other.db = await client(database);
    await other.install();
    return other;
  }

  async install() {
    await this.db.query('CREATE EXTENSION ops_runner');
    await this.db.query(`INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ('acme', 'Acme', 'acme/odoo', '19.0')`);
    await this.working();
  }

  /** Restarts the server; its process gets `environment`. Returns how long it took to stop, in milliseconds. */
  async restart({ mode = 'fast', settings = {}, environment = {} } = {}) {
    for (const [name, value] of Object.entries(settings)) await this.db.query(`ALTER SYSTEM SET ${name} = '${value}'`);
    const stopping = await timed(() => serverProgram('pg_ctl', ['-D', process.env.OPS_PGDATA, '-m', mode, '-w', '-t', '60', 'stop']));
    serverProgram('pg_ctl', ['-D', process.env.OPS_PGDATA, '-l', process.env.OPS_SERVER_LOG, '-w', '-t', '60', 'start'], environment);
    this.db = await client(this.db.database);
    await this.working();
    return stopping;
  }

  /** Pid of the worker of this database. */
  async workerPid() {
    return (await this.worker()).pid;
  }

  async effects(runId) {
    const { rows } = await this.db.query('SELECT * FROM ops.effects WHERE run_id = $1', [runId]);
    return Object.fromEntries(rows.map((row) => [row.effect_key, row]));
  }

  async events(runId) {
    return (await this.db.query('SELECT * FROM ops.run_events WHERE run_id = $1 ORDER BY seq', [runId])).rows;
  }

  async phases(runId) {
    const { rows } = await this.db.query('SELECT * FROM ops.run_phases WHERE run_id = $1 ORDER BY phase_no', [runId]);
    return Object.fromEntries(rows.map((row) => [row.phase, row]));
  }

  async error(runId) {
    return (await this.events(runId)).find((event) => event.level === 'error' && event.phase);
  }

  async stop() {
    for (const connection of connections) await connection.end().catch(() => {});
    await this.services.stop();
  }
}
