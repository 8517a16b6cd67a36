// A network of its own for the server: only loopback, a name server that answers by script, and doors to the stand-ins.
//
// Namespace (below) is used by a test; the same file, started inside the namespace, is the name server and the doors. The two
// talk by messages, and doors lead through Unix sockets to the listeners of the test, outside.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import dgram from 'node:dgram';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const self = fileURLToPath(import.meta.url);
const surroundings = `set -e
mount --bind "$OPS_NS/resolv.conf" /etc/resolv.conf
[ ! -e /etc/nsswitch.conf ] || mount --bind "$OPS_NS/nsswitch.conf" /etc/nsswitch.conf
ip link set lo up
exec "$@"`;

// A line of 64 kbit/s that loses 15 of 100 packets each way, and with them three of ten exchanges.
const badLine = `ip link set lo mtu 1500 up
tc qdisc add dev lo root tbf rate 64kbit burst 4kb latency 400ms
nft -f - <<'end'
table inet loss {
  chain input {
    type filter hook input priority 0
    meta l4proto tcp numgen random mod 20 < 3 counter drop
  }
}
end`;

export class Namespace {
  /** Why there can be none here, or false. */
  static missing() {
    if (process.getuid() !== 0) return 'needs root for a network namespace';
    const tried = spawnSync('unshare', ['--net', '--mount', 'ip', 'link', 'set', 'lo', 'up']);
    return tried.status === 0 ? false : 'network namespaces are not allowed here';
  }

  /** Why a line cannot be made bad here, or false. */
  static lineMissing() {
    const tried = spawnSync('unshare', ['--net', 'sh', '-ec', badLine]);
    return tried.status === 0 ? false : `this kernel has no tbf or no nft numgen: ${tried.stderr}`.trim();
  }

  async start() {
    this.directory = mkdtempSync(path.join(tmpdir(), 'ops_namespace.'));
    chmodSync(this.directory, 0o755);
    writeFileSync(path.join(this.directory, 'resolv.conf'), 'nameserver 127.0.0.1\noptions timeout:30 attempts:1\n');
    writeFileSync(path.join(this.directory, 'nsswitch.conf'), 'passwd: files\ngroup: files\nhosts: files dns\n');
    this.bridges = [];
    this.asked = [];
    this.child = spawn('unshare', ['--net', '--mount', '--propagation', 'private', 'sh', '-c', surroundings, 'sh', process.execPath, self],
                       { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env: { ...process.env, OPS_NS: this.directory, OPS_INSIDE: '1' } });
    this.child.on('message', (message) => (message.done ? this.done() : this.asked.push(message.asked)));
    this.child.on('exit', (code) => this.failed(new Error(`the namespace ended with ${code}`)));
    await this.#ready();
    return this;
  }

  #ready() {
    return new Promise((resolve, reject) => Object.assign(this, { done: resolve, failed: reject }));
  }

  #order(message) {
    const ready = this.#ready();
    this.child.send(message);
    return ready;
  }

  /** Program and arguments before a command that shall run inside. */
  get entrance() {
    return ['nsenter', '--target', String(this.child.pid), '--net', '--mount', '--'];
  }

  #inside(...command) {
    return execFileSync(this.entrance[0], [...this.entrance.slice(1), ...command]).toString();
  }

  address(address) {
    this.#inside('ip', 'address', 'add', `${address}/32`, 'dev', 'lo');
  }

  makeLineBad() {
    this.#inside('sh', '-ec', badLine);
  }

  /** Ends it. Returns how many packets were lost. */
  mendLine() {
    const lost = Number(this.#inside('nft', 'list', 'chain', 'inet', 'loss', 'input').match(/counter packets (\d+)/)[1]);
    this.#inside('nft', 'delete', 'table', 'inet', 'loss');
    this.#inside('tc', 'qdisc', 'del', 'dev', 'lo', 'root');
    return lost;
  }

  /** Inside, address:port leads to this port of 127.0.0.1 outside. */
  async door(address, port, target) {
    const socket = path.join(this.directory, `${this.bridges.length}.sock`);
    const bridge = net.createServer((inner) => {
      const outer = net.connect(target, '127.0.0.1');
      for (const end of [inner, outer]) end.on('error', () => {}).on('close', () => (inner.destroy(), outer.destroy()));
      inner.pipe(outer).pipe(inner);
    });
    await new Promise((resolve) => bridge.listen(socket, resolve));
    this.bridges.push(bridge);
    await this.#order({ door: { address, port, socket } });
  }

  /** What the name server answers: addresses, 'SERVFAIL', 'NXDOMAIN' or 'silence'; the last one for ever. */
  name(name, ...answers) {
    return this.#order({ name, answers });
  }

  async stop() {
    const gone = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.disconnect();
    await gone;
    for (const bridge of this.bridges) bridge.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

// Inside -------------------------------------------------------------------------------------------------------------

const names = new Map();

function nameAsked(query) {
  const labels = [];
  let at = 12;
  for (; query[at]; at += query[at] + 1) labels.push(query.toString('latin1', at + 1, at + 1 + query[at]));
  return { name: labels.join('.').toLowerCase(), type: query.readUInt16BE(at + 1), end: at + 5 };
}

function answerTo(query) {
  const { name, type, end } = nameAsked(query);
  const answers = names.get(name) ?? ['NXDOMAIN'];
  // One lookup asks for IPv4 and IPv6: the second question takes what is answered off the list.
  const answer = type === 28 && answers.length > 1 ? answers.shift() : answers[0];
  process.send({ asked: name });
  if (answer === 'silence') return null;
  const code = { SERVFAIL: 2, NXDOMAIN: 3 }[answer] ?? 0;
  const record = code === 0 && type === 1 ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, ...answer.split('.').map(Number)]) : Buffer.alloc(0);
  const header = Buffer.from([query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, record.length ? 1 : 0, 0, 0, 0, 0]);
  return Buffer.concat([header, query.subarray(12, end), record]);
}

function serveInside() {
  const resolver = dgram.createSocket('udp4');
  resolver.on('message', (query, from) => {
    const answer = answerTo(query);
    if (answer) resolver.send(answer, from.port, from.address);
  });
  resolver.bind(53, '127.0.0.1', () => process.send({ done: true }));
  process.on('message', ({ door, name, answers }) => {
    if (name) {
      names.set(name, answers);
      process.send({ done: true });
      return;
    }
    net.createServer((inner) => {
      const outer = net.connect(door.socket);
      for (const end of [inner, outer]) end.on('error', () => {}).on('close', () => (inner.destroy(), outer.destroy()));
      inner.pipe(outer).pipe(inner);
    }).listen(door.port, door.address, () => process.send({ done: true }));
  });
  process.on('disconnect', () => process.exit(0));
}

if (process.env.OPS_INSIDE) serveInside();
