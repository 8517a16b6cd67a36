// The front of a deployed Odoo, as far as the smoke tests look at it.
import { HttpService } from './http_service.mjs';

export class Odoo {
  constructor(journal) {
    this.version = '19.0';
    this.healthy = true;
    this.service = new HttpService('odoo', journal, (request) => this.#respond(request));
    this.service.operationOf = (request) => request.url.split('?')[0];
  }
  start() { return this.service.start(); }
  stop() { return this.service.stop(); }

  #respond(request) {
    const html = (body) => ({ status: 200, headers: { 'content-type': 'text/html; charset=utf-8' }, body });
    switch (request.url.split('?')[0]) {
      case '/web/health': return this.healthy ? { status: 200, body: { status: 'pass' } } : { status: 500, body: { status: 'fail' } };
      case '/web/webclient/version_info': return { status: 200, body: { jsonrpc: '2.0', id: null, result: { server_version: this.version, server_serie: this.version } } };
      case '/web/version': return { status: 200, body: { version: this.version } };
      case '/web/login':
        return html('<!DOCTYPE html><html><head><link rel="stylesheet" type="text/css" href="/web/assets/1/web.assets_frontend.min.css"/>' +
          '<script src="/web/assets/1/web.assets_frontend.min.js"></script></head><body><form action="/web/login" method="post">' +
          '<input type="text" name="login"/><input type="password" name="password"/></form></body></html>');
      case '/web/assets/1/web.assets_frontend.min.css': return { status: 200, headers: { 'content-type': 'text/css' }, body: 'body{}' };
      case '/web/assets/1/web.assets_frontend.min.js': return { status: 200, headers: { 'content-type': 'application/javascript' }, body: 'odoo={}' };
      case '/shop': return html('<html><button>Add to cart</button></html>');
      default: return { status: 404, body: 'not found' };
    }
  }
}
