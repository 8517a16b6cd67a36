// A TCP proxy between the worker and a stand-in that breaks connections by script.
//
//   const proxy = await new FaultProxy(url).start();     // transparent until told otherwise
//   proxy.fault({ when: /^PUT /, cut: 'answer' });        // the next request that matches; `times: n` for the next n
//
// Faults, one a script entry:
//   cut: 'request'     reset before anything is forwarded        cut: 'unforwarded'  closed after the whole request was read
//   cut: 'answer'      reset when the answer begins              cut: <n>            reset after n bytes of the answer
//   silence: true      forwarded, never answered, never closed   vanish: true        not even forwarded
//   dripMs: n          one byte of the answer each n ms          refuse: true        forwarded; new connections are refused
// `delayMs`, `bytesPerSecond` and `stall: {chance, ms}` of the proxy itself make a bad line of every connection.
import net from 'node:net';

const beginsRequest = /^[A-Z]+ \S+ HTTP\/1\.[01]\r\n/;

/** Whether these bytes hold the head of a request and as much body as it says. */
function isWhole(bytes) {
  const head = bytes.indexOf('\r\n\r\n');
  if (head < 0) return false;
  const length = Number(bytes.subarray(0, head).toString('latin1').match(/\r\ncontent-length: (\d+)/i)?.[1] ?? 0);
  return bytes.length >= head + 4 + length;
}

/** Passes chunks on in order, late as the line asks. */
class Line {
  constructor(quality, deliver) {
    Object.assign(this, { quality, deliver, last: Promise.resolve() });
  }

  pass(bytes) {
    const { delayMs = 0, bytesPerSecond, stall } = this.quality;
    const late = delayMs + (bytesPerSecond ? (bytes.length * 1000) / bytesPerSecond : 0) + (stall && Math.random() < stall.chance ? stall.ms : 0);
    const due = new Promise((resolve) => (late ? setTimeout(resolve, late) : resolve()));
    this.last = Promise.all([this.last, due]).then(() => this.deliver(bytes));
  }
}

export class FaultProxy {
  /** @param quality  {delayMs, bytesPerSecond, stall} of the line */
  constructor(target, quality = {}) {
    Object.assign(this, { target, quality, faults: [], sockets: new Set(), requests: 0 });
    this.server = net.createServer((client) => this.#connect(client));
  }

  async start() {
    await this.listen();
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}`;
    return this;
  }

  /** Listens (again, after a refusal). */
  listen() {
    return new Promise((resolve) => this.server.listen(this.port ?? 0, '127.0.0.1', resolve));
  }

  /** New connections are refused; those that are open go on. */
  refuse() {
    if (this.server.listening) this.server.close();
  }

  fault(fault) {
    this.faults.push({ times: 1, when: beginsRequest, ...fault });
  }

  heal() {
    this.faults = [];
  }

  async stop() {
    this.refuse();
    for (const socket of this.sockets) socket.destroy();
  }

  #matching(text) {
    const index = this.faults.findIndex((fault) => fault.when.test(text));
    if (index < 0) return null;
    const fault = this.faults[index];
    if (--fault.times <= 0) this.faults.splice(index, 1);
    return fault;
  }

  #track(socket) {
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    socket.on('error', () => {});
  }

  #connect(client) {
    const { hostname, port } = new URL(this.target);
    const server = net.connect(Number(port), hostname);
    this.#track(client);
    this.#track(server);
    client.on('close', () => server.destroy());
    let fault = null;
    let held = Buffer.alloc(0); // of a request that must be read and not forwarded
    let answered = 0;
    const toServer = new Line(this.quality, (bytes) => server.write(bytes));
    const toClient = new Line(this.quality, (bytes) => client.destroyed || client.write(bytes));
    const drip = async (bytes) => {
      for (const byte of bytes) {
        await new Promise((resolve) => setTimeout(resolve, fault.dripMs));
        if (client.destroyed) return;
        client.write(Buffer.of(byte));
      }
    };
    client.on('data', (bytes) => {
      const text = bytes.toString('latin1');
      if (beginsRequest.test(text)) {
        this.requests += 1;
        fault = this.#matching(text);
      }
      if (fault?.vanish) return;
      if (fault?.cut === 'request') return client.resetAndDestroy();
      if (fault?.cut === 'unforwarded') {
        held = Buffer.concat([held, bytes]);
        return isWhole(held) && client.destroy();
      }
      if (fault?.refuse) this.refuse();
      toServer.pass(bytes);
    });
    server.on('data', (bytes) => {
      if (fault?.silence) return;
      if (fault?.dripMs) {
        toClient.last = toClient.last.then(() => drip(bytes));
        return;
      }
      const allowed = fault?.cut === 'answer' ? 0 : fault?.cut;
      if (Number.isInteger(allowed)) {
        const rest = bytes.subarray(0, Math.max(0, allowed - answered));
        answered += bytes.length;
        // Resetting before the kernel has it would throw away what is still on its way.
        const reset = () => answered >= allowed && client.resetAndDestroy();
        if (rest.length) client.write(rest, reset);
        else reset();
        return;
      }
      toClient.pass(bytes);
    });
    server.on('close', () => fault?.silence || toClient.last.then(() => client.end()));
  }
}
