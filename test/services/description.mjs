// Validates requests against an official OpenAPI description.
import { OpenAPIBackend } from 'openapi-backend';
import addFormats from 'ajv-formats';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';

const require = createRequire(import.meta.url);

const githubOperations = [
  'apps/get-repo-installation', 'apps/create-installation-access-token', 'repos/get-commit', 'actions/get-workflow',
  'actions/create-workflow-dispatch', 'actions/list-workflow-runs', 'actions/get-workflow-run',
  'actions/list-jobs-for-workflow-run', 'actions/download-job-logs-for-workflow-run', 'actions/list-workflow-run-artifacts',
  'actions/download-artifact', 'actions/cancel-workflow-run', 'actions/force-cancel-workflow-run',
];

/** The description cut down to the operations that are used; loading the whole takes seconds, so the cut is kept. */
function reduced(file, operationIds) {
  const stamp = createHash('sha256').update(`2:${file}:${statSync(file).size}:${operationIds}`).digest('hex').slice(0, 16);
  const cache = path.join(process.env.OPS_CACHE ?? tmpdir(), `ops_runner_description_${process.getuid()}_${stamp}.json`);
  if (existsSync(cache)) return JSON.parse(readFileSync(cache, 'utf8'));
  const whole = JSON.parse(readFileSync(file, 'utf8'));
  const paths = {};
  for (const [route, item] of Object.entries(whole.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (operation && operationIds.includes(operation.operationId)) {
        // Answers are ours to make; only requests are validated.
        (paths[route] ??= item.parameters ? { parameters: item.parameters } : {})[method] = {
          ...operation, responses: { default: { description: 'any' } },
          // The description calls `created` a date-time; the documentation and the service take search dates (>=2026-01-31T…).
          parameters: (operation.parameters ?? []).map((parameter) =>
            parameter.name === 'created' ? { ...parameter, schema: { type: 'string' } } : parameter) };
      }
    }
  }
  const description = { openapi: whole.openapi, info: whole.info, paths };
  mkdirSync(path.dirname(cache), { recursive: true });
  writeFileSync(`${cache}.${process.pid}`, JSON.stringify(description));
  renameSync(`${cache}.${process.pid}`, cache);
  return description;
}

export async function githubDescription() {
  const file = require.resolve('@octokit/openapi/generated/api.github.com.deref.json');
  return backend(reduced(file, githubOperations));
}

/** Null when no description file is named in DIGITALOCEAN_OPENAPI. */
export async function digitaloceanDescription() {
  const file = process.env.DIGITALOCEAN_OPENAPI;
  return file ? backend(JSON.parse(readFileSync(file, 'utf8'))) : null;
}

async function backend(definition) {
  const api = new OpenAPIBackend({
    definition, quick: true, ajvOpts: { strict: false, allErrors: false },
    customizeAjv: (ajv) => (addFormats(ajv), ajv),
  });
  await api.init();
  return api;
}

/** {operation, params, query, errors} of a request; operation is null for a path that the description does not know. */
export function check(api, request, body) {
  const url = new URL(request.url, 'http://stand-in');
  const query = {};
  for (const key of new Set(url.searchParams.keys())) {
    const values = url.searchParams.getAll(key);
    query[key] = values.length > 1 ? values : values[0];
  }
  let parsed;
  const errors = [];
  if (body.length) {
    try {
      parsed = JSON.parse(body.toString('utf8'));
    } catch {
      errors.push('the body is not JSON');
    }
  }
  const described = { method: request.method, path: url.pathname, headers: request.headers, query, body: parsed };
  const operation = api.router.matchOperation(described);
  if (!operation) return { operation: null, errors: [`no operation ${request.method} ${url.pathname}`] };
  const known = api.router.parseRequest(described, operation);
  const validation = api.validator.validateRequest(described, operation);
  for (const error of validation.errors ?? []) errors.push(`${error.instancePath} ${error.message}`);
  return { operation: operation.operationId, params: known.params, query, body: parsed, errors };
}
