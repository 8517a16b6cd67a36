// Names that do not resolve, hang or change, hosts that no route leads to, packets that are lost (F52, F56, F59): the server in a
// network namespace of its own with a name server that answers by script. Needs root; skipped visibly elsewhere.
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { Namespace } from '../services/namespace.mjs';
import { Authority, TlsFront } from '../services/tls.mjs';
import { startServer, stopServer } from './server_process.mjs';
import { World, client, eventually } from './world.mjs';

const publicAddress = '93.184.215.14'; // on the namespace's own loopback: nothing leaves it
const unreachable = '93.184.215.15';
const skip = Namespace.missing();

let world;
let namespace;
let front; // GitHub under TLS, where names lead
let inner; // the same on loopback, where a name that changes its address leads
let files;
let connections = 0;

before(async () => {
  if (skip) return;
  files = mkdtempSync(path.join(tmpdir(), 'ops_names.'));
  chmodSync(files, 0o755);
  const authority = new Authority(files, 'known');
  const certificate = authority.issue(`DNS:api.fault.test,DNS:hang.fault.test,DNS:moves.fault.test,IP:${unreachable}`);
  front = await new TlsFront(certificate).start();
  inner = await new TlsFront(certificate).start();
  inner.server.on('connection', () => ++connections);
  namespace = await new Namespace().start();
  namespace.address(publicAddress);
  stopServer();
  startServer(namespace.entrance);
  world = await World.start({
    allowedHosts: ['api.fault.test', 'hang.fault.test', 'moves.fault.test', `https://${unreachable}`],
    settings: { 'ops_runner.ca_file': authority.file },
  });
  front.target = inner.target = world.services.urls.github;
  for (const url of Object.values(world.services.urls)) await namespace.door('127.0.0.1', Number(new URL(url).port), Number(new URL(url).port));
  await namespace.door(publicAddress, 443, front.server.address().port);
  await namespace.door('127.0.0.1', 443, inner.server.address().port);
});
after(async () => {
  if (skip) return;
  await world?.stop();
  try {
    stopServer('immediate');
  } catch {} // it never started

  await namespace?.stop();
  front?.stop();
  inner?.stop();
  rmSync(files, { recursive: true, force: true });
});

/** A run that only builds, at GitHub under this URL. */
async function queue(name, url) {
  return world.queue(await world.environment(name, { github: { api_url: url }, phases: [{ name: 'build_image', kind: 'github_workflow' }] }));
}
async function succeeded(runId) {
  const run = await world.finished(runId);
  assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
}
const failures = async (runId, what) => (await world.events(runId)).filter((event) => event.message.includes(what));
async function hangingRun(name) {
  const before = namespace.asked.length;
  const runId = await queue(name, 'https://hang.fault.test');
  await eventually('the name is asked for', () => namespace.asked.slice(before).includes('hang.fault.test'));
  return runId;
}

test('F59 a name that does not resolve is tried again', { skip }, async () => {
  await namespace.name('api.fault.test', 'SERVFAIL', 'NXDOMAIN', publicAddress);
  const runId = await queue('servfail', 'https://api.fault.test');
  await succeeded(runId);
  assert.equal((await failures(runId, 'name not resolved')).length, 2);
  assert.ok(front.heard > 0);
});

test('F59 a resolver that hangs holds up neither cancel nor shutdown, and its thread takes no signal', { skip }, async () => {
  await namespace.name('hang.fault.test', 'silence');
  const cancelled = await hangingRun('hang-cancel');
  let begin = Date.now();
  await world.db.query('SELECT ops.cancel_run($1)', [cancelled]);
  assert.equal((await world.finished(cancelled)).status, 'cancelled');
  assert.ok(Date.now() - begin < 2000, `cancel took ${Date.now() - begin} ms`);

  const stopped = await hangingRun('hang-shutdown');
  const pid = await world.workerPid();
  const threads = readdirSync(`/proc/${pid}/task`).filter((thread) => Number(thread) !== pid);
  assert.ok(threads.length > 0, 'no thread resolves');
  const blockable = ~((1n << 8n) | (1n << 18n)) & 0x7fffffffn; // all usual signals but KILL and STOP
  for (const thread of threads) {
    const [, mask] = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8').match(/SigBlk:\s+([0-9a-f]+)/);
    assert.equal(BigInt(`0x${mask}`) & blockable, blockable, `signals blocked in the resolver's thread: ${mask}`);
  }
  await world.db.end();
  begin = Date.now();
  stopServer('fast');
  assert.ok(Date.now() - begin < 5000, `shutdown took ${Date.now() - begin} ms`);
  await namespace.name('hang.fault.test', publicAddress);
  startServer(namespace.entrance);
  world.db = await client();
  await succeeded(stopped);
});

test('F59 of a name that moves to an internal address the address counts', { skip }, async () => {
  await namespace.name('moves.fault.test', publicAddress);
  await succeeded(await queue('moves-before', 'https://moves.fault.test'));
  for (const address of ['127.0.0.1', '169.254.169.254']) {
    await namespace.name('moves.fault.test', address);
    await world.db.query('SELECT pg_terminate_backend(pid) FROM ops.worker_status'); // what is resolved is kept for a minute
    const runId = await queue(`moves-to-${address.replaceAll('.', '-')}`, 'https://moves.fault.test');
    assert.equal((await world.finished(runId)).status, 'failed');
    const error = await world.error(runId);
    assert.equal(error.payload.code, 'refused_by_rule');
    assert.match(error.message, /internal address/);
  }
  assert.equal(connections, 0, 'the internal address was connected to');
});

test('F52 a host that no route leads to is tried until there is one', { skip }, async () => {
  const runId = await queue('no-route', `https://${unreachable}`);
  await eventually('several tries failed', async () => (await failures(runId, 'failed with not connected')).length >= 6);
  namespace.address(unreachable);
  await namespace.door(unreachable, 443, front.server.address().port);
  await succeeded(runId);
});

test('F56 a line of 64 kbit/s that loses three of ten exchanges changes nothing but the time', { skip: skip || Namespace.lineMissing() }, async () => {
  namespace.makeLineBad();
  let lost;
  let runId;
  try {
    runId = await world.queue(await world.environment('loss', { smoke: { timeout: '2 min', interval: '50 ms', consecutive_passes: 1, checks: [] } }));
    const run = await world.finished(runId, '6 min');
    assert.equal(run.status, 'success', JSON.stringify(await world.error(runId)));
  } finally {
    lost = namespace.mendLine();
  }
  assert.ok(lost > 20, `${lost} packets were lost`);
  const phases = await world.phases(runId);
  for (const [operation, phase] of [['actions/create-workflow-dispatch', 'build_image'], ['apps_update', 'deploy_runtime']])
    assert.equal(world.services.journal.accepted(operation).filter((e) => e.key === phases[phase].remembered.run_token).length, 1, operation);
});
