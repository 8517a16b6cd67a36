// Runs the named benchmarks, or all, and writes build/bench.json. One line per figure on stdout; progress on stderr.
// BENCH_SCALE multiplies the sizes, BENCH_REPETITIONS is the number of repetitions of each measurement.
// A number never fails; what does not work does.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Bench, built, connect, Program } from './harness.mjs';

const all = ['limit', 'pickup', 'runs', 'flat', 'http', 'in_flight', 'enqueue', 'idle', 'side_effects', 'restart'];
const chosen = process.argv.slice(2).flatMap((names) => names.split(/[ ,]+/)).filter(Boolean);
const unknown = chosen.filter((name) => !all.includes(name));
if (unknown.length) {
  process.stderr.write(`bench: unknown: ${unknown.join(' ')}; known: ${all.join(' ')}\n`);
  process.exit(2);
}

for (const signal of ['SIGINT', 'SIGTERM'])
  process.on(signal, () => {
    for (const program of Program.all) program.child.kill();
    process.exit(1);
  });

const scale = Number(process.env.BENCH_SCALE ?? 1);
const repetitions = Number(process.env.BENCH_REPETITIONS ?? (scale < 0.5 ? 1 : 3));
const bench = new Bench(scale, repetitions);
let status = 0;
for (const name of chosen.length ? chosen : all) {
  const begin = Date.now();
  process.stderr.write(`-- ${name}\n`);
  try {
    const { default: measure } = await import(`./bench_${name}.mjs`);
    await measure(bench);
  } catch (error) {
    status = 1;
    process.stderr.write(`bench: ${name} does not work: ${error.stack}\n`);
  }
  for (const program of [...Program.all]) await program.stop();
  process.stderr.write(`-- ${name}: ${((Date.now() - begin) / 1000).toFixed(0)} s\n`);
}

const client = await connect();
const { rows } = await client.query(
  `SELECT name, setting, unit FROM pg_settings WHERE name IN ('server_version', 'fsync', 'synchronous_commit', 'shared_buffers',
     'max_wal_size', 'wal_level', 'full_page_writes', 'autovacuum')`);
await client.end();
const settings = Object.fromEntries(rows.map((row) => [row.name, row.setting + (row.unit ?? '')]));
if (settings.fsync !== 'on' || settings.synchronous_commit !== 'on') {
  process.stderr.write('bench: the server does not flush its commits: no figure of this run counts\n');
  status = 1;
}
const machine = { cpu: os.cpus()[0].model, cores: os.cpus().length, kernel: os.release(), memory_gib: Math.round(os.totalmem() / 2 ** 30) };
fs.writeFileSync(path.join(built, '../bench.json'),
                 JSON.stringify({ at: new Date().toISOString(), scale, repetitions, machine, settings, figures: bench.figures }, null, 1));
process.exit(status);
