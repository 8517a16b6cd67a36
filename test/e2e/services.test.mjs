// Services that are down, late, forgetful or full of doubt about us: faults F50, F61, F63 to F66 and F68.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { startServer, stopServer } from './server_process.mjs';
import { World, client, eventually } from './world.mjs';

let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());
afterEach(() => world?.services.heal());

const entries = (operation) => world.services.journal.entries.filter((e) => e.operation === operation);
const buildOnly = { phases: [{ name: 'build_image', kind: 'github_workflow' }] };
const withApp = { github: { auth: 'app', credential: 'github_app' }, ...buildOnly };

async function succeeded(runId, timeout) {
  const run = await world.finished(runId, timeout);
  assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
}
async function failedWith(runId, code) {
  assert.equal((await world.finished(runId)).status, 'failed');
  const error = await world.error(runId);
  assert.equal(error.payload.code, code, error.message);
  return error;
}
async function queue(name, changes) {
  return world.queue(await world.environment(name, changes));
}
async function acceptedOf(runId, operation, phase) {
  const { remembered } = (await world.phases(runId))[phase];
  return world.services.journal.accepted(operation).filter((e) => e.key === remembered.run_token).length;
}

// First: later an installation token is kept and nothing is signed.
test('F50 a refusal by a service whose clock is ten minutes away says "clock"', async () => {
  for (const [minutes, word] of [[-10, 'ahead of'], [10, 'behind']]) {
    world.services.github.clockOffsetMs = minutes * 60_000;
    const error = await failedWith(await queue(`clock${minutes + 10}`, withApp), 'github_denied');
    assert.match(error.message, new RegExp(`clock of this server is (59\\d|60\\d) s ${word} the service's clock`));
  }
  const date = new Date(Date.now() - 600_000).toUTCString();
  world.services.digitalocean.service.fault({ operation: 'apps_get', status: 401, headers: { date }, body: '{}' });
  assert.match((await failedWith(await queue('clock-do'), 'digitalocean_denied')).message, /clock/);
  world.services.registry.service.fault({ operation: 'registry', status: 403, headers: { date }, body: '{}' });
  assert.match((await failedWith(await queue('clock-registry'), 'registry_denied')).message, /clock/);
});

test('F50 a signed token of ours is back-dated: a service whose clock is half a minute behind takes it', async () => {
  world.services.github.clockOffsetMs = -30_000;
  await succeeded(await queue('skew', withApp));
});

test('F61 a refused token is not tried again', async () => {
  world.services.github.service.fault({ operation: 'actions/get-workflow', status: 401, times: 1000, body: '{"message":"Bad credentials"}' });
  const before = entries('actions/get-workflow').length;
  await failedWith(await queue('bad-token'), 'github_denied');
  assert.equal(entries('actions/get-workflow').length - before, 1);
  world.services.heal();
  world.services.digitalocean.service.fault({ operation: 'apps_get', status: 403, times: 1000, body: '{"message":"no"}' });
  const gets = entries('apps_get').length;
  await failedWith(await queue('bad-do-token'), 'digitalocean_denied');
  assert.equal(entries('apps_get').length - gets, 1);
});

test('F61 ten runs at once show a bad token a handful of times; those that wait go on when it is replaced', async () => {
  await world.configure({ 'ops_runner.retry_delay': '200ms' });
  const refusals = () => world.services.journal.entries.filter((e) => e.service === 'github' && e.status === 401).length;
  const before = refusals();
  world.writeSecrets({ rotated: 'ghp_expired' });
  const ids = await Promise.all(Array.from({ length: 10 }, (_, i) => queue(`rotated-${i}`, { github: { credential: 'rotated' }, ...buildOnly })));
  const found = async (sql) => (await world.db.query(sql, [ids])).rows.map((row) => row.run_id);
  const waiting = () => found(`SELECT DISTINCT run_id FROM ops.run_events WHERE run_id = ANY ($1) AND message LIKE '%has refused the secret "rotated"%'`);
  const failed = () => found(`SELECT run_id FROM ops.runs WHERE run_id = ANY ($1) AND status = 'failed'`);
  await eventually('all others wait and say so', async () => (await waiting()).length + (await failed()).length === ids.length);
  assert.ok(refusals() - before <= 3, `${refusals() - before} refusals`);
  world.writeSecrets({ rotated: world.services.github.token });
  const replaced = Date.now();
  for (const id of await waiting()) await succeeded(id);
  assert.ok(Date.now() - replaced < 10_000, `the last run ended ${Date.now() - replaced} ms after the token was replaced`);
  assert.ok(refusals() - before <= 3, `${refusals() - before} refusals`);
  await world.configure({ 'ops_runner.retry_delay': '20ms' });
});

test('F61 an installation token that is refused is renewed once; then the run fails', async () => {
  const fault = { operation: 'actions/get-workflow', status: 401, body: '{"message":"Bad credentials"}' };
  world.services.github.service.fault({ ...fault, times: 1 });
  const exchanges = () => entries('apps/create-installation-access-token').length;
  let before = exchanges();
  await succeeded(await queue('app-renewed', withApp));
  assert.ok(exchanges() - before >= 1 && exchanges() - before <= 2, `${exchanges() - before} exchanges`);
  world.services.github.service.fault({ ...fault, times: 1000 });
  before = exchanges();
  const asked = entries('actions/get-workflow').length;
  await failedWith(await queue('app-refused', withApp), 'github_denied');
  assert.equal(exchanges() - before, 1);
  assert.equal(entries('actions/get-workflow').length - asked, 2);
});

test('I51 an installation token that has ended is not used', async () => {
  const fault = { operation: 'apps/create-installation-access-token', status: 201, headers: { 'content-type': 'application/json' },
                  body: JSON.stringify({ token: 'ghs_old', expires_at: new Date(Date.now() - 60_000).toISOString(), permissions: {} }) };
  await world.db.query('SELECT pg_terminate_backend(pid) FROM ops.worker_status'); // tokens are kept in its memory
  world.services.github.service.fault(fault);
  const asked = entries('actions/get-workflow').length;
  assert.match((await failedWith(await queue('app-ended', withApp), 'bad_response')).message, /installation token that ended at/);
  assert.equal(entries('actions/get-workflow').length, asked);
});

test('F61 an installation token that is revoked right before a dispatch is renewed and the dispatch sent once more', async () => {
  world.services.github.service.fault({ operation: 'actions/create-workflow-dispatch', status: 401, times: 1, body: '{"message":"Bad credentials"}' });
  const runId = await queue('app-revoked', withApp);
  await succeeded(runId);
  assert.equal(await acceptedOf(runId, 'actions/create-workflow-dispatch', 'build_image'), 1);
  assert.equal((await world.effects(runId)).dispatch.attempt, 2);
  world.services.github.service.fault({ operation: 'actions/create-workflow-dispatch', status: 401, times: 1000, body: '{"message":"Bad credentials"}' });
  const refused = await queue('app-revoked-for-good', withApp);
  await failedWith(refused, 'github_denied');
  const { dispatch } = await world.effects(refused);
  assert.deepEqual([dispatch.attempt, dispatch.state], [2, 'absent']);
});

test('F63 a workflow run that is deleted while it is followed is gone', async () => {
  world.services.github.outcome = { neverEnds: true };
  const runId = await queue('gone-run');
  const { workflow_run_id: id } = await eventually('the run is followed', async () => {
    const { remembered } = (await world.phases(runId)).build_image;
    return remembered?.run_seen && (await world.effects(runId)).dispatch.outcome;
  });
  world.services.github.runs.delete(Number(id));
  const error = await failedWith(runId, 'gone');
  assert.match(error.message, new RegExp(`workflow run ${id}`));
});

test('F63 a deployment that is deleted while it is followed is gone', async () => {
  world.services.digitalocean.outcome = { neverEnds: true };
  const environment = await world.environment('gone-deployment');
  const runId = await world.queue(environment);
  const { deployment_id: id } = await eventually('the deployment is followed', async () =>
    (await world.phases(runId)).deploy_runtime.remembered?.deployment_seen && (await world.effects(runId)).put_app.outcome);
  for (const app of world.services.digitalocean.apps.values()) app.deployments = app.deployments.filter((d) => d.id !== id);
  const error = await failedWith(runId, 'gone');
  assert.match(error.message, new RegExp(`deployment ${id}`));
});

test('F64 "it is being deployed already" in answer to a repeated PUT is our own first try', async () => {
  world.services.digitalocean.outcome = { visibleAfterMs: 1200, refusesTwins: true };
  world.services.digitalocean.service.fault({ operation: 'apps_update', drop: 'after' });
  const runId = await queue('twins', { digitalocean: { search_window: '800 ms' } });
  await succeeded(runId);
  assert.equal(await acceptedOf(runId, 'apps_update', 'deploy_runtime'), 1);
  assert.equal((await world.effects(runId)).put_app.attempt, 2, 'the PUT was repeated once');
});

test('F65 in a storm of errors few requests go out; no run fails and all go on soon after', async () => {
  const stormy = 2500;
  world.services.github.service.fault({ status: 503, times: 1e9, body: 'unavailable' });
  const ids = [];
  for (let i = 0; i < 10; ++i) ids.push(await queue(`storm-${i}`, buildOnly));
  const asked = () => world.services.journal.entries.filter((e) => e.service === 'github' && e.status === 503).length;
  await eventually('the storm has begun', () => asked() >= ids.length);
  const end = Date.now() + stormy;
  await eventually('the storm is over', () => Date.now() >= end, stormy + 5000);
  const during = asked();
  world.services.heal();
  const recovered = Date.now();
  // One probe each ten retry delays (200 ms), and the first tries of each run.
  assert.ok(during <= 5 * ids.length + (stormy / 200) * 2, `${during} requests during the storm`);
  for (const id of ids) await succeeded(id);
  assert.ok(Date.now() - recovered < 15_000, `the last run ended ${Date.now() - recovered} ms after the storm`);
  const { rows } = await world.db.query(`SELECT count(DISTINCT run_id)::int AS told FROM ops.run_events WHERE message LIKE '%fails for everybody%'`);
  assert.ok(rows[0].told > 0, 'nobody was told');
});

test('F66 a run list and a run that show late are waited for', async () => {
  world.services.github.outcome = { listAfterMs: 1500 };
  world.services.github.service.fault({ operation: 'actions/create-workflow-dispatch', drop: 'after' });
  const listed = await queue('late-list', buildOnly);
  await succeeded(listed);
  assert.equal(await acceptedOf(listed, 'actions/create-workflow-dispatch', 'build_image'), 1);
  world.services.github.outcome = { visibleAfterMs: 800 };
  const seen = await queue('late-run', buildOnly);
  await succeeded(seen);
  assert.equal(await acceptedOf(seen, 'actions/create-workflow-dispatch', 'build_image'), 1);
});

test('F68 what ended while the server was down for a day is picked up without a second start', async () => {
  const { github, digitalocean } = world.services;
  const day = 86_400_000;
  github.outcome = { neverEnds: true };
  const building = await queue('down-build');
  await eventually('the build runs', async () => (await world.phases(building)).build_image.remembered?.run_seen);
  github.outcome = {};
  digitalocean.outcome = { neverEnds: true };
  const deploying = await queue('down-deploy');
  await eventually('the deployment runs', async () => (await world.phases(deploying)).deploy_runtime.remembered?.deployment_seen);
  digitalocean.outcome = {};
  await world.db.end();
  stopServer();
  for (const run of github.runs.values()) Object.assign(run, { createdAt: run.createdAt - day, outcome: {} });
  for (const app of digitalocean.apps.values())
    for (const deployment of app.deployments) Object.assign(deployment, { createdAt: deployment.createdAt - day, outcome: {} });
  startServer();
  world.db = await client();
  for (const id of [building, deploying]) {
    await succeeded(id);
    assert.equal(await acceptedOf(id, 'actions/create-workflow-dispatch', 'build_image'), 1);
    assert.equal(await acceptedOf(id, 'apps_update', 'deploy_runtime'), 1);
  }
});

test('every request was valid', () => {
  assert.deepEqual(world.services.journal.invalid(), []);
});
