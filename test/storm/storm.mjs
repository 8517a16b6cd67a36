// Kill storm: storm.mjs KILLS RUNS, inside test/run/with_server.sh with the build for tests.
//
// Runs are queued while worker and server are killed in every way of kills.mjs, then the database is compared with the journals
// of the stand-ins. The last line is `storm: N kills, N runs, N lost, N doubled, N stuck`; OPS_SEED repeats a storm's choices.
import { World } from '../e2e/world.mjs';
import { quickDirectory } from '../services/index.mjs';
import { Server } from './server.mjs';
import { ways } from './kills.mjs';

const [kills, wantedRuns] = process.argv.slice(2).map(Number);
const leaseMs = 3000;
const environments = 24;
const seed = Number(process.env.OPS_SEED ?? Date.now() % 1e9);
let state = seed;
const random = () => { // mulberry32
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
};
const chance = (probability) => random() < probability;
const pick = (list) => list[Math.floor(random() * list.length)];

const world = await World.start({ stateDir: quickDirectory() });
const server = new Server();
const { services } = world;
await world.configure({ 'ops_runner.lease': `${leaseMs} ms`, 'ops_runner.max_concurrent_runs': 16 });
const changes = { github: { search_window: '3 s' }, digitalocean: { search_window: '3 s' } };
const short = { ...changes, phases: [{ name: 'build_image', kind: 'github_workflow' }, { name: 'deploy_runtime', kind: 'digitalocean_app', needs: ['build_image'] }] };
for (let i = 0; i < environments; ++i) await world.environment(`storm-${i}`, i % 3 ? short : changes);
await world.db.end();

// Runs ---------------------------------------------------------------------------------------------------------------

const queued = [];
let rolledBack = 0;
let cancels = 0;

/** Queues one more; a lost answer is asked for again with the same key. */
async function queue() {
  const sha = Array.from({ length: 40 }, () => '0123456789abcdef'[Math.floor(random() * 16)]).join('');
  const [row] = await server.ask('SELECT run_id FROM ops.queue_run($1, $2, $3, $4, p_idempotency_key => $5)',
                                 ['acme', `storm-${Math.floor(random() * environments)}`, sha, 'main', `key-${queued.length}`]);
  queued.push(row.run_id);
}

/** A request that is taken back: nothing of it may ever happen. */
async function queueAndRollBack() {
  const connection = await server.connect();
  try {
    await connection.query('BEGIN');
    await connection.query(`SELECT ops.queue_run('acme', 'storm-0', 'dead00${String(rolledBack).padStart(8, '0')}', 'main')`);
    await connection.query('ROLLBACK');
    ++rolledBack;
  } finally {
    await connection.end();
  }
}

async function cancelOne() {
  if (queued.length === 0) return;
  await server.ask('SELECT ops.cancel_run($1)', [pick(queued.slice(-environments))]).then(() => ++cancels, (error) => {
    if (error.code !== '55000') throw error; // it is over already
  });
}

// Storm --------------------------------------------------------------------------------------------------------------

const all = ways({ leaseMs });
const tally = {}; // how often each way was used
let crashes = 0;
let taken = 0; // claims of a worker outside while ours hung
let done = 0;
const moments = []; // of the kills
let pool = [];
const begin = Date.now();
while (done < kills) {
  if (pool.length === 0) pool = Object.keys(all).map((name) => [random(), name]).sort().map(([, name]) => name); // each way once
  const name = pool.pop();
  const feed = async () => {
    while (queued.length < Math.ceil(((done + 1) / kills) * wantedRuns)) await queue();
  };
  if (!all[name].feeds) await feed();
  if (chance(0.3)) await queueAndRollBack();
  if (chance(0.3)) await cancelOne();
  // A kill comes at any moment: after up to half a second of work.
  await new Promise((resolve) => setTimeout(resolve, random() * 500));
  const worker = await server.worker();
  moments.push(Date.now());
  const outcome = await all[name].kill(server, worker, feed);
  if (outcome === false) continue;
  taken += outcome?.taken ?? 0;
  crashes += all[name].crashes;
  tally[name] = (tally[name] ?? 0) + 1;
  ++done;
  if (done % 50 === 0) console.log(`# ${done} kills, ${queued.length} runs queued, ${((Date.now() - begin) / 1000).toFixed(0)} s`);
}
const stormSeconds = (Date.now() - begin) / 1000;

/** Runs that are not over: when their number stays the same for a minute they are stuck. */
async function settle() {
  let left = Infinity;
  let changed = Date.now();
  let parked = 0;
  for (;;) {
    const poisoned = await server.ask(`SELECT ops.reset_run(run_id, 'by the storm') FROM ops.runs WHERE waiting_for = 'poisoned'`);
    parked += poisoned.length;
    const [{ count }] = await server.ask(`SELECT count(*)::int FROM ops.runs WHERE status NOT IN ('success', 'failed', 'cancelled')`);
    if (count < left) { left = count; changed = Date.now(); }
    if (count === 0 || Date.now() - changed > 60_000) return { stuck: count, parked };
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
const { stuck, parked } = await settle();

// Judgement ----------------------------------------------------------------------------------------------------------

const known = new Set((await server.ask('SELECT run_id FROM ops.runs')).map((row) => row.run_id));
const lost = queued.filter((id) => !known.has(id)).length;
const tokens = new Set((await server.ask(`SELECT remembered ->> 'run_token' AS token FROM ops.run_phases WHERE remembered ? 'run_token'`)).map((row) => row.token));
const effects = new Map();
for (const operation of ['actions/create-workflow-dispatch', 'apps_update'])
  for (const { key } of services.journal.accepted(operation)) effects.set(`${operation} ${key}`, { key, times: (effects.get(`${operation} ${key}`)?.times ?? 0) + 1 });
const doubled = [...effects.values()].filter((effect) => effect.times > 1).length;
const ownerless = [...effects.values()].filter((effect) => !tokens.has(effect.key)).length;
const statuses = await server.ask('SELECT status, count(*)::int FROM ops.runs GROUP BY status ORDER BY status');
const failed = await server.ask(`SELECT e.run_id, e.message FROM ops.run_events e JOIN ops.runs r USING (run_id) WHERE r.status = 'failed' AND e.level = 'error' LIMIT 20`);
const [{ gaps }] = await server.ask(`SELECT count(*)::int AS gaps FROM ops.runs r LEFT JOIN (SELECT run_id, count(*) AS events, min(seq) AS first, max(seq) AS last FROM ops.run_events GROUP BY run_id) e USING (run_id)
  WHERE (1, e.events) IS DISTINCT FROM (e.first, e.last)`);

const reinitialised = server.crashes;
// From the moment the server accepts connections to the first run that is taken over.
const takeovers = (await server.ask(`SELECT extract(epoch FROM created_at)::float8 * 1000 AS at FROM ops.run_events WHERE message LIKE 'taken over by worker%' ORDER BY created_at`)).map((row) => row.at);
const resumes = [];
for (const start of server.starts.slice(1)) {
  const nextKill = moments.find((at) => at > start) ?? Infinity; // what is taken over later belongs to that
  const first = takeovers.find((at) => at >= start && at < nextKill);
  if (first !== undefined) resumes.push(first - start);
}
resumes.sort((a, b) => a - b);
const share = (part) => (resumes[Math.min(resumes.length - 1, Math.floor(resumes.length * part))] / 1000).toFixed(2);

for (const [name, times] of Object.entries(tally)) console.log(`#   ${String(times).padStart(4)} ${name}`);
console.log(`# seed ${seed}; ${stormSeconds.toFixed(0)} s of storm, ${((Date.now() - begin) / 1000).toFixed(0)} s in all; ${services.journal.entries.length} requests, ${effects.size} effects; ` +
  `${statuses.map((row) => `${row.count} ${row.status}`).join(', ')}; ${cancels} cancels, ${rolledBack} requests rolled back, ${parked} parked, ${taken} claims while the worker hung`);
console.log(`# resume after ${resumes.length} restarts with runs in progress: median ${share(0.5)} s, 95 % ${share(0.95)} s, longest ${share(1)} s`);
for (const row of failed) console.log(`# failed ${row.run_id}: ${row.message}`);
let wrong = 0;
function check(good, what) {
  if (!good) ++wrong;
  console.log(`${good ? 'ok' : 'not ok'} - ${what}`);
}
check(lost === 0, `${lost} of ${queued.length} runs lost`);
check(known.size === queued.length, `${known.size - queued.length + lost} runs nobody asked for`);
check(doubled === 0, `${doubled} effects doubled`);
check(ownerless === 0, `${ownerless} effects of no run`);
check(stuck === 0, `${stuck} runs stuck`);
check(failed.length === 0, 'no run failed');
check(gaps === 0, `${gaps} runs with gaps in their events`);
check(reinitialised === crashes, `${reinitialised} re-initialisations of the server, ${crashes} of them ours`);
check(services.journal.invalid().length === 0, 'every request was valid');
check(resumes.length > 0 && resumes.at(-1) < 10_000, 'runs go on soon after a restart');
console.log(`storm: ${done} kills, ${queued.length} runs, ${lost} lost, ${doubled} doubled, ${stuck} stuck`);
await server.close();
await services.stop();
process.exit(wrong ? 1 : 0);
