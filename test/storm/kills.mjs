// Ways in which a worker or its server dies or hangs. Each ends when the next worker works, or the same one again.
import { eventually } from '../e2e/world.mjs';

const points = ['after_claim', 'before_resume', 'after_intent_commit', 'after_send', 'before_result_commit', 'after_result_commit'];

const gone = (pid) => {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
};

/** Waits for the crash that follows `before` crashes, then for the next worker. */
async function recovered(server, worker, before) {
  await eventually('the server has noticed', () => server.crashes > before, 60_000);
  await server.worker(worker);
}

async function crash(server, worker, kill) {
  const before = server.crashes;
  await kill();
  await recovered(server, worker, before);
}

async function atStopPoint(server, worker, feed, line) {
  const before = server.crashes;
  server.arm(line);
  await feed();
  try {
    await eventually(line, () => !server.armed, 5_000);
  } catch {
    server.arm(null);
    if (server.crashes === before) return false; // no run came by
  }
  await recovered(server, worker, before);
  return true;
}

/** Hangs for longer than the lease. Meanwhile a worker outside takes runs, and gives them back to the queue. */
async function hang(server, worker, leaseMs) {
  process.kill(worker, 'SIGSTOP');
  const end = Date.now() + leaseMs + 700;
  const woken = new Promise((resolve) => setTimeout(() => { process.kill(worker, 'SIGCONT'); resolve(); }, leaseMs + 700));
  let taken = 0;
  while (Date.now() < end) {
    const rows = await server.ask(`SELECT run_id FROM ops.claim_next_run('outside')`);
    taken += rows.length;
    if (rows.length === 0) await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await woken;
  await server.ask(`SELECT ops.reset_run(run_id, 'not for me') FROM ops.runs WHERE claimed_by = 'outside' AND status IN ('claimed', 'running')`)
    .catch((error) => { if (error.code !== '55000') throw error; }); // the worker has seen that the lease is over
  await server.worker();
  return { taken };
}

/**
 * name → {crashes: re-initialisations of the server, kill(server, worker, feed)}. `feeds`: it calls `feed`, which queues runs, by
 * itself. False when there was nothing to kill.
 */
export function ways({ leaseMs }) {
  const all = {
    'kill -9 of the worker': { crashes: 1, kill: (server, worker) => crash(server, worker, () => process.kill(worker, 'SIGKILL')) },
    'kill -9 of another backend': {
      crashes: 1,
      kill: async (server, worker) => {
        const other = await server.connect();
        const { rows: [{ pid }] } = await other.query('SELECT pg_backend_pid() AS pid');
        await crash(server, worker, () => process.kill(pid, 'SIGKILL'));
        other.end().catch(() => {});
      },
    },
    'kill -9 of the postmaster': {
      crashes: 0,
      kill: async (server, worker) => {
        const { postmaster } = server;
        process.kill(postmaster, 'SIGKILL');
        await eventually('the postmaster and the worker are gone', () => gone(postmaster) && gone(worker), 60_000);
        await server.start();
        await server.worker(worker);
      },
    },
    'immediate restart': {
      crashes: 0,
      kill: async (server, worker) => {
        server.stop('immediate');
        await server.start();
        await server.worker(worker);
      },
    },
    'pg_terminate_backend': {
      crashes: 0,
      kill: async (server, worker) => {
        await server.ask('SELECT pg_terminate_backend($1)', [worker]);
        await server.worker(worker);
      },
    },
    'SIGSTOP beyond the lease': { crashes: 0, kill: (server, worker) => hang(server, worker, leaseMs) },
  };
  for (const point of points)
    for (const action of ['kill', 'segv'])
      all[`${action} at ${point}`] = { crashes: 1, feeds: true, kill: (server, worker, feed) => atStopPoint(server, worker, feed, `${point} ${action}`) };
  return all;
}
