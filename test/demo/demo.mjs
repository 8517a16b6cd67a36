// `make demo`: registers a project and an environment, queues a run and shows it, all by SQL through psql.
import { execFileSync, spawnSync } from 'node:child_process';
import { startServices } from '../services/index.mjs';

function psql(sql, options = {}) {
  const result = spawnSync('psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', ...(options.tuples ? ['-At'] : ['-P', 'pager=off']), '-c', sql],
                           { encoding: 'utf8', stdio: options.tuples ? ['ignore', 'pipe', 'inherit'] : ['ignore', 'inherit', 'inherit'], env: { ...process.env, PGOPTIONS: '-c client_min_messages=info' } });
  if (result.status !== 0) throw new Error('psql failed');
  return (result.stdout ?? '').trim();
}
// Asynchronous, since the stand-ins live in this process and must answer meanwhile.
async function follow(sql) {
  const { spawn } = await import('node:child_process');
  const child = spawn('psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-c', sql], { stdio: ['ignore', 'inherit', 'pipe'] });
  child.stderr.setEncoding('utf8').on('data', (text) => process.stdout.write(text.replaceAll('INFO:  ', '  ')));
  const code = await new Promise((resolve) => child.on('close', resolve));
  if (code !== 0) throw new Error('psql failed');
}

const services = await startServices({ buildMs: 1500, deployMs: 1500 });
let status = 'not started';
try {
  const owner = (flag) => Number(execFileSync('id', [flag, process.env.OPS_SERVER_USER]).toString());
  services.writeSecrets(process.env.OPS_SECRETS, owner('-u'), owner('-g'));
  for (const setting of [`allowed_hosts = '${services.allowedHosts}'`, 'mutation_interval = 0']) psql(`ALTER SYSTEM SET ops_runner.${setting}`);
  psql('SELECT pg_reload_conf()', { tuples: true });

  const statements = [
    'CREATE EXTENSION ops_runner',
    `INSERT INTO ops.projects (project_id, name, repo_slug, odoo_version)\nVALUES ('acme', 'Acme', 'acme/odoo', '19.0')`,
    `INSERT INTO ops.environments (env_id, project_id, env_type, config)\nVALUES ('acme-staging', 'acme', 'staging',\n        '${JSON.stringify(services.environment('odoo', { github: { poll_interval: '200 ms' }, digitalocean: { poll_interval: '200 ms' } }))}')`,
  ];
  for (const statement of statements) {
    console.log(`\n${statement};`);
    psql(statement);
  }
  const queue = `SELECT run_id FROM ops.queue_run('acme', 'staging', '0123456789abcdef0123456789abcdef01234567', 'main')`;
  console.log(`\n${queue};`);
  const run = psql(queue, { tuples: true });
  console.log(`\nCALL ops.tail('${run}');`);
  await follow(`CALL ops.tail('${run}')`);
  const show = [`SELECT * FROM ops.timeline('${run}')`,
                `SELECT artifact_type, left(storage_path, 60) AS storage_path, size_bytes FROM ops.artifacts WHERE run_id = '${run}'`,
                'SELECT state, claimed, finished FROM ops.worker_status'];
  for (const statement of show) {
    console.log(`\n${statement};`);
    psql(statement);
  }
  status = psql(`SELECT status FROM ops.runs WHERE run_id = '${run}'`, { tuples: true });
  console.log(`run ${run}: ${status}`);
  if (process.stdin.isTTY) {
    console.log(`\nThe server stays up until you press Enter. In another terminal:
  psql -h ${process.env.PGHOST} -p ${process.env.PGPORT} -U postgres
  SELECT * FROM ops.queue_run('acme', 'staging', 'abcdef0123', 'main');   -- queue another run
  CALL ops.tail((SELECT max(run_id) FROM ops.runs));                      -- watch it
  SELECT ops.cancel_run((SELECT max(run_id) FROM ops.runs));              -- stop it
  SELECT * FROM ops.worker_status;`);
    await new Promise((resolve) => process.stdin.once('data', resolve));
  } else {
    console.log('In a terminal `make demo` leaves the server up, with statements to try.');
  }
} finally {
  await services.stop();
}
process.exit(status === 'success' ? 0 : 1);
