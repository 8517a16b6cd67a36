// The stand-ins as a process of their own: main.mjs SECRETS_DIRECTORY [USER]
//
// Writes the secrets for that user, prints one line of JSON ({control, allowedHosts}) and takes commands at the control URL:
// POST /NAME with a JSON object, answered with JSON. Ends when its standard input does.
import { execFileSync } from 'node:child_process';
import http from 'node:http';
import { quickDirectory, startServices } from './index.mjs';

const [secretsDirectory, user] = process.argv.slice(2);
const services = await startServices({ stateDir: quickDirectory() });
const id = (flag) => Number(execFileSync('id', [flag, user]).toString());
services.writeSecrets(secretsDirectory, ...(user ? [id('-u'), id('-g')] : []));

const commands = {
  /** Accepted requests, of one operation or all that change something. */
  accepted: ({ operation }) => services.journal.accepted(operation),
  invalid: () => services.journal.invalid(),
  requests: () => services.journal.entries.length,
  fault: ({ service, ...fault }) => services[service].service.fault(fault),
  release: ({ service }) => services[service].service.release(),
  /** Properties of a stand-in: outcome, buildMs, deployMs, healthy, version. */
  set: ({ service, ...values }) => Object.assign(services[service], values) && null,
  heal: () => services.heal(),
  environment: ({ name, changes }) => services.environment(name, changes),
};

const control = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  try {
    const command = commands[request.url.slice(1)];
    if (!command) throw new Error(`no command ${request.url}; there are ${Object.keys(commands)}`);
    const body = Buffer.concat(chunks).toString();
    response.end(JSON.stringify((await command(body ? JSON.parse(body) : {})) ?? null));
  } catch (error) {
    response.writeHead(500);
    response.end(String(error.stack));
  }
});
await new Promise((resolve) => control.listen(0, '127.0.0.1', resolve));
console.log(JSON.stringify({ control: `http://127.0.0.1:${control.address().port}`, allowedHosts: services.allowedHosts }));

process.stdin.resume();
process.stdin.on('end', async () => {
  control.closeAllConnections();
  control.close();
  await services.stop();
  process.exit(0);
});
