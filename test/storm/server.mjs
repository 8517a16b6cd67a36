// The server of with_server.sh, seen by somebody who kills it: questions survive lost connections, its log is counted.
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { client, eventually } from '../e2e/world.mjs';

const { OPS_PGBIN: bin, OPS_PGDATA: data, OPS_SERVER_LOG: log, OPS_AS_SERVER_USER: prefix } = process.env;

export class Server {
  #connection = null;

  /** Rows of a query, asked again until the server has answered it: only for what may be asked twice. */
  async ask(query, parameters = []) {
    return eventually(`an answer to ${query}`, async () => {
      try {
        this.#connection ??= await client();
        return (await this.#connection.query(query, parameters)).rows;
      } catch (error) {
        if (error.code && !/^(57P0|08|53300|E)/.test(error.code)) throw error; // what a crash does not explain
        this.#connection?.end().catch(() => {});
        this.#connection = null;
        return null;
      }
    }, 60_000);
  }

  /** A connection of its own, which nobody repairs. */
  connect() {
    return eventually('a connection', () => client().catch(() => null), 60_000);
  }

  async close() {
    await this.#connection?.end().catch(() => {});
  }

  /** Process of the worker when it works; another than `before`. */
  worker(before = 0) {
    return eventually('the worker works', async () => {
      const [row] = await this.ask(`SELECT pid FROM ops.worker_status WHERE state = 'working'`);
      return row && row.pid !== before ? row.pid : null;
    }, 60_000);
  }

  #read = 0;
  #crashes = 0;
  /** Moments at which the server began to accept connections. */
  starts = [];

  /** How often the server was re-initialised. */
  get crashes() {
    const file = openSync(log, 'r');
    const bytes = Buffer.alloc(fstatSync(file).size - this.#read);
    readSync(file, bytes, 0, bytes.length, this.#read);
    closeSync(file);
    const whole = bytes.subarray(0, bytes.lastIndexOf('\n') + 1);
    this.#read += whole.length;
    for (const line of whole.toString().split('\n')) {
      if (line.includes('terminating any other active server processes')) ++this.#crashes;
      const start = line.match(/^(\S+) (\S+) UTC .*database system is ready to accept connections/);
      if (start) this.starts.push(Date.parse(`${start[1]}T${start[2]}Z`));
    }
    return this.#crashes;
  }

  get postmaster() { return Number(readFileSync(path.join(data, 'postmaster.pid'), 'utf8').split('\n')[0]); }

  #control(...words) {
    const command = [...(prefix ? prefix.split(' ') : []), path.join(bin, 'pg_ctl'), '-D', data, '-w', '-t', '30', ...words];
    execFileSync(command[0], command.slice(1), { stdio: 'ignore', cwd: path.dirname(data) });
  }
  stop(mode) { this.#control('-m', mode, 'stop'); }

  /** A server that was killed may be started when the last of its processes is gone. */
  async start() {
    await eventually('the server starts', () => {
      try {
        this.#control('-l', log, 'start');
        return true;
      } catch {
        return false;
      }
    }, 60_000);
  }

  /** Stop points of the test build, src/pg/faults.hpp. Null disarms. */
  arm(line) {
    const file = path.join(data, 'ops_faults');
    if (line === null) rmSync(file, { force: true });
    else {
      writeFileSync(`${file}.new`, `${line}\n`);
      renameSync(`${file}.new`, file);
    }
  }
  get armed() {
    const file = path.join(data, 'ops_faults');
    return existsSync(file) && readFileSync(file, 'utf8').length > 0;
  }
}
