// A real OCI registry (Debian's docker-registry) behind a gateway that asks for tokens the way ghcr.io does.
import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { fingerprint } from './journal.mjs';
import { HttpService } from './http_service.mjs';

const sha256 = (bytes) => 'sha256:' + createHash('sha256').update(bytes).digest('hex');

async function freePort() {
  const probe = net.createServer();
  await new Promise((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

export class Registry {
  constructor(stateDir, journal, { username, password }) {
    this.stateDir = stateDir;
    this.expected = 'Basic ' + Buffer.from(`${username}:${password}`).toString('base64');
    this.tokens = new Set();
    this.pushes = new Map(); // the newest of each name
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
    this.service = new HttpService('registry', journal, (request, body) => this.#respond(request, body));
    this.service.operationOf = (request) => (request.url.startsWith('/token') ? 'token' : 'registry');
  }

  async start() {
    const port = await freePort();
    mkdirSync(path.join(this.stateDir, 'registry'), { recursive: true });
    const config = path.join(this.stateDir, 'registry.yml');
    writeFileSync(config, JSON.stringify({
      version: 0.1, log: { level: 'error', accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: path.join(this.stateDir, 'registry') } },
      http: { addr: `127.0.0.1:${port}` },
    }));
    this.child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' });
    let failed = null;
    this.child.on('error', (error) => (failed = error));
    this.backend = `http://127.0.0.1:${port}`;
    for (let i = 0; ; ++i) {
      if (failed) throw new Error(`docker-registry does not start: ${failed.message} (Debian package docker-registry)`);
      if ((await this.#forward('GET', '/v2/', {}, null).catch(() => null))?.status === 200) break;
      if (i > 400) throw new Error('docker-registry does not answer');
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    return this.service.start();
  }

  async stop() {
    await this.service.stop();
    this.agent.destroy();
    this.child.kill('SIGKILL');
  }

  #forward(method, url, headers, body) {
    return new Promise((resolve, reject) => {
      const request = http.request(this.backend + url, { method, headers, agent: this.agent }, async (response) => {
        const chunks = [];
        for await (const chunk of response) chunks.push(chunk);
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) });
      });
      request.on('error', reject);
      request.end(body ?? undefined);
    });
  }

  async #respond(request, body) {
    const url = new URL(request.url, this.service.url);
    const authorization = request.headers.authorization;
    if (url.pathname === '/token') {
      if (authorization && authorization !== this.expected)
        return { status: 401, body: { errors: [{ code: 'UNAUTHORIZED' }] }, operation: 'token' };
      const token = randomUUID();
      this.tokens.add(token);
      return { status: 200, body: { token, expires_in: 300 }, operation: 'token', credential: fingerprint(authorization) };
    }
    if (!this.tokens.has((authorization ?? '').replace(/^Bearer /, ''))) {
      const name = url.pathname.match(/^\/v2\/(.+)\/(manifests|blobs|referrers)\//)?.[1] ?? '';
      const challenge = `Bearer realm="${this.service.url}/token",service="stand-in",scope="repository:${name}:pull"`;
      return { status: 401, headers: { 'www-authenticate': challenge }, body: { errors: [{ code: 'UNAUTHORIZED' }] } };
    }
    const answer = await this.#forward(request.method, request.url, request.headers.accept ? { accept: request.headers.accept } : {}, body);
    const { 'content-type': type, 'docker-content-digest': digest, 'content-length': length } = answer.headers;
    return { status: answer.status, body: answer.body,
             headers: { 'content-type': type ?? 'text/plain', ...(digest && { 'docker-content-digest': digest }),
                        ...(length && { 'content-length': length }) } };
  }

  async #put(name, bytes) {
    const digest = sha256(bytes);
    const begun = await this.#forward('POST', `/v2/${name}/blobs/uploads/`, {}, null);
    const location = new URL(begun.headers.location, this.backend);
    location.searchParams.set('digest', digest);
    const put = await this.#forward('PUT', location.pathname + location.search,
                                    { 'content-type': 'application/octet-stream', 'content-length': bytes.length }, bytes);
    if (put.status !== 201) throw new Error(`blob upload: ${put.status}`);
    return { digest, size: bytes.length };
  }

  async #manifest(name, reference, document) {
    const bytes = Buffer.from(JSON.stringify(document));
    const put = await this.#forward('PUT', `/v2/${name}/manifests/${reference ?? sha256(bytes)}`,
                                    { 'content-type': document.mediaType, 'content-length': bytes.length }, bytes);
    if (put.status !== 201) throw new Error(`manifest ${name}:${reference}: ${put.status} ${put.body}`);
    return { digest: sha256(bytes), size: bytes.length };
  }

  /**
   * Pushes an image the way BuildKit does: an index with linux/amd64 and an attestation manifest. Returns the index digest.
   * One after another for each name: docker-registry answers DIGEST_INVALID to some of those that push the same content at once.
   */
  push(name, tags, sha) {
    const before = this.pushes.get(name) ?? Promise.resolve();
    const push = before.catch(() => {}).then(() => this.#push(name, tags, sha));
    this.pushes.set(name, push);
    return push;
  }

  async #push(name, tags, sha) {
    const layer = await this.#put(name, Buffer.from(`layer of ${name} ${sha}`));
    const config = await this.#put(name, Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [layer.digest] }, config: {} })));
    const image = await this.#manifest(name, null, {
      schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
      layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', ...layer }],
    });
    const statement = (predicateType, predicate) => Buffer.from(JSON.stringify({
      _type: 'https://in-toto.io/Statement/v1', predicateType, predicate,
      subject: [{ name, digest: { sha256: image.digest.slice(7) } }] }));
    const sbom = await this.#put(name, statement('https://spdx.dev/Document', { spdxVersion: 'SPDX-2.3', packages: [] }));
    const slsa = await this.#put(name, statement('https://slsa.dev/provenance/v1', { buildDefinition: {}, runDetails: {} }));
    const empty = await this.#put(name, Buffer.from('{}'));
    const attestation = await this.#manifest(name, null, {
      schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...empty },
      layers: [
        { mediaType: 'application/vnd.in-toto+json', ...sbom, annotations: { 'in-toto.io/predicate-type': 'https://spdx.dev/Document' } },
        { mediaType: 'application/vnd.in-toto+json', ...slsa, annotations: { 'in-toto.io/predicate-type': 'https://slsa.dev/provenance/v1' } },
      ],
    });
    const index = {
      schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [
        { mediaType: 'application/vnd.oci.image.manifest.v1+json', ...image, platform: { os: 'linux', architecture: 'amd64' } },
        { mediaType: 'application/vnd.oci.image.manifest.v1+json', ...attestation, platform: { os: 'unknown', architecture: 'unknown' },
          annotations: { 'vnd.docker.reference.type': 'attestation-manifest', 'vnd.docker.reference.digest': image.digest } },
      ],
    };
    let digest;
    for (const tag of tags) ({ digest } = await this.#manifest(name, tag, index));
    return digest;
  }
}
