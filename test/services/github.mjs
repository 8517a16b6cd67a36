// GitHub: workflow dispatch, runs, jobs, logs, artifacts. Requests are validated against the official description; a build
// that succeeds pushes a real image into the registry.
import { createHash, createVerify, randomUUID } from 'node:crypto';
import { check, githubDescription } from './description.mjs';
import { HttpService } from './http_service.mjs';
import { fingerprint } from './journal.mjs';
import { zip } from './zip.mjs';

const stepNames = ['Set up job', 'Check out', 'Build and push'];

export class Github {
  /** @param options {token, appId, appPublicKey, registry, buildMs} */
  constructor(journal, options) {
    Object.assign(this, { buildMs: 300, jobs: ['build', 'report'] }, options);
    this.runs = new Map();
    this.installationTokens = new Set();
    this.nextId = 9_007_199_254; // ids are 64 bits wide
    this.outcome = {}; // {conclusion, failingStep, neverEnds, plain204, noArtifact, wrongDigest, listAfterMs, listEnded, visibleAfterMs, twins, logBytes}
    this.clockOffsetMs = 0; // of this service's clock against the real one
    this.service = new HttpService('github', journal, (request, body) => this.#respond(request, body));
    this.service.operationOf = (request) => this.api && check(this.api, request, Buffer.alloc(0)).operation;
    // Signed URLs live on another origin, which must never see a credential.
    this.files = new HttpService('github-files', journal, (request) => this.#file(request));
    this.signed = new Map();
  }

  async start() {
    this.api = await githubDescription();
    await this.files.start();
    return this.service.start();
  }

  async stop() {
    await this.service.stop();
    await this.files.stop();
  }

  #file(request) {
    if (request.headers.authorization || request.headers.cookie)
      return { status: 400, body: { message: 'a credential was sent to a signed URL' }, errors: ['credential at a signed URL'] };
    const make = this.signed.get(request.url);
    if (!make) return { status: 404, body: 'expired' };
    const { type, bytes } = make();
    return { status: 200, headers: { 'content-type': type }, body: bytes, operation: 'signed-file' };
  }

  #sign(make) {
    const url = `/signed/${randomUUID()}?sig=${randomUUID()}`;
    this.signed.set(url, make);
    return this.files.url + url;
  }

  #denied(request, operation) {
    const authorization = request.headers.authorization ?? '';
    if (!request.headers['user-agent']) return { status: 403, message: 'User-Agent missing' };
    if (!request.headers.accept?.includes('application/vnd.github+json')) return { status: 415, message: 'Accept missing' };
    if (request.headers['x-github-api-version'] !== '2022-11-28') return { status: 400, message: 'API version' };
    const token = authorization.replace(/^Bearer /, '');
    if (operation?.startsWith('apps/')) return this.#isAppJwt(token) ? null : { status: 401, message: 'A JSON web token could not be decoded' };
    if (token === this.token || this.installationTokens.has(token)) return null;
    return { status: 401, message: 'Bad credentials' };
  }

  #isAppJwt(token) {
    const [header, claims, signature] = token.split('.');
    if (!signature || !this.appPublicKey) return false;
    const said = JSON.parse(Buffer.from(claims, 'base64url'));
    const now = (Date.now() + this.clockOffsetMs) / 1000;
    return said.iss === String(this.appId) && said.iat <= now && said.exp > now && said.exp - said.iat <= 660 &&
      createVerify('RSA-SHA256').update(`${header}.${claims}`).verify(this.appPublicKey, Buffer.from(signature, 'base64url'));
  }

  async #respond(request, body) {
    const asked = check(this.api, request, body);
    const { operation } = asked;
    const credential = fingerprint(request.headers.authorization);
    const answer = (status, content, headers = {}, key) => ({
      status, body: content, operation, key, credential, errors: asked.errors.length ? asked.errors : undefined,
      headers: { 'x-ratelimit-limit': '5000', 'x-ratelimit-remaining': '4999', 'x-ratelimit-reset': String(Math.floor(Date.now() / 1000) + 3600),
                 date: new Date(Date.now() + this.clockOffsetMs).toUTCString(), ...headers },
    });
    if (asked.errors.length) return answer(400, { message: asked.errors.join('; ') });
    const denied = this.#denied(request, operation);
    if (denied) return answer(denied.status, { message: denied.message });
    const p = asked.params;
    const repo = `${p.owner}/${p.repo}`;
    const run = p.run_id ? this.runs.get(Number(p.run_id)) : null;
    if (p.run_id && (run?.repo !== repo || Date.now() - run.createdAt < (run.outcome.visibleAfterMs ?? 0))) return answer(404, { message: 'Not Found' });

    switch (operation) {
      case 'apps/get-repo-installation':
        return answer(200, { id: 77, app_id: Number(this.appId) });
      case 'apps/create-installation-access-token': {
        const token = `ghs_${this.appId}_${randomUUID()}`;
        this.installationTokens.add(token);
        return answer(201, { token, expires_at: new Date(Date.now() + 3_600_000).toISOString(), permissions: { actions: 'write' }, repository_selection: 'selected' });
      }
      case 'repos/get-commit':
        return p.ref.startsWith('dead') ? answer(422, { message: `No commit found for SHA: ${p.ref}` }) : answer(200, { sha: p.ref.padEnd(40, '0') });
      case 'actions/get-workflow':
        return p.workflow_id === 'missing.yml' ? answer(404, { message: 'Not Found' })
          : answer(200, { id: 1, name: 'build', path: `.github/workflows/${p.workflow_id}`, state: p.workflow_id === 'disabled.yml' ? 'disabled_manually' : 'active' });
      case 'actions/create-workflow-dispatch': {
        const inputs = asked.body.inputs ?? {};
        const created = this.#dispatch(repo, p.workflow_id, asked.body.ref, inputs);
        if (this.outcome.twins) this.#dispatch(repo, p.workflow_id, asked.body.ref, inputs);
        if (this.outcome.plain204) return answer(204, '', {}, inputs.run_token);
        return answer(200, { workflow_run_id: created.id, run_url: this.#url(created), html_url: this.#html(created) }, {}, inputs.run_token);
      }
      case 'actions/list-workflow-runs': {
        const since = asked.query.created?.replace(/^>=/, '') ?? '1970-01-01T00:00:00Z';
        const visibleUntil = Date.now() - (this.outcome.listAfterMs ?? 0);
        const all = [...this.runs.values()].filter((r) => r.repo === repo && r.workflow === p.workflow_id);
        const haveEnded = all.map((r) => this.#status(r)).every((status) => status === 'completed'); // what is not shown goes on as well
        const found = all.filter((r) => r.createdAt >= Date.parse(since) && r.createdAt <= visibleUntil && (haveEnded || !this.outcome.listEnded));
        return answer(200, { total_count: found.length, workflow_runs: found.map((r) => this.#view(r)) });
      }
      case 'actions/get-workflow-run': {
        const view = this.#view(run);
        const etag = `"${createHash('sha1').update(JSON.stringify(view)).digest('hex')}"`;
        if (request.headers['if-none-match'] === etag) return answer(304, '', { etag });
        return answer(200, view, { etag });
      }
      case 'actions/list-jobs-for-workflow-run': {
        const jobs = this.#jobs(run);
        return answer(200, { total_count: jobs.length, jobs });
      }
      case 'actions/list-workflow-run-artifacts': {
        const name = `build-result-${run.inputs.run_token}`;
        const bytes = this.#result(run);
        const gone = this.outcome.noArtifact || !run.digest || (asked.query.name && asked.query.name !== name);
        return answer(200, { total_count: gone ? 0 : 1, artifacts: gone ? [] : [{ id: run.id, name, size_in_bytes: bytes.length, expired: false,
          digest: 'sha256:' + createHash('sha256').update(bytes).digest('hex') }] });
      }
      case 'actions/download-artifact': {
        const owner = this.runs.get(Number(p.artifact_id));
        return answer(302, '', { location: this.#sign(() => ({ type: 'application/zip', bytes: this.#result(owner) })) });
      }
      case 'actions/download-job-logs-for-workflow-run':
        if (this.outcome.logsGone) return answer(410, { message: 'Gone' });
        return answer(302, '', { location: this.#sign(() => ({ type: 'text/plain', bytes: this.#log(p.job_id) })) });
      case 'actions/cancel-workflow-run':
      case 'actions/force-cancel-workflow-run':
        if (this.#status(run) === 'completed') return answer(409, { message: 'Cannot cancel a workflow run that is completed' });
        run.cancelledAt ??= Date.now();
        return answer(202, {}, {}, run.inputs.run_token);
      default:
        return answer(404, { message: 'Not Found' });
    }
  }

  #log(jobId) {
    const line = `2026-01-01T00:00:00Z \u001b[32mjob ${jobId}\u001b[0m token ghp_abcdefghijklmnopqrstuvwxyz0123456789 end\n`;
    const lines = Math.max(1, Math.floor((this.outcome.logBytes ?? 1) / line.length));
    const block = Buffer.from(line.repeat(Math.min(lines, 10_000)));
    const rest = Buffer.from(line.repeat(lines % 10_000));
    // In blocks: a log of half a gigabyte must not be in this process's memory at once.
    return lines < 10_000 ? block : { bytes: lines * line.length, blocks: Array(Math.floor(lines / 10_000)).fill(block).concat(rest) };
  }

  #dispatch(repo, workflow, ref, inputs) {
    const run = { id: this.nextId++, repo, workflow, ref, inputs, createdAt: Date.now(), outcome: { ...this.outcome } };
    this.runs.set(run.id, run);
    return run;
  }

  #status(run) {
    if (run.cancelledAt) return Date.now() - run.cancelledAt > this.buildMs / 4 ? 'completed' : 'in_progress';
    const age = Date.now() - run.createdAt;
    if (age < this.buildMs / 4) return 'queued';
    if (run.outcome.neverEnds || age < this.buildMs) return 'in_progress';
    if (!run.finishing) {
      run.finishing = true;
      const failed = run.outcome.conclusion && run.outcome.conclusion !== 'success';
      const image = run.inputs.image?.split('/').slice(1).join('/');
      if (failed || !image || !this.registry) run.done = true;
      else
        this.registry.push(image, [`sha-${run.inputs.git_sha}`, `run-${run.inputs.run_token}`], run.inputs.git_sha)
          .then((digest) => { run.digest = digest; run.done = true; })
          .catch((error) => { run.outcome.conclusion = 'failure'; run.pushError = String(error); run.done = true; });
    }
    return run.done ? 'completed' : 'in_progress';
  }

  #conclusion(run) {
    if (this.#status(run) !== 'completed') return null;
    return run.cancelledAt ? 'cancelled' : run.outcome.conclusion ?? 'success';
  }

  #url(run) { return `${this.service.url}/repos/${run.repo}/actions/runs/${run.id}`; }
  #html(run) { return `https://github.example/${run.repo}/actions/runs/${run.id}`; }

  #view(run) {
    const status = this.#status(run);
    return {
      id: run.id, name: 'build', display_title: `build ${run.inputs.git_sha} [${run.inputs.run_token}]`, status,
      conclusion: this.#conclusion(run), run_attempt: 1, run_number: 1, event: 'workflow_dispatch', head_branch: run.ref,
      head_sha: '0'.repeat(40), html_url: this.#html(run), created_at: new Date(run.createdAt).toISOString(),
      updated_at: new Date(run.createdAt).toISOString(), path: `.github/workflows/${run.workflow}`,
    };
  }

  #jobs(run) {
    const finished = this.#status(run) === 'completed';
    const conclusion = this.#conclusion(run);
    return this.jobs.map((name, j) => {
      const failsHere = conclusion === 'failure' && j === 0;
      return {
        id: run.id * 10 + j, run_id: run.id, run_attempt: 1, name, html_url: `${this.#html(run)}/job/${run.id * 10 + j}`,
        status: finished ? 'completed' : 'in_progress',
        conclusion: !finished ? null : failsHere ? 'failure' : conclusion === 'failure' ? 'skipped' : conclusion,
        steps: stepNames.map((step, s) => {
          const failing = failsHere && step === (run.outcome.failingStep ?? 'Build and push');
          const over = finished || s === 0;
          return { number: s + 1, name: step, status: over ? 'completed' : 'in_progress', conclusion: !over ? null : failing ? 'failure' : 'success' };
        }),
      };
    });
  }

  #result(run) {
    return zip('result.json', JSON.stringify({
      image: run.inputs.image, digest: run.outcome.wrongDigest ?? run.digest, platforms: ['linux/amd64'],
      git_sha: run.outcome.wrongSha ?? run.inputs.git_sha, run_token: run.inputs.run_token }));
  }
}
