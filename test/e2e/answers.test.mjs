// What services answer, through the real worker: every line of bad_answers.mjs, and the inputs that need more than a line.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http2 from 'node:http2';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { HttpService } from '../services/http_service.mjs';
import { Authority, Http2Front } from '../services/tls.mjs';
import { badAnswers } from './bad_answers.mjs';
import { World, eventually } from './world.mjs';

let world;
let files;
let h2;
let canary; // not in allowed_hosts
let elsewhere; // in allowed_hosts, but no home of any credential
let worker;
const called = { canary: [], elsewhere: [] };

before(async () => {
  files = mkdtempSync(path.join(tmpdir(), 'ops_answers.'));
  chmodSync(files, 0o755);
  const authority = new Authority(files, 'known');
  h2 = await new Http2Front(authority.issue('IP:127.0.0.1')).start();
  const listener = (name) => new HttpService(name, { add() {} }, (request) => {
    called[name].push(request);
    return { status: 200, body: {} };
  });
  [canary, elsewhere] = [listener('canary'), listener('elsewhere')];
  await canary.start();
  await elsewhere.start();
  world = await World.start({ allowedHosts: [h2.url, elsewhere.url], settings: { 'ops_runner.ca_file': authority.file } });
  h2.target = world.services.urls.github;
  worker = await status();
});
after(async () => {
  await world?.stop();
  h2?.stop();
  await canary?.stop();
  await elsewhere?.stop();
  rmSync(files, { recursive: true, force: true });
});

async function status() {
  const pid = await world.workerPid();
  return { pid, peakKb: Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmHWM:\s+(\d+) kB/)[1]) };
}

/** A run of a project, repository, image and app of its own, so that faults can be aimed at it alone. */
async function queue(name, changes = {}) {
  const config = world.services.environment(name, { github: { search_window: '300 ms', ...changes.github }, registry: changes.registry ?? {} });
  await world.db.query(`INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version) VALUES ($1, $1, 'acme/' || $1, '19.0')`, [name]);
  await world.db.query(`INSERT INTO ops.environments (env_id, project_id, env_type, config) VALUES ($1, $1, 'staging', $2)`, [name, config]);
  const paths = { github: `/repos/acme/${name}/`, registry: `/v2/acme/${name}/`, digitalocean: `/v2/apps/${config.digitalocean.app_id}` };
  return {
    paths, fault: (service, fault) => world.services[service].service.fault({ path: paths[service], ...fault }),
    start: async () => (await world.db.query('SELECT run_id FROM ops.queue_run($1, $1, $2, $3)', [name, '0123456789abcdef0123456789abcdef01234567', 'main'])).rows[0].run_id,
  };
}

/** Requests of one run; `operation` as the stand-ins call them. */
const requestsOf = (paths, operation) => world.services.journal.entries.filter((e) => e.operation === operation && Object.values(paths).some((p) => e.path.startsWith(p)));

async function expect(runId, expected) {
  const { status: ending } = await world.finished(runId);
  const error = await world.error(runId);
  const told = JSON.stringify(error);
  if (expected === 'success') {
    assert.equal(ending, 'success', told);
    return;
  }
  assert.equal(ending, 'failed', told);
  assert.equal(error.payload.code, expected.code ?? expected, told);
  if (expected.message) assert.match(error.message, expected.message);
  assert.ok(error.payload.hint, 'the error says what to do');
  assert.ok((error.payload.body_start ?? '').length <= 200 && !/ghp_aaa/.test(told), told);
}

const rows = badAnswers('http://127.0.0.1:9/canary');
const started = new Map();
test('bad answers: all runs are queued', async () => {
  const lines = badAnswers(canary.url);
  for (const [i, [name, service, operation, fault]] of lines.entries()) {
    const run = await queue(`row${i}`);
    // The token route knows no image: its scope does.
    run.fault(service, { operation, ...fault, ...(operation === 'token' && { path: encodeURIComponent(`acme/row${i}:`) }) });
    started.set(name, { run, runId: await run.start(), expected: lines[i][4] });
  }
});
for (const [name] of rows)
  test(name, async () => {
    const { runId, expected, run } = started.get(name);
    await expect(runId, expected);
    assert.ok(requestsOf(run.paths, 'actions/create-workflow-dispatch').filter((e) => e.status < 300 && !e.fault).length <= 1, 'dispatched twice');
    assert.equal(called.canary.length, 0, 'a host that is not listed was called');
  });

test('I44 pages without end, pages that lead back and pages elsewhere', async () => {
  const jobs = (link) => ({ status: 200, body: { total_count: 1e9, jobs: [] }, headers: link ? { link: `<${link}>; rel="next"` } : {} });
  const page = (request) => Number(new URL(request.url, 'http://x').searchParams.get('page') ?? 1);
  const { github } = world.services.urls;
  const cases = {
    endless: (request) => jobs(`${github}${request.url.split('?')[0]}?page=${page(request) + 1}`),
    back: (request) => jobs(`${github}${request.url}`),
    elsewhere: () => jobs(`${elsewhere.url}/jobs`),
  };
  const asked = {};
  for (const [name, answer] of Object.entries(cases)) {
    const run = await queue(`pages-${name}`);
    asked[name] = [];
    run.fault('github', { operation: 'actions/list-jobs-for-workflow-run', times: 1e9, answer: (request) => (asked[name].push(page(request)), answer(request)) });
    await expect(await run.start(), 'success');
  }
  assert.equal(Math.max(...asked.endless), 100);
  assert.ok(asked.back.length < 50, `${asked.back.length} requests`);
  assert.equal(called.elsewhere.length, 0);
});

test('I45 of two workflow runs with our token the older is kept and the other is cancelled', async (t) => {
  t.after(() => { world.services.github.outcome = {}; });
  world.services.github.outcome = { twins: true };
  const run = await queue('twins');
  run.fault('github', { operation: 'actions/create-workflow-dispatch', drop: 'after' });
  const runId = await run.start();
  await expect(runId, 'success');
  const twins = [...world.services.github.runs.values()].filter((r) => r.repo === 'acme/twins');
  assert.deepEqual(twins.map((r) => Boolean(r.cancelledAt)), [false, true]);
  assert.ok((await world.events(runId)).some((event) => event.message.includes('second run with our token')));
});

test('I45 where both workflow runs with our token have succeeded a person decides which one counts', async (t) => {
  t.after(() => { world.services.github.outcome = {}; });
  for (const how of ['lost', 'plain204']) {
    world.services.github.outcome = { twins: true, listEnded: true, plain204: how === 'plain204' };
    const run = await queue(`decided-${how}`, { github: { search_window: '20 s' } });
    if (how === 'lost') run.fault('github', { operation: 'actions/create-workflow-dispatch', drop: 'after' });
    const runId = await run.start();
    const row = async () => (await world.db.query('SELECT status, waiting_for FROM ops.runs WHERE run_id = $1', [runId])).rows[0];
    await eventually('the run waits', async () => (await row()).status === 'waiting');
    assert.equal((await row()).waiting_for, 'decision');
    assert.equal((await world.effects(runId)).dispatch.state, 'needs_decision');
    const twins = [...world.services.github.runs.values()].filter((r) => r.repo === `acme/decided-${how}`);
    assert.deepEqual(twins.map((r) => Boolean(r.cancelledAt)), [false, false]);
    await world.db.query(`SELECT ops.resolve_effect($1, 'dispatch', 'done', 'looked', $2)`, [runId, { workflow_run_id: twins[1].id }]);
    await expect(runId, 'success');
    assert.equal((await world.phases(runId)).build_image.outcome.workflow_run_id, twins[1].id);
    assert.equal(requestsOf(run.paths, 'actions/create-workflow-dispatch').filter((e) => e.status < 300).length, 1);
  }
});

test('I47 what is not known is told', async () => {
  const messages = async (name) => (await world.events(started.get(name).runId)).map((event) => event.message);
  assert.ok((await messages('I47 an unknown status')).some((message) => message.includes('"frozen"')));
  assert.ok((await messages('I47 an unknown phase')).some((message) => message.includes('FROBNICATING')));
});

test('I50 a login at another listed host gets no credential', async () => {
  const run = await queue('realm');
  run.fault('registry', { status: 401, headers: { 'www-authenticate': `Bearer realm="${elsewhere.url}/token",service="x"` }, times: 1e9 });
  await expect(await run.start(), { code: 'bad_response', message: /access_token/ });
  assert.ok(called.elsewhere.length > 0);
  for (const request of called.elsewhere) assert.equal(request.headers.authorization, undefined);
});

test('I41 HTTP/2: streams that are reset and sessions that go away', async () => {
  const { NGHTTP2_INTERNAL_ERROR, NGHTTP2_REFUSED_STREAM } = http2.constants;
  const faults = [[/^GET \S+\/workflows\/build\.yml$/, NGHTTP2_INTERNAL_ERROR], [/^GET \S+\/commits\//, 'goaway'], [/^POST \S+\/dispatches$/, NGHTTP2_INTERNAL_ERROR], [/^GET \S+\/jobs/, NGHTTP2_REFUSED_STREAM]];
  h2.fault = (request) => {
    const found = faults.findIndex(([pattern]) => pattern.test(`${request.method} ${request.url}`));
    return found < 0 ? null : faults.splice(found, 1)[0][1];
  };
  const run = await queue('h2', { github: { api_url: h2.url } });
  const runId = await run.start();
  await expect(runId, 'success');
  assert.deepEqual(faults, []);
  assert.ok(h2.streams > 5);
  assert.equal(requestsOf(run.paths, 'actions/create-workflow-dispatch').length, 1);
});

test('no answer hurt the worker: it is the same process and has not grown much', async () => {
  const now = await status();
  assert.equal(now.pid, worker.pid);
  assert.ok(now.peakKb - worker.peakKb < 64_000, `the worker grew by ${now.peakKb - worker.peakKb} kB`);
  assert.ok(!/terminating any other active server processes/.test(readFileSync(process.env.OPS_SERVER_LOG, 'utf8')));
});
