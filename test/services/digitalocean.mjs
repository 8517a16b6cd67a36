// DigitalOcean App Platform: apps, proposals, deployments. Validated against the official description when
// DIGITALOCEAN_OPENAPI names it, else by the checks below.
import { randomUUID } from 'node:crypto';
import { check, digitaloceanDescription } from './description.mjs';
import { HttpService } from './http_service.mjs';
import { fingerprint } from './journal.mjs';

const encrypted = 'EV[1:stand-in]';
const routes = [
  ['GET', /^\/v2\/apps\/([^/]+)$/, 'apps_get'], ['PUT', /^\/v2\/apps\/([^/]+)$/, 'apps_update'],
  ['POST', /^\/v2\/apps\/propose$/, 'apps_validate_appSpec'],
  ['GET', /^\/v2\/apps\/([^/]+)\/deployments$/, 'apps_list_deployments'],
  ['GET', /^\/v2\/apps\/([^/]+)\/deployments\/([^/]+)$/, 'apps_get_deployment'],
  ['POST', /^\/v2\/apps\/([^/]+)\/deployments\/([^/]+)\/cancel$/, 'apps_cancel_deployment'],
];

export class Digitalocean {
  constructor(journal, options) {
    Object.assign(this, { deployMs: 300 }, options);
    this.apps = new Map();
    this.outcome = {}; // {phase: 'ERROR', reason: {code, message}, neverEnds, visibleAfterMs, refusesTwins}
    this.service = new HttpService('digitalocean', journal, (request, body) => this.#respond(request, body));
    this.service.operationOf = (request) => this.#route(request)?.operation ?? null;
  }

  async start() {
    this.api = await digitaloceanDescription();
    return this.service.start();
  }
  stop() { return this.service.stop(); }

  addApp(components = ['odoo']) {
    const id = randomUUID();
    this.apps.set(id, {
      id, deployments: [],
      spec: {
        name: 'odoo-app', region: 'fra',
        services: components.map((name) => ({
          name, http_port: 8069, instance_count: 1, instance_size_slug: 'apps-s-1vcpu-1gb',
          image: { registry_type: 'GHCR', registry: 'acme', repository: 'odoo', tag: 'before', registry_credentials: encrypted },
          envs: [{ key: 'ADMIN_PASSWORD', value: encrypted, scope: 'RUN_TIME', type: 'SECRET' }],
        })),
        workers: [{ name: 'mailer', image: { registry_type: 'DOCKER_HUB', registry: 'acme', repository: 'mailer', tag: 'latest' } }],
      },
    });
    return id;
  }

  #route(request) {
    const path = request.url.split('?')[0];
    for (const [method, pattern, operation] of routes) {
      const match = request.method === method && path.match(pattern);
      if (match) return { operation, id: match[1], deployment: match[2] };
    }
    return null;
  }

  #phase(deployment) {
    const age = Date.now() - deployment.createdAt;
    if (deployment.cancelledAt) return 'CANCELED';
    if (age < this.deployMs / 3) return 'PENDING_DEPLOY';
    if (deployment.outcome.neverEnds || age < this.deployMs) return 'DEPLOYING';
    return deployment.outcome.phase ?? 'ACTIVE';
  }

  #view(deployment) {
    const phase = this.#phase(deployment);
    const status = { ACTIVE: 'SUCCESS', ERROR: 'ERROR', DEPLOYING: 'RUNNING' }[phase] ?? 'PENDING';
    const step = { name: 'deploy', status, steps: [{ name: 'components', status, steps: [
      { name: 'odoo', component_name: 'odoo', status, ...(status === 'ERROR' && { reason: deployment.outcome.reason ?? { code: 'DeployContainerHealthChecksFailed', message: 'health check failed' } }) }] }] };
    return { id: deployment.id, spec: deployment.spec, phase, cause: 'app spec updated', created_at: new Date(deployment.createdAt).toISOString(),
             progress: { total_steps: 1, steps: [{ name: 'build', status: 'SUCCESS' }, step] } };
  }

  #visible(app) { return app.deployments.filter((d) => Date.now() - d.createdAt >= (d.outcome.visibleAfterMs ?? 0)); }

  #app(app) {
    const current = this.#visible(app).at(-1);
    const phase = current && this.#phase(current);
    const member = !current ? null : phase === 'PENDING_DEPLOY' ? 'pending_deployment' : phase === 'ACTIVE' ? 'active_deployment'
      : ['ERROR', 'CANCELED'].includes(phase) ? null : 'in_progress_deployment';
    return { id: app.id, spec: app.deployments.length ? current?.spec ?? app.firstSpec : app.spec, ...(member && { [member]: this.#view(current) }) };
  }

  /** What the checks of this product's promises find in a submitted spec. */
  #findings(app, spec) {
    const findings = [];
    for (const list of ['services', 'workers', 'jobs'])
      for (const before of app.spec[list] ?? []) {
        const after = (spec[list] ?? []).find((c) => c.name === before.name);
        if (!after) { findings.push(`component ${before.name} was dropped`); continue; }
        if (before.image?.registry_credentials && after.image?.registry_credentials !== before.image.registry_credentials)
          findings.push(`registry_credentials of ${before.name} were not sent back`);
        for (const env of before.envs ?? [])
          if (env.type === 'SECRET' && after.envs?.find((e) => e.key === env.key)?.value !== env.value) findings.push(`secret ${env.key} was not sent back`);
        if (after.image?.digest && after.image?.tag) findings.push(`${before.name} has tag and digest`);
      }
    return findings;
  }

  async #respond(request, body) {
    const route = this.#route(request);
    let errors = [];
    let parsed = null;
    if (this.api) {
      const asked = check(this.api, request, body);
      errors = asked.errors;
      parsed = asked.body;
    } else if (body.length) {
      parsed = JSON.parse(body);
      if (['apps_update', 'apps_validate_appSpec'].includes(route?.operation) && typeof parsed.spec?.name !== 'string') errors.push('spec.name is missing');
    }
    const app = this.apps.get(route?.operation === 'apps_validate_appSpec' ? parsed?.app_id : route?.id);
    const token = ['services', 'workers', 'jobs'].flatMap((list) => parsed?.spec?.[list] ?? []).flatMap((component) => component.envs ?? [])
      .find((env) => env.key === 'OPS_RUN_TOKEN')?.value;
    if (parsed?.spec && app) errors.push(...this.#findings(app, parsed.spec));
    const answer = (status, content) => ({ status, body: content, operation: route?.operation, key: token, credential: fingerprint(request.headers.authorization),
      errors: errors.length ? errors : undefined, headers: { 'ratelimit-limit': '5000', 'ratelimit-remaining': '4900', 'ratelimit-reset': String(Math.floor(Date.now() / 1000) + 3600) } });
    const refuse = (status, id, message) => answer(status, { id, message, request_id: randomUUID() });
    if (request.headers.authorization !== `Bearer ${this.token}`) return refuse(401, 'unauthorized', 'Unable to authenticate you');
    if (errors.length) return refuse(422, 'unprocessable_entity', errors.join('; '));
    if (!app) return refuse(404, 'not_found', 'The resource you were accessing could not be found.');
    const deployment = app.deployments.find((d) => d.id === route.deployment);
    switch (route.operation) {
      case 'apps_get': return answer(200, { app: this.#app(app) });
      case 'apps_validate_appSpec': return answer(200, { spec: parsed.spec, app_cost: 10 });
      case 'apps_update': {
        if (this.outcome.refusesTwins && app.deployments.some((d) => d.token === token)) return refuse(409, 'conflict', 'this spec is being deployed');
        app.firstSpec ??= app.spec;
        app.spec = parsed.spec;
        const created = { id: randomUUID(), token, spec: parsed.spec, createdAt: Date.now(), outcome: { ...this.outcome } };
        app.deployments.push(created);
        return answer(200, { app: { ...this.#app(app), pending_deployment: this.#view(created) } });
      }
      case 'apps_list_deployments': return answer(200, { deployments: this.#visible(app).map((d) => this.#view(d)).reverse(), links: {}, meta: { total: app.deployments.length } });
      case 'apps_get_deployment': return deployment ? answer(200, { deployment: this.#view(deployment) }) : refuse(404, 'not_found', 'no such deployment');
      case 'apps_cancel_deployment':
        if (['PENDING_DEPLOY', 'DEPLOYING'].includes(this.#phase(deployment))) deployment.cancelledAt = Date.now();
        return answer(200, { deployment: this.#view(deployment) });
      default: return refuse(404, 'not_found', 'no such route');
    }
  }
}
