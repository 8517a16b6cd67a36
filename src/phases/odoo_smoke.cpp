// Phase kind odoo_smoke: is the deployed Odoo the right version, does it serve its login page and assets?
//
// Rounds of checks until enough rounds in a row pass or the time is up; one verdict from recorded evidence.
// Facts: Odoo sources, addons/web/controllers (health, version_info, login).
#include <algorithm>
#include <map>

#include "core/crypto.hpp"
#include "core/json.hpp"
#include "core/url.hpp"
#include "phases/phase_kinds.hpp"

namespace ops {

namespace {

using std::chrono::seconds;

constexpr std::int64_t largest_page = 8 * 1024 * 1024;
constexpr int most_redirects = 3;

struct Check {
  std::string name;
  std::string path;
  bool passed = false;
  std::string detail;  ///< what was expected and found, when it failed
  int status = 0;
  std::int64_t ms = 0;
  std::string sha256;
};

Json evidence(const Check& check) {
  return {{"name", check.name},     {"path", check.path}, {"verdict", check.passed ? "pass" : "fail"},
          {"status", check.status}, {"ms", check.ms},     {"sha256", check.sha256},
          {"detail", check.detail}};
}

std::string what_came(const HttpResponse& response) {
  if (response.failure != TransportFailure::none)
    return std::string(to_string(response.failure)) +
           (response.failure_text.empty() ? "" : " (" + response.failure_text + ")");
  return "status " + std::to_string(response.status);
}

/// Value of attribute `name` in the tag that begins at `at`.
std::optional<std::string> attribute(std::string_view page, std::size_t at, std::string_view name) {
  const std::size_t end = std::min(page.find('>', at), page.size());
  const std::string_view tag = page.substr(at, end - at);
  for (const char quote : {'"', '\''}) {
    const std::string begin = " " + std::string(name) + "=" + quote;
    const std::size_t found = tag.find(begin);
    if (found == std::string_view::npos) continue;
    const std::size_t value = found + begin.size();
    const std::size_t close = tag.find(quote, value);
    if (close != std::string_view::npos) return std::string(tag.substr(value, close - value));
  }
  return std::nullopt;
}

/// First asset of that kind that the page names: href of a style sheet, src of a script.
std::optional<std::string> first_asset(std::string_view page, std::string_view tag, std::string_view attribute_name,
                                       std::string_view ending) {
  const std::string begin = "<" + std::string(tag);
  for (std::size_t at = 0; (at = page.find(begin, at)) != std::string_view::npos; ++at) {
    const auto value = attribute(page, at, attribute_name);
    if (!value) continue;
    const std::string path = value->substr(0, value->find_first_of("?#"));
    if (path.ends_with(ending)) return value;
  }
  return std::nullopt;
}

bool has_field(std::string_view page, std::string_view name) {
  for (std::size_t at = 0; (at = page.find("<input", at)) != std::string_view::npos; ++at)
    if (attribute(page, at, "name") == name) return true;
  return false;
}

class Round {
 public:
  Round(PhaseContext& context, std::string base) : context_(context), base_(std::move(base)) {}

  Coroutine<std::vector<Check>> perform() {
    co_await check_health();
    co_await check_version();
    co_await check_login();
    co_await check_asset("css", "link", "href", ".css", "text/css");
    co_await check_asset("js", "script", "src", ".js", "javascript");
    const Json& configured = value_at(context_.config(), "/smoke/checks");
    if (configured.is_array())
      for (const Json& wanted : configured) co_await check_configured(wanted);
    co_return std::move(checks_);
  }

 private:
  /// One request; redirects on the same origin are followed, others are what came.
  Coroutine<HttpResponse> fetch(HttpRequest request) {
    HttpResponse response;
    for (int hop = 0; hop <= most_redirects; ++hop) {
      HttpRequest next = request;
      response = co_await context_.request_once(std::move(next));
      const bool redirect = response.failure == TransportFailure::none && response.status >= 301 &&
                            response.status <= 308 && response.status != 304;
      const auto target = redirect ? resolve_location(request.url, response.header("location")) : std::nullopt;
      const auto from = parse_url(request.url);
      const auto to = target ? parse_url(*target) : std::nullopt;
      if (!to || to->origin() != from->origin() || request.method != Method::get) break;
      request.url = *target;
      last_path_ = to->path;
    }
    co_return response;
  }

  Coroutine<HttpResponse> get(std::string path, Millis time_limit) {
    HttpRequest request;
    request.url = base_ + path;
    request.total_timeout = time_limit;
    request.max_body_bytes = largest_page;
    last_path_ = path.substr(0, path.find('?'));
    HttpResponse response = co_await fetch(std::move(request));
    co_return response;
  }

  Check& add(std::string name, std::string path, const HttpResponse& response) {
    Check check;
    check.name = std::move(name);
    check.path = path.substr(0, path.find('?'));  // a query may hold what nobody should read
    check.status = response.status;
    check.ms = std::chrono::duration_cast<Millis>(response.elapsed).count();
    check.sha256 = sha256_hex(response.body);
    checks_.push_back(std::move(check));
    return checks_.back();
  }

  Coroutine<> check_health() {
    const HttpResponse response = co_await get("/web/health", seconds{5});
    Check& check = add("health", "/web/health", response);
    const auto body = parse_json(response.body);
    const Json status = body ? value_at(*body, "/status") : Json();
    // Odoo 14 has no health route: there the login page decides.
    check.passed = (response.ok() && status == "pass") ||
                   (response.status == 404 && context_.run().odoo_version.starts_with("14."));
    if (!check.passed)
      check.detail = "expected 200 with status pass, found " + what_came(response) +
                     (status.is_string() ? " with status " + clean_text(status.get<std::string>(), 40) : "");
  }

  Coroutine<> check_version() {
    HttpRequest request;  // a read, though it is a POST: asks nothing of any database
    request.method = Method::post;
    request.url = base_ + "/web/webclient/version_info";
    request.headers.push_back({"Content-Type", "application/json"});
    request.body = R"({"jsonrpc":"2.0","method":"call","params":{}})";
    request.total_timeout = seconds{10};
    std::string path = "/web/webclient/version_info";
    HttpResponse response = co_await fetch(std::move(request));
    std::optional<Json> body = parse_json(response.body);
    std::string version = body && value_at(*body, "/result/server_serie").is_string()
                              ? text_at(*body, "/result/server_serie")
                              : std::string();
    if (version.empty() && response.failure == TransportFailure::none) {
      path = "/web/version";
      response = co_await get(path, seconds{10});
      body = parse_json(response.body);
      if (body && value_at(*body, "/version").is_string()) version = text_at(*body, "/version");
    }
    Check& check = add("version", path, response);
    const std::string& expected = context_.run().odoo_version;
    check.passed = version == expected || version.starts_with(expected + "-") || version.starts_with(expected + "+") ||
                   version.starts_with(expected + " ");
    if (!check.passed)
      check.detail =
          "expected Odoo " + expected + ", found " + (version.empty() ? what_came(response) : clean_text(version, 60));
  }

  Coroutine<> check_login() {
    const HttpResponse response = co_await get("/web/login", seconds{60});
    Check& check = add("login", "/web/login", response);
    const bool selector = last_path_.starts_with("/web/database/");
    const bool form = has_field(response.body, "login") && has_field(response.body, "password");
    check.passed = response.ok() && form && !selector;
    if (!check.passed)
      check.detail = selector
                         ? "redirected to the database selector: the database is missing or dbfilter does not match"
                         : "expected 200 with fields login and password, found " + what_came(response) +
                               (response.ok() ? " without that form" : "");
    if (check.passed) login_page_ = response.body;
  }

  Coroutine<> check_asset(std::string kind, std::string tag, std::string attribute_name, std::string ending,
                          std::string expected_type) {
    const auto found = first_asset(login_page_, tag, attribute_name, ending);
    const std::string page_url = base_ + "/web/login";
    const auto url = found ? resolve_location(page_url, *found) : std::nullopt;
    const auto parsed = url ? parse_url(*url) : std::nullopt;
    if (!parsed || parsed->origin() != parse_url(base_)->origin()) {
      Check& check = add(kind + " asset", found ? *found : "", HttpResponse{});
      // An asset on another host (a CDN) is not this deployment's.
      check.passed = parsed.has_value();
      check.detail = parsed ? "on another host, not requested"
                            : (login_page_.empty() ? "the login page did not come"
                                                   : "the login page names no " + ending + " file");
      co_return;
    }
    std::string path = parsed->path + (parsed->query.empty() ? "" : "?" + parsed->query);
    const HttpResponse response = co_await get(path, seconds{30});
    Check& check = add(kind + " asset", parsed->path, response);
    const std::string type(response.header("content-type"));
    check.passed = response.ok() && response.body_bytes > 0 && type.find(expected_type) != std::string::npos;
    if (!check.passed)
      check.detail = "expected 200 with " + expected_type + " and content, found " + what_came(response) + ", " +
                     clean_text(type, 60) + ", " + std::to_string(response.body_bytes) + " bytes";
  }

  Coroutine<> check_configured(const Json& wanted) {
    const std::string path = text_at(wanted, "/path");
    const HttpResponse response = co_await get(path, seconds{60});
    Check& check = add(path.substr(0, path.find('?')), path, response);
    const std::int64_t status = optional_integer_at(wanted, "/status").value_or(200);
    const auto contains = optional_text_at(wanted, "/contains");
    const auto max_ms = optional_integer_at(wanted, "/max_ms");
    if (response.failure != TransportFailure::none || response.status != status) {
      check.detail = "expected status " + std::to_string(status) + ", found " + what_came(response);
    } else if (contains && response.body.find(*contains) == std::string::npos) {
      check.detail = "expected the text \"" + *contains + "\", which the page does not hold";
    } else if (max_ms && check.ms > *max_ms) {
      check.detail =
          "expected an answer within " + std::to_string(*max_ms) + " ms, it took " + std::to_string(check.ms) + " ms";
    } else {
      check.passed = true;
    }
  }

  PhaseContext& context_;
  std::string base_;
  std::string last_path_;
  std::string login_page_;
  std::vector<Check> checks_;
};

/// An event where a check's verdict is another than in the round before.
void tell_changes(PhaseContext& ctx, const std::vector<Check>& checks, std::map<std::string, bool>& verdicts) {
  for (const Check& check : checks) {
    const auto [known, first] = verdicts.try_emplace(check.name, check.passed);
    if (!first && known->second == check.passed) continue;
    known->second = check.passed;
    ctx.event(check.passed ? Level::info : Level::warn,
              "check " + check.name + (check.passed ? " passes" : " fails: " + check.detail), evidence(check));
  }
}

}  // namespace

Coroutine<Json> perform_odoo_smoke(PhaseContext& ctx) {
  std::string base = text_at(ctx.config(), "/url");
  while (base.ends_with('/')) base.pop_back();
  const Millis time_limit = config_duration(ctx, "/smoke/timeout", std::chrono::minutes{5});
  const Millis interval = config_duration(ctx, "/smoke/interval", seconds{5});
  const auto needed = optional_integer_at(ctx.config(), "/smoke/consecutive_passes").value_or(2);
  const SteadyTime end = ctx.steady_now() + time_limit;

  std::map<std::string, bool> verdicts;
  std::int64_t passes = 0;
  for (int rounds = 1;; ++rounds) {
    Round round(ctx, base);
    const std::vector<Check> checks = co_await round.perform();
    tell_changes(ctx, checks, verdicts);
    const bool all_pass = std::ranges::all_of(checks, &Check::passed);
    passes = all_pass ? passes + 1 : 0;

    Json recorded = Json::array();
    for (const Check& check : checks) recorded.push_back(evidence(check));
    if (passes >= needed) {
      ctx.event(Level::info,
                "all " + std::to_string(checks.size()) + " checks passed " + std::to_string(needed) + " times in a row",
                {{"rounds", rounds}});
      co_return Json{{"url", base}, {"verdict", "pass"}, {"rounds", rounds}, {"checks", recorded}};
    }
    if (ctx.steady_now() + interval > end) {
      std::string failing;
      for (const Check& check : checks)
        if (!check.passed) failing += (failing.empty() ? "" : "; ") + check.name + ": " + check.detail;
      if (failing.empty()) failing = "the checks did not pass " + std::to_string(needed) + " times in a row";
      throw PhaseError("smoke_failed", base + " is not healthy after " + std::to_string(rounds) + " rounds: " + failing,
                       "Look at Odoo's log of the deployed version; the failing checks are in this event's payload.",
                       {{"rounds", rounds}, {"checks", recorded}});
    }
    co_await ctx.sleep(interval);
  }
}

}  // namespace ops
