#include "core/host_budget.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "core/url.hpp"

namespace ops {

namespace {

using std::chrono::seconds;

constexpr Millis shortest_wait = seconds{1};
constexpr Millis longest_wait = std::chrono::hours{1};
constexpr Millis first_secondary_wait = seconds{60};
constexpr int first_pause_factor = 6;  // one minute at the usual probe interval
constexpr int looks_for_an_answer = 200;

std::string origin_of(const HttpRequest& request) {
  const auto url = parse_url(request.url);
  return url ? url->origin() : request.url;
}

std::string account_key(const HttpRequest& request) {
  std::string key = origin_of(request);
  key += '|';
  if (request.credential) key += request.credential->secret_name;
  return key;
}

std::string connection_key(const std::string& project, const HttpRequest& request) {
  return project + '|' + account_key(request);
}

/// What is known under the key that `key_of` makes of the request; null: nothing. As a rule nothing is known of
/// anybody, and then the URL is not taken apart.
template <class Known>
auto* find(Known& known, const HttpRequest& request, std::string (*key_of)(const HttpRequest&)) {
  const auto found = known.empty() ? known.end() : known.find(key_of(request));
  return found == known.end() ? nullptr : &found->second;
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Millis bounded(std::int64_t wait_seconds) {
  constexpr std::int64_t limit = 3600;
  return std::clamp<Millis>(seconds{std::clamp<std::int64_t>(wait_seconds, 0, limit)}, shortest_wait, longest_wait);
}

std::int64_t epoch_seconds(WallTime time) {
  return std::chrono::duration_cast<seconds>(time.time_since_epoch()).count();
}

/// Wait told by x-ratelimit-* (GitHub) or ratelimit-* (DigitalOcean) when nothing is left.
std::optional<Millis> used_up(const HttpResponse& response, WallTime wall_now) {
  for (const std::string_view prefix : {"x-ratelimit-", "ratelimit-"}) {
    const std::string name(prefix);
    if (whole_number(response.header(name + "remaining")) != 0) continue;
    const auto reset = whole_number(response.header(name + "reset"));
    if (!reset) return first_secondary_wait;
    constexpr std::int64_t far_future = std::int64_t{1} << 40;
    return bounded(std::clamp<std::int64_t>(*reset, 0, far_future) - epoch_seconds(wall_now));
  }
  return std::nullopt;
}

bool speaks_of_rate_limit(std::string_view body) {
  std::string lower(body.substr(0, 2048));
  std::ranges::transform(lower, lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
  return lower.find("secondary rate limit") != std::string::npos || lower.find("rate limit") != std::string::npos ||
         lower.find("abuse detection") != std::string::npos;
}

}  // namespace

std::optional<Millis> retry_after(const HttpResponse& response, WallTime wall_now) {
  const std::string text(response.header("retry-after"));
  if (text.empty()) return std::nullopt;
  if (const auto number = whole_number(text)) return bounded(*number);
  if (text.find_first_not_of("0123456789+-.") == std::string::npos) return longest_wait;  // a number out of all range
  const auto date = http_date(text);
  if (!date) return std::nullopt;
  return bounded(epoch_seconds(*date) - epoch_seconds(wall_now));
}

SteadyTime HostBudget::earliest(const HttpRequest& request, SteadyTime now) const {
  const Account* account = find(accounts_, request, account_key);
  if (account == nullptr) return now;
  return is_changing(request.method) ? std::max(account->closed_until, account->next_mutation) : account->closed_until;
}

void HostBudget::sent(const HttpRequest& request, SteadyTime now) {
  if (!is_changing(request.method) || mutation_interval_ == Millis{0}) return;
  accounts_[account_key(request)].next_mutation = now + mutation_interval_;
}

std::optional<SteadyTime> HostBudget::observe(const HttpRequest& request, const HttpResponse& response, SteadyTime now,
                                              WallTime wall_now) {
  if (response.failure != TransportFailure::none) return std::nullopt;
  const bool may_be_throttled = response.status == 429 || response.status == 403;
  const std::optional<Millis> asked = may_be_throttled ? retry_after(response, wall_now) : std::nullopt;
  const std::optional<Millis> exhausted = used_up(response, wall_now);

  if (!may_be_throttled) {
    if (Account* account = find(accounts_, request, account_key)) account->secondary_limits_in_a_row = 0;
    // The answer is good, but it was the last of this hour: the next request waits.
    if (exhausted) {
      Account& account = accounts_[account_key(request)];
      account.closed_until = std::max(account.closed_until, now + *exhausted);
    }
    return std::nullopt;
  }

  Millis wait{0};
  if (asked) {
    wait = *asked;
  } else if (exhausted) {
    wait = *exhausted;
  } else if (response.status == 429 || speaks_of_rate_limit(response.body)) {
    const int doublings = std::min(accounts_[account_key(request)].secondary_limits_in_a_row++, 6);
    wait = std::min<Millis>(first_secondary_wait * (1 << doublings), longest_wait);
  } else {
    return std::nullopt;  // a real 403
  }
  Account& account = accounts_[account_key(request)];
  account.closed_until = std::max(account.closed_until, now + wait);
  return account.closed_until;
}

SteadyTime HostBudget::next_probe(const HttpRequest& request, SteadyTime now) const {
  const Health* health = find(troubled_, request, origin_of);
  return health != nullptr && health->failures_in_a_row >= failures_until_outage ? health->next_probe : now;
}

void HostBudget::probe_sent(const HttpRequest& request, SteadyTime now) {
  if (Health* health = find(troubled_, request, origin_of)) health->next_probe = now + probe_interval_;
}

void HostBudget::observe_health(const HttpRequest& request, bool failed, SteadyTime now) {
  if (!failed) {
    if (!troubled_.empty()) troubled_.erase(origin_of(request));
    return;
  }
  Health& health = troubled_[origin_of(request)];
  if (++health.failures_in_a_row == failures_until_outage) health.next_probe = now + probe_interval_;
}

bool HostBudget::has_outage(const HttpRequest& request) const {
  const Health* health = find(troubled_, request, origin_of);
  return health != nullptr && health->failures_in_a_row >= failures_until_outage;
}

std::optional<HostBudget::Refusal> HostBudget::refusal(const std::string& project, const HttpRequest& request,
                                                       SteadyTime now) const {
  if (!request.credential) return std::nullopt;
  const auto found = credentials_.find(connection_key(project, request));
  if (found == credentials_.end() || !found->second.refused || found->second.next_probe <= now) return std::nullopt;
  return Refusal{found->second.version, found->second.next_probe};
}

SteadyTime HostBudget::first_shown(const std::string& project, const HttpRequest& request, SteadyTime now) const {
  if (!request.credential) return now;
  const auto found = credentials_.find(connection_key(project, request));
  if (found == credentials_.end() || found->second.shown_until <= now || now < found->second.taken_until) return now;
  return now + probe_interval_ / looks_for_an_answer;
}

void HostBudget::credential_shown(const std::string& project, const HttpRequest& request, SteadyTime now) {
  if (!request.credential) return;
  Standing& standing = credentials_[connection_key(project, request)];
  if (standing.refused) {
    standing.next_probe = now + standing.pause;
    standing.probing = true;
  } else if (now >= standing.taken_until) {
    // The one before had no answer in time: it is not the credential that the service is slow about.
    const bool unanswered = standing.shown_until != SteadyTime{};
    (unanswered ? standing.taken_until : standing.shown_until) = now + probe_interval_;
  }
}

void HostBudget::observe_credential(const std::string& project, const HttpRequest& request,
                                    const HttpResponse& response, SteadyTime now) {
  if (!request.credential || response.failure != TransportFailure::none || response.status >= 500) return;
  Standing& standing = credentials_[connection_key(project, request)];
  // S3 answers 403 to a HEAD for what is not there, where listing is not permitted.
  const bool refused = response.status == 401 || (response.status == 403 && request.method != Method::head);
  if (!refused) {
    standing = Standing{};
    standing.taken_until = now + probe_interval_;
    return;
  }
  const bool known = standing.refused && standing.version == response.credential_version;
  const bool of_probe = std::exchange(standing.probing, false);
  if (known && !of_probe) return;  // it was on its way when another one was refused
  standing.pause = known ? std::min(standing.pause * 2, longest_wait) : probe_interval_ * first_pause_factor;
  standing.refused = true;
  standing.version = response.credential_version;
  standing.next_probe = now + standing.pause;
}

void HostBudget::forget_refusal(const std::string& project, const HttpRequest& request) {
  credentials_.erase(connection_key(project, request));
}

}  // namespace ops
