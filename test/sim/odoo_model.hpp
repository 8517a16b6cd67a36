// The front of a deployed Odoo, as far as the smoke tests look at it.
#pragma once

#include "ground.hpp"

namespace ops::sim {

inline HttpResponse odoo_answer(const Url& url, bool healthy) {
  const auto page = [](const char* type, const char* body) {
    HttpResponse response = answer(200);
    response.headers = {{"Content-Type", type}};
    response.body = body;
    response.body_bytes = static_cast<std::int64_t>(response.body.size());
    return response;
  };
  if (!healthy) return answer(503);
  if (url.path == "/web/health") return answer(200, {{"status", "pass"}});
  if (url.path == "/web/webclient/version_info") return answer(200, {{"result", {{"server_serie", "19.0"}}}});
  if (url.path == "/web/login")
    return page("text/html",
                "<html><link rel=\"stylesheet\" href=\"/a.min.css\"/><script src=\"/a.min.js\"></script>"
                "<input type=\"text\" name=\"login\"/><input type=\"password\" name=\"password\"/></html>");
  if (url.path == "/a.min.css") return page("text/css", "body{}");
  if (url.path == "/a.min.js") return page("application/javascript", "odoo={}");
  return answer(404);
}

}  // namespace ops::sim
