// Certificates made at test start, and TLS in front of a plain stand-in.
import { execFileSync } from 'node:child_process';
import { X509Certificate, createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
// Later than 3.0: a beginning can be given, and an end that lies before it is refused.
const givesDates = /-not_before/.test(execFileSync('sh', ['-c', 'openssl x509 -help 2>&1']).toString());
const newKey = (file) => ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file];

export class Authority {
  constructor(directory, name) {
    Object.assign(this, { directory: path.join(directory, name), serial: 0 });
    mkdirSync(this.directory, { recursive: true, mode: 0o755 });
    this.file = path.join(this.directory, 'ca.pem');
    this.key = path.join(this.directory, 'ca.key');
    openssl('req', '-x509', ...newKey(this.key), '-out', this.file, '-subj', `/CN=${name}`, '-days', '2');
  }

  /** {cert, key} for these subject names ('IP:127.0.0.1'); days < 0: expired. */
  issue(names, { days = 2 } = {}) {
    const file = (ending) => path.join(this.directory, `${this.serial}.${ending}`);
    this.serial += 1;
    openssl('req', ...newKey(file('key')), '-out', file('csr'), '-subj', '/CN=stand-in', '-addext', `subjectAltName=${names}`);
    openssl('x509', '-req', '-in', file('csr'), '-CA', this.file, '-CAkey', this.key, '-set_serial', String(1000 + this.serial),
            '-copy_extensions', 'copy', '-out', file('pem'),
            ...(days < 0 && givesDates ? ['-not_before', '20200101000000Z', '-not_after', '20200102000000Z'] : ['-days', String(days)]));
    return { cert: readFileSync(file('pem')), key: readFileSync(file('key')) };
  }

  /** {cert, key} that signs itself. */
  static selfSigned(directory, names) {
    const [key, cert] = ['self.key', 'self.pem'].map((name) => path.join(directory, name));
    openssl('req', '-x509', ...newKey(key), '-out', cert, '-subj', '/CN=self', '-days', '2', '-addext', `subjectAltName=${names}`);
    return { cert: readFileSync(cert), key: readFileSync(key) };
  }
}

/** What ops_runner.tls_pins names: the hash of the certificate's public key. */
export function pinOf({ cert }) {
  return `sha256//${createHash('sha256').update(new X509Certificate(cert).publicKey.export({ type: 'spki', format: 'der' })).digest('base64')}`;
}

/** Ends TLS and passes what it hears to a plain service. `heard` counts the bytes that came through TLS. */
export class TlsFront {
  /** @param target  URL of the service, or nothing: set it later */
  constructor(certificate, target, options = {}) {
    Object.assign(this, { target, heard: 0, sockets: new Set() });
    this.server = tls.createServer({ ...certificate, ...options }, (client) => {
      const server = net.connect(Number(new URL(this.target).port), '127.0.0.1');
      for (const socket of [client, server]) {
        this.sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => [client, server].forEach((either) => either.destroy()));
      }
      client.on('data', (bytes) => (this.heard += bytes.length));
      client.pipe(server).pipe(client);
    });
    this.server.on('tlsClientError', () => {});
  }

  async start(port = 0, address = '127.0.0.1') {
    await new Promise((resolve) => this.server.listen(port, address, resolve));
    this.url = `https://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  stop() {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
  }
}

/** Speaks HTTP/2 and passes requests to a plain service. `fault(request)` may break a stream after it was passed on. */
export class Http2Front {
  constructor(certificate) {
    Object.assign(this, { target: null, fault: () => null, sessions: new Set(), streams: 0 });
    this.server = http2.createSecureServer(certificate, (request, response) => this.#pass(request, response));
    this.server.on('session', (session) => {
      this.sessions.add(session);
      session.on('error', () => {});
      session.on('close', () => this.sessions.delete(session));
    });
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `https://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  stop() {
    for (const session of this.sessions) session.destroy();
    this.server.close();
  }

  async #pass(request, response) {
    this.streams += 1;
    const fault = this.fault(request);
    response.stream.on('error', () => {});
    const body = [];
    for await (const chunk of request) body.push(chunk);
    const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !name.startsWith(':')));
    const passed = http.request(this.target + request.url, { method: request.method, headers: { ...headers, 'content-length': Buffer.concat(body).length } }, async (answer) => {
      const bytes = [];
      for await (const chunk of answer) bytes.push(chunk);
      if (fault === 'goaway') response.stream.session.goaway(http2.constants.NGHTTP2_INTERNAL_ERROR);
      if (fault === 'goaway') return response.stream.session.destroy();
      if (fault !== null) return response.stream.close(fault);
      const { connection, 'keep-alive': keepAlive, 'transfer-encoding': encoding, ...kept } = answer.headers;
      response.writeHead(answer.statusCode, kept);
      response.end(Buffer.concat(bytes));
    });
    passed.on('error', () => response.stream.close());
    passed.end(Buffer.concat(body));
  }
}
