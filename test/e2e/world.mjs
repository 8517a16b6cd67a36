// One server, one set of stand-ins, helpers to register environments and to follow runs. Used inside test/run/with_server.sh.
import { execFileSync } from 'node:child_process';
import pg from 'pg';
import { startServices } from '../services/index.mjs';

export async function client(database = 'postgres') {
  const connection = new pg.Client({ host: process.env.PGHOST, port: Number(process.env.PGPORT), user: 'postgres', database });
  connection.on('error', () => {});
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

export class World {
  static async start(options = {}) {
    const world = new World();
    world.services = await startServices(options);
    try {
      return await world.#prepare(options);
    } catch (error) {
      await world.services.stop(); // what listens would keep this process for ever
      throw error;
    }
  }

  async #prepare(options) {
    const world = this;
    world.db = await client();
    const owner = (flag) => Number(execFileSync('id', [flag, process.env.OPS_SERVER_USER]).toString());
    world.services.writeSecrets(process.env.OPS_SECRETS, owner('-u'), owner('-g'));
    await world.configure({
      'ops_runner.allowed_hosts': [world.services.allowedHosts, ...(options.allowedHosts ?? [])].join(', '),
      ...options.settings,
      'ops_runner.mutation_interval': '0',
      'ops_runner.retry_delay': '20ms',
      'ops_runner.poll_interval': options.pollInterval ?? '500ms',
    });
    await world.db.query('CREATE EXTENSION ops_runner');
    await world.db.query(`INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ('acme', 'Acme', 'acme/odoo', '19.0')`);
    await eventually('the worker is working', async () =>
      (await world.db.query('SELECT state FROM ops.worker_status')).rows[0]?.state === 'working');
    return world;
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

  /** Pid of the worker of this database. */
  async workerPid() {
    return (await this.db.query('SELECT pid FROM ops.worker_status')).rows[0].pid;
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
    await this.db.end();
    await this.services.stop();
  }
}
