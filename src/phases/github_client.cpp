#include "phases/github_client.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "core/json.hpp"
#include "core/redact.hpp"
#include "core/session_tokens.hpp"
#include "core/url.hpp"

namespace ops {

namespace {

constexpr int most_pages = 100;
constexpr Millis usual_token_life = std::chrono::minutes{55};
constexpr Millis longest_token_life = std::chrono::hours{1};
constexpr Millis renew_margin = std::chrono::minutes{5};

std::string config_text(const Json& config, std::string_view pointer, const char* usual) {
  return optional_text_at(config, pointer).value_or(usual);
}

/// URL of rel="next" in a Link header.
std::optional<std::string> next_page(const HttpResponse& response) {
  const std::string_view link = response.header("link");
  for (std::size_t at = 0; (at = link.find('<', at)) != std::string_view::npos;) {
    const std::size_t close = link.find('>', at);
    if (close == std::string_view::npos) return std::nullopt;
    const std::size_t end = std::min(link.find(',', close), link.size());
    if (link.substr(close, end - close).find("rel=\"next\"") != std::string_view::npos)
      return std::string(link.substr(at + 1, close - at - 1));
    at = close;
  }
  return std::nullopt;
}

char lower_case(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

/// How long the token of this answer may be used. @param now  on GitHub's clock
Millis token_life(const Json& answer, WallTime now) {
  const auto told = optional_text_at(answer, "/expires_at");
  if (!told) return usual_token_life;
  const auto end = rfc3339_time(*told);
  if (!end || *end <= now)
    throw PhaseError(
        "bad_response",
        "GitHub answered with an installation token that " + (end ? "ended at " : std::string("ends at ")) +
            clean_text(*told, 60) + (end ? "" : ", which is no time"),
        "The token was not used. Retry the run; if it stays, look at the clock of the service and what lies between.");
  return std::min(std::chrono::floor<Millis>(*end - now), longest_token_life);
}

}  // namespace

GithubClient::GithubClient(PhaseContext& context)
    : context_(context),
      api_url_(config_text(context.config(), "/github/api_url", "https://api.github.com")),
      credential_(config_text(context.config(), "/github/credential", "github")),
      app_(config_text(context.config(), "/github/auth", "token") == "app"),
      configured_installation_(optional_integer_at(context.config(), "/github/installation_id")) {
  while (api_url_.ends_with('/')) api_url_.pop_back();
  repository_url_ = api_url_ + "/repos/" + percent_encode_path(context.run().repo_slug);
}

std::string GithubClient::token_key() const {
  return "github|" + api_url_ + "|" + credential_ + "|" + context_.run().repo_slug;
}

Coroutine<std::string> GithubClient::installation_id() {
  if (configured_installation_) co_return std::to_string(*configured_installation_);
  HttpRequest request;
  request.url = repository_url_ + "/installation";
  request.headers = {{"Accept", "application/vnd.github+json"}, {"X-GitHub-Api-Version", "2022-11-28"}};
  request.credential = CredentialUse{CredentialScheme::github_app_jwt, credential_, api_url_, {}};
  const HttpResponse response = co_await context_.request(std::move(request));
  if (response.status != 200) throw unexpected(response, "the App's installation in " + context_.run().repo_slug);
  const Json found = answer_json(response, "GitHub", "the App's installation");
  co_return std::to_string(integer_at(found, "/id"));
}

Coroutine<> GithubClient::authorize(HttpRequest& request) {
  request.headers.push_back({"Accept", "application/vnd.github+json"});
  request.headers.push_back({"X-GitHub-Api-Version", "2022-11-28"});
  if (!app_) {
    request.credential = CredentialUse{CredentialScheme::bearer, credential_, api_url_, {}};
    co_return;
  }
  request.session_token = co_await installation_token();
}

Coroutine<> GithubClient::renew_token(HttpRequest& request) {
  context_.tokens().forget(token_key(), request.session_token);
  request.session_token = co_await installation_token();
}

std::function<Coroutine<>(HttpRequest&)> GithubClient::renewal() {
  if (!app_) return {};
  return [this](HttpRequest& request) { return renew_token(request); };
}

Coroutine<std::shared_ptr<const SecretString>> GithubClient::installation_token() {
  auto kept = context_.tokens().find(token_key(), context_.steady_now(), renew_margin);
  if (kept) co_return kept;
  const std::string installation = co_await installation_id();
  // Not an effect: a second token harms nobody, and the token itself must not be recorded.
  HttpRequest exchange;
  exchange.method = Method::post;
  exchange.url = api_url_ + "/app/installations/" + installation + "/access_tokens";
  exchange.headers = {{"Accept", "application/vnd.github+json"},
                      {"X-GitHub-Api-Version", "2022-11-28"},
                      {"Content-Type", "application/json"}};
  const std::string& slug = context_.run().repo_slug;
  exchange.body = dump_json({{"repositories", Json::array({slug.substr(slug.find('/') + 1)})}});
  exchange.credential = CredentialUse{CredentialScheme::github_app_jwt, credential_, api_url_, {}};
  const HttpResponse response = co_await context_.request(std::move(exchange));
  if (response.status != 201) throw unexpected(response, "an installation token");
  const Json answer = answer_json(response, "GitHub", "an installation token");
  std::string token = text_at(answer, "/token");
  const Millis life = token_life(answer, service_time(response, context_.now()));
  tell_wider_scope(answer);
  co_return context_.tokens().keep(token_key(), std::move(token), context_.steady_now() + life);
}

/// What GitHub grants beyond the one repository that was asked for.
void GithubClient::tell_wider_scope(const Json& answer) const {
  const std::string& slug = context_.run().repo_slug;
  std::string wider = optional_text_at(answer, "/repository_selection").value_or("") == "all" ? "all repositories" : "";
  if (const Json& repositories = value_at(answer, "/repositories"); repositories.is_array())
    for (const Json& repository : repositories) {
      const std::string name = optional_text_at(repository, "/full_name").value_or(slug);
      if (wider.empty() && !std::ranges::equal(name, slug, {}, lower_case, lower_case)) wider = clean_text(name, 200);
    }
  if (wider.empty()) return;
  context_.event(Level::warn, "GitHub's token for " + slug + " is wider than asked for: it opens " + wider + " as well",
                 {{"repository_selection", value_at(answer, "/repository_selection")}}, "wider_token");
}

Coroutine<HttpRequest> GithubClient::prepared(Method method, std::string url, std::string body) {
  HttpRequest request;
  request.method = method;
  request.url = std::move(url);
  request.body = std::move(body);
  if (!request.body.empty()) request.headers.push_back({"Content-Type", "application/json"});
  co_await authorize(request);
  co_return request;
}

Coroutine<HttpResponse> GithubClient::get(std::string url) {
  HttpRequest request;
  request.url = std::move(url);
  co_await authorize(request);
  HttpRequest again = request;
  HttpResponse response = co_await context_.request(std::move(request));
  if (response.status != 401 || !app_) co_return response;
  co_await renew_token(again);  // it had expired or was revoked early
  response = co_await context_.request(std::move(again));
  co_return response;
}

Coroutine<Json> GithubClient::get_json(std::string url, std::string what) {
  const HttpResponse response = co_await get(std::move(url));
  if (response.status != 200) throw unexpected(response, what);
  co_return answer_json(response, "GitHub", what);
}

Coroutine<std::optional<Json>> GithubClient::get_if_changed(std::string url, std::string what,
                                                            Conditional& conditional) {
  HttpRequest request;
  request.url = url;
  if (!conditional.etag.empty()) request.headers.push_back({"If-None-Match", conditional.etag});
  co_await authorize(request);
  RequestPolicy policy;
  policy.retry_not_found = !conditional.seen;
  const std::shared_ptr<const SecretString> token = request.session_token;
  HttpResponse response = co_await context_.request(std::move(request), policy);
  if (response.status == 304) co_return std::nullopt;
  if (response.status == 401 && app_) {
    context_.tokens().forget(token_key(), token);
    response = co_await get(std::move(url));
  }
  if (response.status == 404 && conditional.seen)
    throw PhaseError("gone", "GitHub does not know " + what + " of " + context_.run().repo_slug + " any more",
                     "Somebody has deleted it. Queue a new run.");
  if (response.status != 200) throw unexpected(response, what);
  conditional.seen = true;
  conditional.etag = std::string(response.header("etag"));
  conditional.last = answer_json(response, "GitHub", what);
  co_return conditional.last;
}

Coroutine<Json::array_t> GithubClient::get_list(std::string url, std::string member, std::string what) {
  Json::array_t items;
  std::set<std::string> visited;
  const std::string origin = parse_url(api_url_).value_or(Url{}).origin();
  for (int page = 0; page < most_pages && visited.insert(url).second; ++page) {
    const HttpResponse response = co_await get(url);
    if (response.status != 200) throw unexpected(response, what);
    const Json answer = answer_json(response, "GitHub", what);
    for (const Json& item : array_at(answer, "/" + member)) items.push_back(item);
    const auto next = next_page(response);
    const auto next_url = next ? parse_url(*next) : std::nullopt;
    if (!next_url || next_url->origin() != origin) break;
    url = *next;
  }
  co_return items;
}

Coroutine<HttpResponse> GithubClient::download(std::string url, HttpRequest options) {
  HttpResponse response = co_await get(url);
  if (response.status != 302 && response.status != 301 && response.status != 307) co_return response;
  const auto target = resolve_location(url, response.header("location"));
  if (!target)
    throw PhaseError("bad_response", "GitHub redirected " + redact(url) + " to something that is not a URL",
                     "Retry the run; if it stays, report it to GitHub.");
  options.method = Method::get;
  options.url = *target;  // a signed URL: no credential of ours goes there
  options.headers.clear();
  options.credential.reset();
  options.session_token.reset();
  response = co_await context_.request(std::move(options));
  co_return response;
}

PhaseError GithubClient::unexpected(const HttpResponse& response, const std::string& what) const {
  const Json body = parse_json(response.body).value_or(Json());
  const Json& said = value_at(body, "/message");
  const std::string message = said.is_string() ? ": " + clean_text(said.get<std::string>(), 300) : std::string();
  const std::string text = "GitHub answered " + std::to_string(response.status) + " for " + what + " of " +
                           context_.run().repo_slug + message;
  Json payload{{"status", response.status}, {"request_id", response.header("x-github-request-id")}};
  if (response.status == 401)
    return {"github_denied", text + clock_remark(response, context_.now()),
            "The secret \"" + credential_ + "\" is not accepted: renew it, then retry the run.", payload};
  if (response.status == 403)
    return {"github_denied", text,
            "The credential \"" + credential_ + "\" lacks a permission (Actions: write, Contents: read).", payload};
  if (response.status == 404)
    return {"github_not_found", text,
            "Check projects.repo_slug and the environment's github section; GitHub also answers 404 for what the "
            "credential may not see.",
            payload};
  return {"bad_response", text, "Look at GitHub's message and the environment's github section.", payload};
}

}  // namespace ops
