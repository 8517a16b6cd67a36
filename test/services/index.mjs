// Starts every stand-in on loopback ports that the system chooses.
import { generateKeyPairSync } from 'node:crypto';
import { chownSync, mkdirSync, mkdtempSync, renameSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import S3rver from 's3rver';
import { Digitalocean } from './digitalocean.mjs';
import { Github } from './github.mjs';
import { Journal } from './journal.mjs';
import { Odoo } from './odoo.mjs';
import { Registry } from './registry.mjs';

/** Where many small files cost least: memory, if there are some gigabytes of it. */
export function quickDirectory() {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm');
    if (bavail * bsize > 4e9) return '/dev/shm';
  } catch {
    // no such file system
  }
  return tmpdir();
}

export async function startServices(options = {}) {
  const stateDir = mkdtempSync(path.join(options.stateDir ?? tmpdir(), 'ops_services.'));
  const journal = new Journal(path.join(stateDir, 'journal.jsonl'));
  const app = generateKeyPairSync('rsa', { modulusLength: 2048, publicKeyEncoding: { type: 'spki', format: 'pem' }, privateKeyEncoding: { type: 'pkcs8', format: 'pem' } });
  const secrets = {
    github: 'ghp_standinstandinstandinstandin0001',
    github_app: JSON.stringify({ app_id: '4711', private_key: app.privateKey }),
    ghcr: JSON.stringify({ username: 'acme', password: 'ghp_standinstandinstandinstandin0002' }),
    digitalocean: 'dop_v1_standin0123456789abcdef0123456789',
    spaces: JSON.stringify({ access_key_id: 'S3RVER', secret_access_key: 'S3RVER' }),
  };
  const registry = new Registry(stateDir, journal, JSON.parse(secrets.ghcr));
  const github = new Github(journal, { token: secrets.github, appId: '4711', appPublicKey: app.publicKey, registry, buildMs: options.buildMs ?? 300 });
  const digitalocean = new Digitalocean(journal, { token: secrets.digitalocean, deployMs: options.deployMs ?? 300 });
  const odoo = new Odoo(journal);
  mkdirSync(path.join(stateDir, 's3'));
  const s3 = new S3rver({ address: '127.0.0.1', port: 0, silent: true, directory: path.join(stateDir, 's3'), configureBuckets: [{ name: 'acme-ops' }], allowMismatchedSignatures: false, vhostBuckets: false });
  await Promise.all([registry.start(), github.start(), digitalocean.start(), odoo.start()]);
  const s3Port = (await s3.run()).port;
  const urls = { github: github.service.url, githubFiles: github.files.url, registry: registry.service.url, digitalocean: digitalocean.service.url, odoo: odoo.service.url, s3: `http://127.0.0.1:${s3Port}` };
  // However this process ends, nothing of it stays.
  process.on('exit', () => {
    registry.child.kill('SIGKILL');
    rmSync(stateDir, { recursive: true, force: true });
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));
  const services = {
    stateDir, journal, secrets, urls, registry, github, digitalocean, odoo,
    allowedHosts: Object.values(urls).join(', '),

    /** Writes the secrets for the server's user. */
    writeSecrets(directory, uid, gid, values = secrets) {
      for (const [name, value] of Object.entries(values)) {
        const file = path.join(directory, name);
        writeFileSync(`${file}.new`, value + '\n', { mode: 0o600 });
        if (uid !== undefined && process.getuid() === 0) chownSync(`${file}.new`, uid, gid);
        renameSync(`${file}.new`, file); // nobody reads half of it
      }
    },

    /** config of an environment that uses these stand-ins; every environment has an app and an image of its own. */
    environment(name = 'odoo', changes = {}) {
      const config = {
        url: urls.odoo,
        github: { api_url: urls.github, workflow: 'build.yml', ref: 'main', credential: 'github', poll_interval: '50 ms' },
        registry: { url: urls.registry, image: `acme/${name}`, credential: 'ghcr' },
        digitalocean: { api_url: urls.digitalocean, app_id: digitalocean.addApp(), components: ['odoo'], credential: 'digitalocean', poll_interval: '50 ms', search_window: '300 ms' },
        smoke: { timeout: '3 s', interval: '50 ms', consecutive_passes: 2, checks: [{ path: '/shop', status: 200, contains: 'Add to cart', max_ms: 2000 }] },
        storage: { kind: 's3', endpoint: urls.s3, region: 'us-east-1', bucket: 'acme-ops', prefix: 'runs', credential: 'spaces' },
      };
      for (const [section, change] of Object.entries(changes))
        config[section] = change && typeof change === 'object' && !Array.isArray(change) ? { ...config[section], ...change } : change;
      return config;
    },

    /** Everything as after the start: no faults, no delays, services well. */
    heal() {
      for (const service of [github.service, github.files, registry.service, digitalocean.service, odoo.service]) service.heal();
      github.outcome = {};
      github.clockOffsetMs = 0;
      digitalocean.outcome = {};
      odoo.healthy = true;
      odoo.version = '19.0';
    },

    async stop() {
      s3.httpServer.closeAllConnections(); // else close() waits for connections that their clients keep
      await Promise.all([github.stop(), registry.stop(), digitalocean.stop(), odoo.stop(), s3.close()]);
      rmSync(stateDir, { recursive: true, force: true });
    },
  };
  return services;
}
