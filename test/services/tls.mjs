// Certificates made at test start, and TLS in front of a plain stand-in.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import tls from 'node:tls';

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });
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
            '-copy_extensions', 'copy', '-days', String(days), '-out', file('pem'));
    return { cert: readFileSync(file('pem')), key: readFileSync(file('key')) };
  }

  /** {cert, key} that signs itself. */
  static selfSigned(directory, names) {
    const [key, cert] = ['self.key', 'self.pem'].map((name) => path.join(directory, name));
    openssl('req', '-x509', ...newKey(key), '-out', cert, '-subj', '/CN=self', '-days', '2', '-addext', `subjectAltName=${names}`);
    return { cert: readFileSync(cert), key: readFileSync(key) };
  }
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
