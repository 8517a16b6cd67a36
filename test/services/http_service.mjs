// An HTTP listener on loopback with scripted faults and a journal; every stand-in is one.
import http from 'node:http';
import { Readable } from 'node:stream';

export class HttpService {
  /** @param respond  async (request, body) -> {status, headers, body, operation, errors, key} */
  constructor(name, journal, respond) {
    this.name = name;
    this.journal = journal;
    this.respond = respond;
    this.faults = [];
    this.delayMs = 0;
    this.held = [];
    this.hung = new Set();
    this.sockets = new Set();
    this.server = http.createServer((request, response) => this.#take(request, response));
    this.server.keepAliveTimeout = 60_000;
    this.server.on('connection', (socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this.url;
  }

  async stop() {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /**
   * Adds a fault: {operation?, path?, times?, delayMs?, status?, headers?, body?, drop?: 'before' | 'after', hang?, held?, raw?,
   * answer?}. The first matching one is used, at most `times` times (default once). `held`: the request waits for release().
   * `raw` are the bytes of the whole answer; `answer(request)` makes one of {status, headers, body}, or nothing when the
   * service shall answer itself.
   */
  fault(fault) {
    this.faults.push({ times: 1, ...fault });
  }

  /** No faults and no delays any more; requests that hang lose their connection. */
  heal() {
    this.faults = [];
    this.delayMs = 0;
    for (const socket of this.hung) socket.destroy();
    this.hung.clear();
  }

  /** Lets held requests go on, also those whose client has gone. */
  release() {
    for (const go of this.held.splice(0)) go();
  }

  #matching(request, operation) {
    const index = this.faults.findIndex(
      (f) => (!f.operation || f.operation === operation) && (!f.path || request.url.includes(f.path)) &&
        (!f.method || f.method === request.method));
    if (index < 0) return null;
    const fault = this.faults[index];
    if (--fault.times <= 0) this.faults.splice(index, 1);
    return fault;
  }

  async #take(request, response) {
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return; // the client went away
    }
    // It came on a connection that the answer before has ended: the client will not read here any more and sends it again.
    if (request.socket.writableEnded) return;
    const body = Buffer.concat(chunks);
    const operation = this.operationOf?.(request) ?? null;
    const fault = this.#matching(request, operation);
    const delay = fault?.delayMs ?? this.delayMs;
    if (delay) await new Promise((resolve) => setTimeout(resolve, delay));
    if (fault?.hang) {
      this.hung.add(request.socket);
      return;
    }
    if (fault?.held) await new Promise((resolve) => this.held.push(resolve));
    if (fault?.drop === 'before') {
      request.socket.destroy();
      return;
    }
    let answer;
    const made = fault?.answer?.(request);
    if (made) {
      answer = { headers: {}, body: '', fault: true, ...made };
    } else if (fault?.raw) {
      answer = { status: 0, fault: true };
    } else if (fault?.status) {
      answer = { status: fault.status, headers: fault.headers ?? {}, body: fault.body ?? '', fault: true };
    } else {
      try {
        answer = await this.respond(request, body);
      } catch (error) {
        answer = { status: 500, body: { message: String(error?.stack ?? error) }, errors: [String(error)] };
      }
    }
    this.journal.add({
      service: this.name, operation: answer.operation ?? operation, method: request.method,
      path: request.url.split('?')[0], status: answer.status, key: answer.key, credential: answer.credential,
      errors: answer.errors, fault: answer.fault,
    });
    if (fault?.drop === 'after') {
      request.socket.destroy();
      return;
    }
    if (fault?.raw) {
      request.socket.end(fault.raw);
      return;
    }
    const headers = { ...answer.headers };
    let bytes = answer.body ?? '';
    if (bytes.blocks) {
      response.writeHead(answer.status, { ...headers, 'content-length': bytes.bytes });
      Readable.from(bytes.blocks).pipe(response);
      return;
    }
    if (!Buffer.isBuffer(bytes) && typeof bytes !== 'string') {
      bytes = JSON.stringify(bytes);
      headers['content-type'] ??= 'application/json; charset=utf-8';
    }
    if (answer.status !== 204 && answer.status !== 304) headers['content-length'] ??= Buffer.byteLength(bytes);
    response.writeHead(answer.status, headers);
    response.end(request.method === 'HEAD' ? undefined : bytes);
  }
}
