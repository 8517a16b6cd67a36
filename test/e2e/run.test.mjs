// Whole runs against the stand-ins: success, every phase failing, adoption, lost and late answers, limits, cancel.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { World, eventually } from './world.mjs';

let world;
before(async () => { world = await World.start(); });
after(() => world?.stop());
afterEach(() => world?.services.heal());

const accepted = (operation, key) => world.services.journal.accepted(operation).filter((e) => !key || e.key === key);
async function token(runId) {
  return (await world.phases(runId)).build_image.remembered.run_token;
}

test('a run succeeds through four phases: one dispatch, one PUT, gap-free events, artifacts with digests', async () => {
  const run = await world.perform(await world.environment('success'));
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
  const events = await world.events(run.run_id);
  assert.deepEqual(events.map((e) => e.seq), events.map((_, i) => i + 1));
  assert.ok(events.some((e) => e.message.includes('step Build and push: success')));
  const phases = await world.phases(run.run_id);
  assert.deepEqual(Object.values(phases).map((p) => p.state), Array(4).fill('succeeded'));
  const key = await token(run.run_id);
  assert.equal(accepted('actions/create-workflow-dispatch', key).length, 1);
  assert.equal(accepted('apps_update', phases.deploy_runtime.remembered.run_token).length, 1);
  assert.deepEqual(phases.deploy_runtime.outcome.previous, { odoo: 'before' });
  const { rows: artifacts } = await world.db.query('SELECT * FROM ops.artifacts WHERE run_id = $1', [run.run_id]);
  const types = artifacts.map((a) => a.artifact_type).sort();
  assert.deepEqual(types, ['build_log', 'build_log', 'evidence', 'image', 'image', 'provenance', 'sbom']);
  for (const artifact of artifacts) assert.match(artifact.digest, /^sha256:[0-9a-f]{64}$/);
  assert.deepEqual(world.services.journal.invalid(), []);
});

test('an image of the commit that exists is adopted: nothing is dispatched', async () => {
  const environment = await world.environment('adopted');
  const sha = 'a'.repeat(40);
  await world.services.registry.push('acme/adopted', [`sha-${sha}`], sha);
  const run = await world.perform(environment, sha);
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
  assert.equal((await world.phases(run.run_id)).build_image.outcome.adopted, true);
  assert.equal(accepted('actions/create-workflow-dispatch', await token(run.run_id)).length, 0);
});

test('a dispatch answered with 204 is found by its token', async () => {
  world.services.github.outcome = { plain204: true };
  const run = await world.perform(await world.environment('plain204'));
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
  assert.equal(accepted('actions/create-workflow-dispatch', await token(run.run_id)).length, 1);
});

test('F54 a dispatch whose answer is lost is looked for and not repeated', async () => {
  world.services.github.service.fault({ operation: 'actions/create-workflow-dispatch', drop: 'after' });
  const run = await world.perform(await world.environment('lost-dispatch'));
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
  assert.equal(accepted('actions/create-workflow-dispatch', await token(run.run_id)).length, 1);
  assert.ok((await world.events(run.run_id)).some((e) => e.message.includes('was found and adopted')));
});

test('F54 a PUT whose answer is lost is looked for and not repeated', async () => {
  world.services.digitalocean.service.fault({ operation: 'apps_update', drop: 'after' });
  const run = await world.perform(await world.environment('lost-put'));
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
  const put = (await world.phases(run.run_id)).deploy_runtime.remembered.run_token;
  assert.equal(accepted('apps_update', put).length, 1);
});

test('F65 lost and failing reads are repeated', async () => {
  world.services.github.service.fault({ operation: 'actions/get-workflow-run', status: 502, times: 2 });
  world.services.digitalocean.service.fault({ operation: 'apps_get', drop: 'before', times: 2 });
  const run = await world.perform(await world.environment('flaky'));
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
});

test('F62 a rate limit with Retry-After is waited for and told', async () => {
  world.services.github.service.fault({ operation: 'actions/get-workflow', status: 429, headers: { 'retry-after': '1' }, body: '{"message":"slow down"}' });
  const run = await world.perform(await world.environment('limited'));
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
  assert.ok((await world.events(run.run_id)).some((e) => e.level === 'warn' && e.message.includes('rate limited')));
});

test('a failing build names job, step and URL; later phases are skipped', async () => {
  world.services.github.outcome = { conclusion: 'failure', failingStep: 'Build and push' };
  const run = await world.perform(await world.environment('build-fails'));
  assert.equal(run.status, 'failed');
  const error = await world.error(run.run_id);
  assert.equal(error.payload.code, 'build_failed');
  assert.match(error.message, /job build failure in step Build and push \(https:\/\/github\.example/);
  const phases = await world.phases(run.run_id);
  assert.deepEqual(Object.values(phases).map((p) => p.state), ['failed', 'skipped', 'skipped', 'skipped']);
});

test('a digest that differs between build result and registry is refused', async () => {
  world.services.github.outcome = { wrongDigest: `sha256:${'0'.repeat(64)}` };
  const run = await world.perform(await world.environment('wrong-digest'));
  assert.equal(run.status, 'failed');
  assert.equal((await world.error(run.run_id)).payload.code, 'digest_mismatch');
});

test('a build of another commit is refused', async () => {
  world.services.github.outcome = { wrongSha: 'b'.repeat(40) };
  const run = await world.perform(await world.environment('wrong-sha'));
  assert.equal((await world.error(run.run_id)).payload.code, 'wrong_commit');
});

test('a failing deployment shows the deepest reason', async () => {
  world.services.digitalocean.outcome = { phase: 'ERROR', reason: { code: 'ContainerExited', message: 'exit code 1' } };
  const run = await world.perform(await world.environment('deploy-fails'));
  assert.equal(run.status, 'failed');
  const error = await world.error(run.run_id);
  assert.equal(error.payload.code, 'deployment_failed');
  assert.match(error.message, /deploy\/components\/odoo: ContainerExited: exit code 1/);
});

test('an unknown component is refused before anything is changed', async () => {
  const run = await world.perform(await world.environment('component', { digitalocean: { components: ['odooo'] } }));
  const error = await world.error(run.run_id);
  assert.equal(error.payload.code, 'component_unknown');
  assert.match(error.payload.hint, /odoo, mailer/);
});

test('a wrong version fails the smoke tests with expected and found', async () => {
  world.services.odoo.version = '18.0';
  const run = await world.perform(await world.environment('smoke-fails', { smoke: { timeout: '300 ms' } }));
  assert.equal(run.status, 'failed');
  const error = await world.error(run.run_id);
  assert.equal(error.payload.code, 'smoke_failed');
  assert.match(error.message, /expected Odoo 19\.0, found 18\.0/);
});

test('a run waits for a missing secret and goes on when it is there', async () => {
  const runId = await world.queue(await world.environment('secret', { digitalocean: { credential: 'later' } }));
  await eventually('the run waits', async () =>
    (await world.db.query('SELECT waiting_for FROM ops.runs WHERE run_id = $1', [runId])).rows[0].waiting_for === 'secret:later');
  world.services.secrets.later = world.services.secrets.digitalocean;
  const { execFileSync } = await import('node:child_process');
  const owner = (flag) => Number(execFileSync('id', [flag, process.env.OPS_SERVER_USER]).toString());
  world.services.writeSecrets(process.env.OPS_SECRETS, owner('-u'), owner('-g'));
  const run = await world.finished(runId);
  assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
  assert.equal(accepted('actions/create-workflow-dispatch', await token(runId)).length, 1);
});

test('GitHub App: installation tokens are used and appear in no table', async () => {
  const run = await world.perform(await world.environment('app', { github: { auth: 'app', credential: 'github_app' } }));
  assert.equal(run.status, 'success', JSON.stringify(await world.error(run.run_id)));
  assert.ok(accepted('apps/create-installation-access-token').length > 0);
});

test('F77 cancel of a running build reaches GitHub and is followed to its end', async () => {
  world.services.github.outcome = { neverEnds: true };
  const runId = await world.queue(await world.environment('cancel-build'));
  await eventually('the build is dispatched', async () => (await world.events(runId)).some((e) => e.message.includes('dispatched')));
  await world.db.query('SELECT ops.cancel_run($1, $2)', [runId, 'wrong commit']);
  const run = await world.finished(runId);
  assert.equal(run.status, 'cancelled');
  assert.equal(accepted('actions/cancel-workflow-run', await token(runId)).length, 1);
  assert.ok((await world.events(runId)).some((e) => /workflow run \d+ ended as cancelled/.test(e.message)));
});

test('F77 cancel of a running deployment reaches DigitalOcean and is followed to its end', async () => {
  world.services.digitalocean.outcome = { neverEnds: true };
  const runId = await world.queue(await world.environment('cancel-deploy'));
  await eventually('the deployment is started', async () => (await world.events(runId)).some((e) => e.message.includes('deployment is DEPLOYING')));
  await world.db.query('SELECT ops.cancel_run($1)', [runId]);
  const run = await world.finished(runId);
  assert.equal(run.status, 'cancelled');
  assert.ok((await world.events(runId)).some((e) => e.message.includes('ended as CANCELED')));
});

test('F67 a phase that never ends is stopped at its deadline', async () => {
  world.services.github.outcome = { neverEnds: true };
  const environment = await world.environment('deadline', { phases: [{ name: 'build_image', kind: 'github_workflow', timeout: '1 s' }] });
  const run = await world.perform(environment);
  assert.equal(run.status, 'failed');
  assert.equal((await world.error(run.run_id)).payload.code, 'timed_out');
  assert.equal(accepted('actions/cancel-workflow-run', await token(run.run_id)).length, 1);
});

test('a log of 500 MB goes through a file: the memory of the worker stays flat', async () => {
  const { readFileSync } = await import('node:fs');
  const { rows } = await world.db.query('SELECT pid FROM ops.worker_status');
  const peak = () => Number(readFileSync(`/proc/${rows[0].pid}/status`, 'utf8').match(/VmHWM:\s+(\d+) kB/)[1]);
  const before = peak();
  world.services.github.outcome = { logBytes: 500e6 };
  const runId = await world.queue(await world.environment('large-log'));
  const run = await world.finished(runId, '2 min');
  assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
  const { rows: logs } = await world.db.query(`SELECT size_bytes FROM ops.artifacts WHERE run_id = $1 AND artifact_type = 'build_log'`, [runId]);
  // Colours and tokens are gone, so the stored log is smaller than what came.
  for (const log of logs) assert.ok(log.size_bytes > 250e6, `only ${log.size_bytes} bytes were kept`);
  assert.ok(peak() - before < 30_000, `the worker grew by ${peak() - before} kB`);
});

test('T18 secrets are in no table, event or log', async () => {
  const { rows } = await world.db.query(`SELECT (SELECT string_agg(e::text, ' ') FROM ops.run_events e) || (SELECT string_agg(p::text, ' ') FROM ops.run_phases p)
    || (SELECT string_agg(r::text, ' ') FROM ops.runs r) || coalesce((SELECT string_agg(f::text, ' ') FROM ops.effects f), '') AS everything`);
  const { readFileSync } = await import('node:fs');
  const everything = rows[0].everything + readFileSync(process.env.OPS_SERVER_LOG, 'utf8');
  for (const [name, value] of Object.entries(world.services.secrets)) {
    const bare = value.startsWith('{') ? (JSON.parse(value).password ?? JSON.parse(value).private_key?.slice(60, 120)) : value;
    if (bare) assert.ok(!everything.includes(bare), `secret ${name} is shown`);
  }
  assert.ok(!/sig=[0-9a-f]{8}-/.test(everything), 'a signed URL is shown');
});

test('every request of all runs was valid against the official descriptions', () => {
  assert.deepEqual(world.services.journal.invalid(), []);
});
