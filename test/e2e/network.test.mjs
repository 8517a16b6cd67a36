// The line between the worker and its services breaks, stalls and lies: faults F48, F52 to F58 and F60, through proxies that
// work by script. What takes the product's whole time limit of 30 s runs beside the other tests and is looked at last.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { FaultProxy } from '../services/fault_proxy.mjs';
import { Authority, TlsFront, pinOf } from '../services/tls.mjs';
import { World, client, eventually } from './world.mjs';

const badLine = { delayMs: 40, bytesPerSecond: 8000, stall: { chance: 0.3, ms: 300 } };
const local = 'IP:127.0.0.1';
const isDispatch = /^POST \S+\/dispatches /;
const isPut = /^PUT /;

let world;
let files; // where certificates are made
let certificates;
const proxies = {};
const fronts = {};
const slow = {};

before(async () => {
  files = mkdtempSync(path.join(tmpdir(), 'ops_tls.'));
  chmodSync(files, 0o755);
  const known = new Authority(files, 'known');
  certificates = {
    good: known.issue(local), expired: known.issue(local, { days: -1 }), 'wrong host': known.issue('DNS:other.example'),
    'self-signed': Authority.selfSigned(files, local), 'unknown authority': new Authority(files, 'unknown').issue(local),
    'TLS 1.1': known.issue(local),
  };
  for (const [name, certificate] of Object.entries(certificates)) {
    const old = name === 'TLS 1.1' ? { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } : {};
    fronts[name] = await new TlsFront(certificate, null, old).start();
  }
  for (const name of ['github', 'digitalocean', 'dripping', 'vanished', 'swallowed', 'files', 'cancelled']) proxies[name] = await new FaultProxy().start();
  for (const name of ['github', 'registry', 'digitalocean', 'odoo', 's3']) proxies[`bad ${name}`] = await new FaultProxy(null, badLine).start();
  world = await World.start({
    allowedHosts: [...Object.values(proxies), ...Object.values(fronts)].map((listener) => listener.url),
    settings: { 'ops_runner.ca_file': known.file },
  });
  const { urls } = world.services;
  for (const name of ['github', 'dripping', 'vanished', 'cancelled']) proxies[name].target = urls.github;
  for (const name of ['digitalocean', 'swallowed']) proxies[name].target = urls.digitalocean;
  for (const name of ['github', 'registry', 'digitalocean', 'odoo', 's3']) proxies[`bad ${name}`].target = urls[name];
  proxies.files.target = urls.githubFiles;
  for (const front of Object.values(fronts)) front.target = urls.github;
  await startSlowRuns();
});

after(async () => {
  await world?.stop();
  for (const listener of [...Object.values(proxies), ...Object.values(fronts)]) await listener.stop();
  rmSync(files, { recursive: true, force: true });
});

/** Each run meets one fault that only the product's own time limits end. */
async function startSlowRuns() {
  world.services.github.files.url = proxies.files.url; // signed URLs of every build of this world
  let downloads = 0; // the first is the build's result, whose time limit is short; then come logs
  proxies.files.fault({ when: { test: (text) => /^GET \/signed/.test(text) && ++downloads === 2 }, dripMs: 1000 });
  slow.log = await queue('slow-log');
  await eventually('the download drips', () => proxies.files.faults.length === 0);
  proxies.dripping.fault({ when: /^GET \S+\/workflows\//, dripMs: 1000 });
  slow.drip = await queue('slow-drip', { github: { api_url: proxies.dripping.url } });
  proxies.vanished.fault({ when: /^GET \S+\/workflows\//, vanish: true });
  slow.vanished = await queue('slow-vanished', { github: { api_url: proxies.vanished.url } });
  proxies.swallowed.fault({ when: isPut, silence: true });
  slow.swallowed = await queue('slow-swallowed', { digitalocean: { api_url: proxies.swallowed.url } });
  const { environment } = world.services;
  const bad = (section, key, name = section) => ({ [section]: { ...environment('x')[section], [key]: proxies[`bad ${name}`].url } });
  slow.line = await queue('slow-line', {
    ...bad('github', 'api_url'), ...bad('digitalocean', 'api_url'), ...bad('storage', 'endpoint', 's3'),
    registry: { url: proxies['bad registry'].url }, url: proxies['bad odoo'].url,
    smoke: { timeout: '30 s', consecutive_passes: 1, checks: [] },
  });
}

async function queue(name, changes) {
  return world.queue(await world.environment(name, changes));
}
/** Sets the pins and waits until the worker knows them. */
async function pinned(pins) {
  await world.configure({ 'ops_runner.tls_pins': pins });
  await eventually('new processes know the pins', async () => {
    const fresh = await client();
    const { rows } = await fresh.query('SHOW ops_runner.tls_pins');
    await fresh.end();
    return rows[0]['ops_runner.tls_pins'] === pins;
  });
  // The worker was told before those; after a whole run it has listened.
  await world.db.query(`INSERT INTO ops.environments (env_id, project_id, env_type, config) VALUES ('listens', 'acme', 'dev', $1) ON CONFLICT DO NOTHING`,
                       [world.services.environment('listens', { phases: [{ name: 'smoke', kind: 'odoo_smoke' }] })]);
  await succeeded(await world.queue('listens'));
}
const viaProxies = () => ({ github: { api_url: proxies.github.url, search_window: '500 ms' }, digitalocean: { api_url: proxies.digitalocean.url } });

async function succeeded(runId, timeout) {
  const run = await world.finished(runId, timeout);
  assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
}
async function messages(runId) {
  return (await world.events(runId)).map((event) => event.message);
}
async function acceptedOnce(runId) {
  const phases = await world.phases(runId);
  const accepted = (operation, phase) => world.services.journal.accepted(operation).filter((e) => e.key === phases[phase].remembered.run_token).length;
  assert.equal(accepted('actions/create-workflow-dispatch', 'build_image'), 1, 'dispatches');
  assert.equal(accepted('apps_update', 'deploy_runtime'), 1, 'PUTs');
}

test('F52 refused connections are tried again and never count as sent', async () => {
  // The dry run before the PUT is the last request that gets through: the PUT takes a connection of its own.
  proxies.digitalocean.fault({ when: /^POST \S+\/propose /, refuse: true });
  const runId = await queue('refused', viaProxies());
  await eventually('the PUT was refused several times', async () => (await world.effects(runId)).put_app?.attempt >= 7);
  await proxies.digitalocean.listen();
  await succeeded(runId);
  await acceptedOnce(runId);
  assert.ok(!(await messages(runId)).some((message) => message.includes('is unknown')), 'a request that never left was looked for');
});

test('F53 a reset while and after the request was written is looked for and not repeated', async () => {
  proxies.github.fault({ when: isDispatch, cut: 'answer' });
  proxies.digitalocean.fault({ when: isPut, cut: 40 });
  const runId = await queue('reset', viaProxies());
  await succeeded(runId);
  await acceptedOnce(runId);
  assert.equal((await messages(runId)).filter((message) => message.includes('was found and adopted')).length, 2);
  assert.equal((await world.effects(runId)).dispatch.attempt, 1);
});

test('F55 a request that died on the way is proven absent and sent once more with its key', async () => {
  proxies.github.fault({ when: isDispatch, cut: 'unforwarded' });
  proxies.digitalocean.fault({ when: isPut, cut: 'request' });
  const runId = await queue('died', viaProxies());
  await succeeded(runId);
  await acceptedOnce(runId);
  assert.equal((await messages(runId)).filter((message) => message.includes('is proven absent')).length, 2);
  const effects = await world.effects(runId);
  assert.deepEqual([effects.dispatch.attempt, effects.put_app.attempt], [2, 2]);
});

test('F57 a run that waits for a dripping answer is cancelled at once', async () => {
  proxies.cancelled.fault({ when: /^GET \S+\/workflows\//, dripMs: 1000 });
  const runId = await queue('drip-cancel', { github: { api_url: proxies.cancelled.url } });
  await eventually('the answer drips', () => proxies.cancelled.faults.length === 0);
  const begin = Date.now();
  await world.db.query('SELECT ops.cancel_run($1)', [runId]);
  assert.equal((await world.finished(runId)).status, 'cancelled');
  assert.ok(Date.now() - begin < 2000, `cancel took ${Date.now() - begin} ms`);
});

test('F60 a certificate of a known authority for this host is taken', async () => {
  await succeeded(await queue('tls-good', { github: { api_url: fronts.good.url } }));
  assert.ok(fronts.good.heard > 0);
});

for (const [name, reason] of [['expired', /certificate/], ['wrong host', /certificate|remote/i], ['self-signed', /certificate/],
  ['unknown authority', /certificate/], ['TLS 1.1', /SSL connect|protocol/i]])
  test(`F60 ${name}: nothing is sent and the error names the reason`, async () => {
    const runId = await queue(`tls-${name.toLowerCase().replace(/\W/g, '-')}`, { github: { api_url: fronts[name].url } });
    assert.equal((await world.finished(runId)).status, 'failed');
    const error = await world.error(runId);
    assert.equal(error.payload.code, 'tls_failed');
    assert.match(error.message, reason);
    assert.equal(fronts[name].heard, 0, 'something was sent');
  });

test('F60 a key that is pinned, also as the spare one, is taken; a revoked pin sends nothing', async () => {
  const right = pinOf(certificates.good);
  const [other, another] = [pinOf(certificates.expired), pinOf(certificates['wrong host'])];
  const pins = { right, spare: `${other};${right}`, wrong: other, 'all wrong': `${other};${another}`, none: null };
  try {
    for (const [name, pin] of Object.entries(pins)) {
      await pinned(pin ? `elsewhere.example=${another}, 127.0.0.1=${pin}` : `elsewhere.example=${another}`);
      const heard = fronts.good.heard;
      const runId = await queue(`pin-${name.replace(' ', '-')}`, { github: { api_url: fronts.good.url } });
      if (!name.includes('wrong')) {
        await succeeded(runId);
        assert.ok(fronts.good.heard > heard);
        continue;
      }
      assert.equal((await world.finished(runId)).status, 'failed');
      const error = await world.error(runId);
      assert.equal(error.payload.code, 'tls_failed');
      assert.match(error.message, /the key of the certificate is none of those that ops_runner\.tls_pins names for 127\.0\.0\.1/);
      assert.equal(fronts.good.heard, heard, 'something was sent');
    }
  } finally {
    await pinned('');
  }
});

test('F60 pins are set in the server\'s configuration only, and what is none is refused', async () => {
  const pin = `127.0.0.1=${pinOf(certificates.expired)}`;
  for (const sql of ['SET', 'SET LOCAL', 'ALTER ROLE postgres SET', 'ALTER ROLE ops_runner_worker SET', 'ALTER DATABASE postgres SET'])
    await assert.rejects(world.db.query(`${sql} ops_runner.tls_pins = '${pin}'`), /cannot be changed now/, sql);
  for (const [value, detail] of [['127.0.0.1', /names no pin/], ['sha256//x', /host name|names no pin/], ['127.0.0.1=sha256//short=', /"sha256\/\/short=" is no sha256/],
    [`${pin};md5//x`, /"md5\/\/x" is no/], [`${pin}, ${pin}`, /has an entry before/], [`https://${pin}`, /host name/], [`*.${pin}`, /host name/]])
    await assert.rejects(world.db.query(`ALTER SYSTEM SET ops_runner.tls_pins = '${value}'`), (error) => detail.test(error.detail) && /spare key/.test(error.hint), value);
});

test('F60 no SQL switches the check of certificates off', async () => {
  const { rows } = await world.db.query(`SELECT name, context FROM pg_settings WHERE name LIKE 'ops\\_runner.%' AND name ~ 'verif|insecure|tls|ssl|cert|ca_|allowed'`);
  // All need a superuser and the server's configuration; none can switch it off.
  assert.deepEqual(rows.map((row) => [row.name, row.context]).sort(), [['ops_runner.allowed_hosts', 'sighup'], ['ops_runner.ca_file', 'sighup'], ['ops_runner.tls_pins', 'sighup']]);
  for (const key of ['verify', 'insecure', 'tls', 'ca_file'])
    await assert.rejects(world.environment(`switch-${key}`, { github: { [key]: false } }), /unknown key/);
});

test('F57 a dripping answer is cut at the time limit and asked for again', async () => {
  await succeeded(slow.drip, '60 s');
  const failed = (await world.events(slow.drip)).filter((event) => event.message.includes('timed out'));
  assert.equal(failed.length, 1);
  assert.match(failed[0].message, /GET .*\/actions\/workflows\/build\.yml failed with timed out/);
});

test('F57 a dripping download is cut by the low-speed rule, long before its time limit of ten minutes', async () => {
  await succeeded(slow.log, '60 s');
  const events = await world.events(slow.log);
  const failed = events.find((event) => event.message.includes('timed out'));
  assert.match(failed?.message ?? '', /\/signed\/.* failed with timed out/);
});

test('F58 a connection whose peer has vanished ends at the time limit', async () => {
  await succeeded(slow.vanished, '60 s');
  assert.equal((await messages(slow.vanished)).filter((message) => message.includes('timed out')).length, 1);
});

test('F54 F58 a PUT whose answer is swallowed for ever is looked for and adopted', async () => {
  await succeeded(slow.swallowed, '60 s');
  await acceptedOnce(slow.swallowed);
  assert.ok((await messages(slow.swallowed)).some((message) => message.includes('was found and adopted')));
});

test('F56 a slow line that stalls changes nothing but the time', async () => {
  await succeeded(slow.line, '90 s');
  await acceptedOnce(slow.line);
  assert.ok(proxies['bad github'].requests > 5 && proxies['bad s3'].requests > 3, 'the line was used');
});

test('F48 out of file descriptors: the error says so, the worker goes on', async () => {
  const pid = await world.workerPid();
  const [program, ...start] = [...process.env.OPS_AS_SERVER_USER.split(' ').filter(Boolean), 'prlimit', '--pid', String(pid)];
  const prlimit = (...args) => execFileSync(program, [...start, ...args]).toString();
  const before = prlimit('--nofile', '--output', 'SOFT', '--noheadings').trim();
  const open = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let firstFree = 3;
  while (open.has(firstFree)) ++firstFree;
  prlimit(`--nofile=${firstFree}:`);
  try {
    const runId = await queue('no-descriptors');
    assert.equal((await world.finished(runId)).status, 'failed');
    const error = await world.error(runId);
    assert.match(error.message, /Too many open files/);
    assert.match(error.payload.hint, /limit of open files/);
  } finally {
    prlimit(`--nofile=${before}:`);
  }
  await succeeded(await queue('descriptors-again'));
  assert.equal(await world.workerPid(), pid);
});

test('every request that came through was valid', () => {
  assert.deepEqual(world.services.journal.invalid(), []);
});
