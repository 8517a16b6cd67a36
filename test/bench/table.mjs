// The figures of build/bench.json as the table of docs/performance.md.
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const file = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../build/bench.json');
const { figures } = JSON.parse(fs.readFileSync(file, 'utf8'));
const shown = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3))));
process.stdout.write('| figure | median | spread | ratio | target | |\n|---|---|---|---|---|---|\n');
for (const { name, unit, value, spread, ratio, ratioValue, target, met } of figures)
  process.stdout.write(`| ${name} | ${shown(value)} ${unit} | ${shown(spread)} | ${ratio === 'spread' ? '' : `${ratio} ${shown(ratioValue)}`} | ` +
                       `${target === 'none' ? '' : target} | ${target === 'none' ? '' : met ? 'ok' : 'miss'} |\n`);
