// Stops and starts the throw-away server of test/run/with_server.sh.
import { execFileSync } from 'node:child_process';

const asServerUser = () => process.env.OPS_AS_SERVER_USER.split(' ').filter(Boolean);
const control = (...args) => [...asServerUser(), `${process.env.OPS_PGBIN}/pg_ctl`, '-D', process.env.OPS_PGDATA, '-w', '-t', '30', ...args];
const run = ([program, ...args]) => execFileSync(program, args, { stdio: 'ignore', cwd: '/' });

export function stopServer(mode = 'fast') {
  run(control('-m', mode, 'stop'));
}

/** @param surroundings  a program and its arguments that starts the server in surroundings of its own */
export function startServer(surroundings = []) {
  run([...surroundings, ...control('-l', process.env.OPS_SERVER_LOG, 'start')]);
}
