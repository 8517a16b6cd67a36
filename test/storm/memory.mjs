// Memory of the worker: memory.mjs RUNS, inside test/run/with_server.sh. A fifth of the runs fails, in several ways; after a
// warm-up the worker may grow by 10 MB at most. The last line is `memory: N runs, N failed, N kB`.
import { readFileSync } from 'node:fs';
import { World, eventually } from '../e2e/world.mjs';

const wanted = Number(process.argv[2]);
const warmUp = Math.ceil(wanted / 4);
const mostKilobytes = 10_240;

const world = await World.start();

// One phase each; the checks of the failing ones never pass.
const phases = [{ name: 'smoke', kind: 'odoo_smoke' }];
const smoke = { timeout: '1 ms', interval: '1 ms', consecutive_passes: 1, checks: [] };
const failing = { ...smoke, checks: [{ path: '/missing', status: 200 }] };
const kinds = [
  ...Array.from({ length: 8 }, () => ({ smoke })),
  { smoke: failing },
  { github: { workflow: 'missing.yml' }, phases: [{ name: 'build', kind: 'github_workflow' }] },
];
for (const [i, kind] of kinds.entries()) await world.environment(`memory-${i}`, { phases, max_active_runs: 10, ...kind });

const pid = (await world.db.query('SELECT pid FROM ops.worker_status')).rows[0].pid;
const kilobytes = () => Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/RssAnon:\s+(\d+) kB/)[1]);

/** Queues and waits: environments in turn, so that every tenth run is of one kind. */
async function perform(runs) {
  await world.db.query(`INSERT INTO ops.runs (project_id, env_id, git_sha, git_ref)
    SELECT 'acme', 'memory-' || i % ${kinds.length}, 'abcdef0', 'main' FROM generate_series(1, $1::int) i`, [runs]);
  await eventually(`${runs} runs end`, async () =>
    (await world.db.query('SELECT NOT EXISTS (SELECT FROM ops.run_queue) AND NOT EXISTS (SELECT FROM ops.run_slots) AS over')).rows[0].over, 30 * 60_000);
}

const begin = Date.now();
await perform(warmUp);
const before = kilobytes();
await perform(wanted);
const grown = kilobytes() - before;
const { rows } = await world.db.query(`SELECT count(*)::int AS runs, count(*) FILTER (WHERE status = 'failed')::int AS failed, count(*) FILTER (WHERE status = 'success')::int AS success FROM ops.runs`);
const [{ runs, failed, success }] = rows;
const { rows: codes } = await world.db.query(`SELECT payload ->> 'code' AS code, count(*)::int FROM ops.run_events WHERE level = 'error' AND phase IS NOT NULL GROUP BY 1 ORDER BY 1`);
const { rows: [{ pid: still }] } = await world.db.query('SELECT pid FROM ops.worker_status');
console.log(`# ${((Date.now() - begin) / 1000).toFixed(0)} s; ${before} kB after ${warmUp} runs, ${before + grown} kB after ${runs}; failures: ${codes.map((row) => `${row.count} ${row.code}`).join(', ')}`);
let wrong = 0;
function check(good, what) {
  if (!good) ++wrong;
  console.log(`${good ? 'ok' : 'not ok'} - ${what}`);
}
check(grown <= mostKilobytes, `the worker grew by ${grown} kB`);
check(failed === runs / 5 && success === runs - failed, `${failed} of ${runs} runs failed, ${success} succeeded`);
check(still === pid, 'it was one worker all the time');
console.log(`memory: ${wanted} runs, ${failed} failed, ${grown} kB`);
await world.stop();
process.exit(wrong ? 1 : 0);
