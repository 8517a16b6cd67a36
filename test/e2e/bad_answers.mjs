// Answers that no service should give: one line for each of inputs I30 to I51. answers.test.mjs runs them all at once.
//
//   [name, service, operation, fault, expected]
//   fault     as in test/services/http_service.mjs
//   expected  an error code: the run fails with it; 'success': refused or repeated, and the run goes well;
//             {code, message, hint}: the error's message or hint matches as well
import { gzipSync } from 'node:zlib';

const json = { 'content-type': 'application/json' };
const ok = (body, headers = json) => ({ status: 200, headers, body });
const head = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n';
const workflow = '{"id":1,"state":"active"}';
const oci = { 'content-type': 'application/vnd.oci.image.index.v1+json' };
const chunked = (chunks) => ({ raw: `${head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n${chunks}` });
const bad = (message) => ({ code: 'bad_response', message });
const get = ['github', 'actions/get-workflow'];
const run = ['github', 'actions/get-workflow-run'];
const app = ['digitalocean', 'apps_get'];
const manifest = ['registry', 'registry'];
const artifact = ['github', 'actions/download-artifact'];
const idOf = (request) => Number(request.url.match(/runs\/(\d+)/)[1]);
const runBody = (request, change) => ({ ...ok({ id: idOf(request), status: 'queued', conclusion: null, ...change }) });
const to = (location) => ({ status: 302, headers: { location } });

/** @param canary  URL of a server that is not in allowed_hosts and must never be called */
export const badAnswers = (canary) => [
  ['I30 empty body with 200', ...get, ok(''), bad(/not valid JSON/)],
  ['I30 204 with a body', ...get, { raw: 'HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n{"a":1}' }, bad(/answered 204/)],
  ['I30 200 with an error', ...get, ok('{"message":"Server Error"}'), bad(/\/state should be text and is missing/)],
  ['I30 200 with an error from DigitalOcean', ...app, ok('{"id":"server_error"}'), bad(/\/app should be an object/)],
  ['I30 dispatch answered with an empty 200', 'github', 'actions/create-workflow-dispatch', ok(''), 'success'],
  ['I30 PUT answered with an empty 200', 'digitalocean', 'apps_update', ok(''), 'success'],
  ...['{"state":"active"', `${workflow} x`, `${workflow}${workflow}`, `{/* */"state":"active"}`, `{'state':'active'}`, '{"state":NaN}', '[1,2', '\ufeff\ufeff{}', '"state"x']
    .map((body, i) => [`I31 no JSON document ${i}`, ...get, ok(body), bad(/not valid JSON/)]),
  ['I31 what came is kept short and masked', ...get, ok(`{"token":"ghp_${'a'.repeat(36)}" ${'x'.repeat(5000)}`), bad(/not valid JSON/)],
  ...[['"7"', 'string'], ['7.5', 'number'], ['null', 'missing'], ['1e400', 'JSON'], ['18446744073709551615', '64 bits'], ['[7]', 'array']]
    .map(([id, found], i) => [`I32 id ${i}`, ...run, ok(`{"id":${id},"status":"completed"}`), bad(new RegExp(found))]),
  ['I32 id missing', ...run, ok('{"status":"completed"}'), bad(/\/id should be an integer and is missing/)],
  ['I32 id negative', ...run, ok('{"id":-7,"status":"completed"}'), bad(/another run/)],
  ['I32 status a number', ...run, { answer: (request) => runBody(request, { status: 3 }) }, bad(/\/status should be text/)],
  ['I32 jobs an object', 'github', 'actions/list-jobs-for-workflow-run', ok('{"jobs":{}}'), bad(/\/jobs should be a list/)],
  ['I33 HTML with 200', ...get, ok('<html>login</html>', { 'content-type': 'text/html' }), bad(/content type is "text\/html"/)],
  ['I33 text/plain', ...get, ok(workflow, { 'content-type': 'text/plain' }), bad(/content type/)],
  ['I33 no content type', ...get, { raw: `HTTP/1.1 200 OK\r\nContent-Length: ${workflow.length}\r\n\r\n${workflow}` }, bad(/content type is ""/)],
  ['I33 another charset', ...get, ok(Buffer.from(workflow, 'utf16le'), { 'content-type': 'application/json; charset=utf-16' }), bad(/not valid JSON/)],
  ['I34 10 MB', ...get, ok(`"${'x'.repeat(10e6)}"`), bad(/too much/)],
  ['I34 a body without length and end', ...get, { raw: `${head}\r\n"${'x'.repeat(10e6)}` }, bad(/too much/)],
  ['I35 a gzip bomb', ...get, ok(gzipSync(Buffer.alloc(50e6)), { ...json, 'content-encoding': 'gzip' }), bad(/encoding/)],
  ...['gzip, gzip', 'br', 'rot13'].map((encoding) => [`I36 ${encoding}`, ...get, ok('\x1f\x8b\x08garbage', { ...json, 'content-encoding': encoding }), bad(/encoding/)]),
  ['I37 more than the length says', ...get, { raw: `${head}Content-Length: 5\r\n\r\n${workflow}` }, bad(/not valid JSON/)],
  ['I37 less than the length says', ...get, { raw: `${head}Content-Length: 500\r\n\r\n${workflow}` }, 'success'],
  ['I37 two lengths', ...get, { raw: `${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ` }, bad(/two different Content-Length|Weird server reply/)], // later than 7.88 libcurl sees it itself
  ['I37 length and chunks', ...get, { raw: `${head}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n` }, bad(/Transfer-Encoding/)],
  ['I38 a chunk of bad size', ...get, chunked(`zz\r\n${workflow}\r\n0\r\n\r\n`), 'success'],
  ['I38 no last chunk', ...get, chunked(`2\r\n{}\r\n`), 'success'],
  ['I38 100000 tiny chunks', ...get, chunked(`${'1\r\n \r\n'.repeat(100_000)}${[...workflow].map((c) => `1\r\n${c}\r\n`).join('')}0\r\n\r\n`), 'success'],
  ['I38 trailers', ...get, chunked(`${workflow.length.toString(16)}\r\n${workflow}\r\n0\r\nX-Trailer: 1\r\n\r\n`), 'success'],
  ['I39 100000 times 100', ...get, { raw: `${'HTTP/1.1 100 Continue\r\n\r\n'.repeat(100_000)}${head}\r\n${workflow}` }, bad(/header/)],
  ['I40 200000 headers', ...get, { raw: `${head}${'X-A: 1\r\n'.repeat(200_000)}\r\n` }, bad(/header lines/)],
  ['I40 a header of 1 MB', ...get, { raw: `${head}X-A: ${'a'.repeat(1e6)}\r\n\r\n${workflow}` }, 'success'],
  ['I40 control bytes in a header', ...get, { raw: `${head}X-A: a\x01b\r\nContent-Length: 2\r\n\r\n{}` }, bad(/control characters/)],
  ['I40 NUL in a header', ...get, { raw: `${head}X-A: a\0b\r\nContent-Length: 2\r\n\r\n{}` }, bad(/not.* HTTP/)],
  ...['000 Zero', '600 High', '999 Higher'].map((status) => [`I41 status ${status}`, ...get, { raw: `HTTP/1.1 ${status}\r\nContent-Length: 0\r\n\r\n` }, bad(/HTTP/)]),
  ['I41 status 99', ...get, { raw: 'HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n' }, bad(/HTTP/)],
  ['I41 HTTP/0.9', ...get, { raw: '<html>old</html>' }, bad(/HTTP/)],
  ['I41 SSH', ...get, { raw: 'SSH-2.0-OpenSSH_9.2\r\n' }, bad(/HTTP/)],
  ['I42 the API redirects elsewhere', ...get, to(`${canary}/api`), bad(/answered 302/)],
  ['I42 301 on a POST', 'github', 'actions/create-workflow-dispatch', { status: 301, headers: { location: `${canary}/post` } }, bad(/answered 301/)],
  ['I42 a download from a host that is not listed', ...artifact, to(`${canary}/file`), 'refused_by_rule'],
  ['I42 a download from the metadata service', ...artifact, to('http://169.254.169.254/latest/meta-data'), 'refused_by_rule'],
  ['I42 a download from a private address', ...artifact, to('https://10.0.0.1/file'), 'refused_by_rule'],
  ...['file:///etc/passwd', '', 'gopher://x/', 'https://user:password@ghcr.io/x', 'http://'].map((location, i) =>
    [`I42 a download from something else ${i}`, ...artifact, to(location), bad(/not a URL/)]),
  ['I42 a download that redirects to itself', ...artifact, { answer: (request) => to(request.url), times: 1e9 }, bad(/answered 302/)],
  ['I42 the registry redirects for ever', ...manifest, { answer: (request) => to(request.url), times: 1e9 }, bad(/redirects more than three times/)],
  ['I42 the registry redirects to a host that is not listed', ...manifest, { ...to(`${canary}/blob`), times: 1e9 }, 'refused_by_rule'],
  ['I43 absurd rate headers', ...get, ok(workflow, { ...json, 'x-ratelimit-remaining': 'NaN', 'x-ratelimit-reset': '1e400', 'retry-after': '-', date: 'yesterday', link: '<<<>>>; rel="next", <' }), 'success'],
  ['I43 doubled headers', ...get, { raw: `${head}Date: x\r\nDate: y\r\nX-RateLimit-Remaining: 5\r\nX-RateLimit-Remaining: 0\r\nContent-Length: ${workflow.length}\r\n\r\n${workflow}` }, 'success'],
  ['I43 401 with an absurd date', ...get, { status: 401, headers: { date: 'Thu, 99 Foo 9999 99:99:99 GMT' }, body: '{}' }, 'github_denied'],
  ['I46 another workflow run', ...run, ok('{"id":1,"status":"completed","conclusion":"success"}'), bad(/another run/)],
  ['I46 another app', ...app, ok('{"app":{"id":"another","spec":{"name":"x"}}}'), bad(/another app/)],
  ['I46 another deployment', 'digitalocean', 'apps_get_deployment', ok('{"deployment":{"id":"another","phase":"ACTIVE"}}'), bad(/another deployment/)],
  ['I47 an unknown status', ...run, { answer: (request) => runBody(request, { status: 'frozen' }) }, 'success'],
  ['I47 a status that goes backwards', ...run, { answer: (request) => runBody(request, { status: ['in_progress', 'queued', 'requested'][Math.floor(Math.random() * 3)] }), times: 6 }, 'success'],
  ['I47 an unknown phase', 'digitalocean', 'apps_get_deployment', { answer: (request) => ok({ deployment: { id: request.url.split('/').pop(), phase: 'FROBNICATING' } }) }, 'success'],
  ['I50 a digest header that the content does not have', ...manifest, { answer: (request) => request.headers.authorization && ok('{"schemaVersion":2}', { 'content-type': 'application/vnd.oci.image.manifest.v1+json', 'docker-content-digest': `sha256:${'0'.repeat(64)}` }), times: 2 }, 'digest_mismatch'],
  ['I50 10000 entries', ...manifest, { answer: (request) => request.headers.authorization && ok({ schemaVersion: 2, manifests: Array(10_000).fill({ digest: `sha256:${'1'.repeat(64)}`, size: 1, platform: { os: 'linux', architecture: 'arm' } }) }, oci), times: 1e9 }, 'image_unusable'],
  ['I50 an unknown media type', ...manifest, { answer: (request) => request.headers.authorization && ok({ schemaVersion: 2, pieces: [] }, { 'content-type': 'application/vnd.unknown.v9+json' }), times: 1e9 }, 'image_unusable'],
  ['I50 a layer of -1 bytes', ...manifest, { answer: (request) => request.headers.authorization && ok({ schemaVersion: 2, manifests: [{ digest: `sha256:${'1'.repeat(64)}`, size: -1, platform: { os: 'linux', architecture: 'amd64' } }] }, oci), times: 1e9 }, bad(/-1 bytes/)],
  ['I50 a login at a host that is not listed', ...manifest, { status: 401, headers: { 'www-authenticate': `Bearer realm="${canary}/token",service="x"` }, times: 1e9 }, 'refused_by_rule'],
  ['I50 a login of an unknown kind', ...manifest, { status: 401, headers: { 'www-authenticate': 'Negotiate' }, times: 1e9 }, bad(/login/)],
  ['I51 a token that has expired', 'registry', 'token', ok('{"token":"x","expires_in":-5}'), bad(/a token that has expired: it lasts -5 s/)],
  ['I51 no token', 'registry', 'token', ok('{"access_token":7}'), bad(/access_token/)],
];
