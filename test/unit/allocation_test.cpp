// Fault F13: each allocation of a run fails, one after the other. The run ends, nothing happens twice, nothing leaks,
// and nothing of it leaves a place that may not throw: that would end the process, and with it the whole server.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <utility>

#include "app_platform_service.hpp"
#include "core/run_loop.hpp"
#include "github_service.hpp"

// The allocator of this program: counts while a test asks for it ------------------------------------------------------

namespace {

struct Memory {
  bool counted = false;
  bool stays_short = false;  ///< what fails from the n-th on: everything until the shortage ends, or it alone
  bool failed = false;
  bool is_short = false;
  long left = 0;  ///< allocations until the one that fails
};
thread_local Memory memory;

void* allocate(std::size_t size) noexcept {
  if (memory.counted) {
    if (!memory.failed && --memory.left == 0) {
      memory.failed = true;
      memory.is_short = memory.stays_short;
      return nullptr;
    }
    if (memory.is_short) return nullptr;
  }
  return std::malloc(size == 0 ? 1 : size);
}
void* allocate_or_throw(std::size_t size) {
  if (void* allocated = allocate(size)) return allocated;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) {
  return allocate_or_throw(size);
}
void* operator new[](std::size_t size) {
  return allocate_or_throw(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void operator delete(void* allocated) noexcept {
  std::free(allocated);
}
void operator delete[](void* allocated) noexcept {
  std::free(allocated);
}
void operator delete(void* allocated, std::size_t) noexcept {
  std::free(allocated);
}
void operator delete[](void* allocated, std::size_t) noexcept {
  std::free(allocated);
}

/// A JSON value made of an initializer list that fails half way leaves behind what it had: the library's, and little.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:basic_json(std::initializer_list";
}

namespace ops::test {
namespace {

// One run -------------------------------------------------------------------------------------------------------------

/// What stands for the outside has memory.
class Outside {
 public:
  ~Outside() { memory.counted = was_counted_; }
  Outside() = default;
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;

 private:
  bool was_counted_ = std::exchange(memory.counted, false);
};

/// As src/pg/worker_main.cpp does it: a turn that runs out of memory ends this life; the next one, or the safety check
/// when nobody holds the run, takes it over.
void live(World& world) {
  for (int turns = 0; turns < 1'000; ++turns) {
    bool more = false;
    bool out_of_memory = false;
    memory.counted = true;
    try {
      more = world.loop->turn();
    } catch (const std::bad_alloc&) {
      out_of_memory = true;
    }
    memory.counted = memory.is_short = false;
    if (out_of_memory) {
      world.restart();
      world.transport.take_finished();
    }
    const RunStatus status = world.status("run-1");
    if (is_final(status) || status == RunStatus::waiting) return;
    if (status == RunStatus::queued) {
      world.loop->ring_queue();
    } else if (world.loop->running() == 0) {
      world.loop->adopt({world.store.taken_over("run-1")});
    }
    if (more || world.transport.in_flight() > 0) continue;
    if (const auto next = world.loop->next_deadline()) world.clock.advance_to(*next);
  }
}

/// Plays the run that `make` prepares once for each allocation that fails alone, and once for all from there on. After
/// the first 200 it takes steps; OPS_EVERY_ALLOCATION=1 leaves none out.
template <class Make>
void fail_each_allocation(long step, Make make) {
  if (std::getenv("OPS_EVERY_ALLOCATION") != nullptr) step = 1;
  for (const bool stays_short : {false, true}) {
    long n = 1;
    for (bool failed = true; failed; n += n < 200 ? 1 : step) {
      auto made = make();
      World& world = made->world;
      memory = {.stays_short = stays_short, .left = n};
      live(world);
      failed = std::exchange(memory.failed, true);
      const RunStatus status = world.status("run-1");
      ASSERT_TRUE(status == RunStatus::success || status == RunStatus::failed) << "n = " << n;
      ASSERT_LE(made->accepted, 1) << "n = " << n;
      ASSERT_TRUE(status == RunStatus::failed || made->accepted == 1) << "n = " << n;
      ASSERT_TRUE(failed || status == RunStatus::success) << world.messages("run-1").back();
    }
    ASSERT_GT(n, 100);
  }
}

// The loop ------------------------------------------------------------------------------------------------------------

const std::string effect_url = "https://service.example/effect";

Coroutine<std::string> nothing_outside(PhaseContext&) {
  co_return std::string();
}

Coroutine<Json> with_effect(PhaseContext& ctx) {
  EffectSpec spec;
  spec.key = "the_effect";
  spec.kind = EffectKind::keyed;
  spec.request.method = Method::post;
  spec.request.url = effect_url;
  spec.request.headers.push_back({"Accept", "application/vnd.service.v2+json; charset=utf-8"});
  spec.request.body = Json{{"token", "a token of this run and phase"}, {"inputs", {{"sha", {1, 2, 3}}}}}.dump();
  spec.interpret = [](const HttpResponse& response) {
    if (response.status == 200) return EffectVerdict::done(answer_json(response, "the service", "the effect"));
    return EffectVerdict::rejected({"rejected", "no", "ask otherwise"});
  };
  spec.look = [&ctx]() -> Coroutine<std::optional<Json>> {
    HttpRequest request;
    request.url = "https://service.example/look";
    const HttpResponse response = co_await ctx.request(std::move(request));
    if (response.status == 200) co_return answer_json(response, "the service", "the effect");
    co_return std::nullopt;
  };
  Json outcome = co_await ctx.effect(std::move(spec));
  ctx.remember("answered", outcome);
  ctx.event(Level::info, "the effect took place", outcome, "done");
  co_return outcome;
}

Coroutine<Json> reading(PhaseContext& ctx) {
  HttpRequest read;
  read.url = "https://service.example/read";
  const HttpResponse response = co_await ctx.request(std::move(read));
  Json found = answer_json(response, "the service", "what is read");
  co_await ctx.sleep(std::chrono::seconds{5});
  co_return found;
}

struct ScriptedRun {
  ScriptedRun()
      : world(PhaseCatalog({{"with_effect", {}, std::chrono::hours{1}, with_effect, nothing_outside},
                            {"reading", {}, std::chrono::hours{1}, reading, nothing_outside}}),
              [this](const HttpRequest& request) { return serve(request); }) {
    world.queue("run-1", {phase("one", "with_effect"), phase("two", "reading", {"one"}), phase("three", "reading")});
  }
  HttpResponse serve(const HttpRequest& request) {
    const Outside outside;
    const Json nested{{"id", 7}, {"list", {{{"deep", {1, 2, {{"deeper", "text that needs memory of its own"}}}}}, {}}}};
    if (request.url == effect_url) {
      ++accepted;
      return answer(200, nested);
    }
    if (request.url.ends_with("/look")) return accepted > 0 ? answer(200, nested) : answer(404);
    if (reads++ == 0) return answer(503);
    return answer(200, nested);
  }
  World world;
  int accepted = 0;
  int reads = 0;
};

TEST(F13_Allocation, OfTheLoopFails) {
  fail_each_allocation(1, [] { return std::make_unique<ScriptedRun>(); });
}

// Real phases ---------------------------------------------------------------------------------------------------------

/// What the phases' tests say, with a count of what has changed outside, which can be found when its answer got lost.
class Build : public BuildWorld {
 public:
  Build() {
    world.transport = ScriptedTransport([this](const HttpRequest& request) { return serve(request); });
    queue(build_phase());
  }
  HttpResponse serve(const HttpRequest& request) {
    const Outside outside;
    HttpResponse response = services(request);
    if (request.method == Method::post && request.url.ends_with("/dispatches")) {
      ++accepted;
      Json listed = run("queued");
      listed["display_title"] = "build [" + token + "]";
      runs_listed = Json::array({listed});
    }
    return response;
  }
  int accepted = 0;
};

TEST(F13_Allocation, OfABuildFails) {
  fail_each_allocation(11, [] { return std::make_unique<Build>(); });
}

class Deployment : public AppPlatformWorld {
 public:
  Deployment() {
    world.transport = ScriptedTransport([this](const HttpRequest& request) {
      const Outside outside;
      accepted += request.method == Method::put ? 1 : 0;
      return services(request);
    });
    queue(phase_facts(), {built()});
  }
  int accepted = 0;
};

TEST(F13_Allocation, OfADeploymentFails) {
  fail_each_allocation(11, [] { return std::make_unique<Deployment>(); });
}

/// Nothing that changes outside but a file under a name of its own: the same however often it is stored.
class Reading : public PhaseWorld {
 public:
  Reading() {
    world.transport = ScriptedTransport([this](const HttpRequest& request) {
      const Outside outside;
      return services(request);
    });
  }
  int accepted = 1;
};

class Smoke : public Reading {
 public:
  Smoke() {
    services.on(Method::get, "/web/health$", {{"status", "pass"}});
    services.on(Method::post, "/web/webclient/version_info$",
                {{"jsonrpc", "2.0"}, {"result", {{"server_serie", "19.0"}}}});
    services.on(Method::get, "/web/login$", [](const HttpRequest&) {
      return page("text/html; charset=utf-8",
                  R"(<link rel="stylesheet" href="/web/a.css"/><script src="/web/a.js"></script>
                     <form><input name="csrf_token"/><input name="login"/><input name="password"></form>)");
    });
    services.on(Method::get, "/web/a.css$", [](const HttpRequest&) { return page("text/css", "body{}"); });
    services.on(Method::get, "/web/a.js$", [](const HttpRequest&) { return page("application/javascript", "var a"); });
    Json config{{"url", "https://staging.acme.example/"}, {"smoke", {{"timeout", "60 s"}}}};
    queue(facts("odoo_smoke", std::move(config)));
  }
  static HttpResponse page(const std::string& type, const std::string& body) {
    HttpResponse response = with_header(answer(200), "Content-Type", type);
    response.body = body;
    response.body_bytes = static_cast<std::int64_t>(body.size());
    return response;
  }
};

TEST(F13_Allocation, OfASmokeTestFails) {
  fail_each_allocation(11, [] { return std::make_unique<Smoke>(); });
}

class Keeping : public Reading {
 public:
  Keeping() {
    services.on(Method::get, "/manifests/sha256:", [this](const HttpRequest& request) {
      return request.url.ends_with(digest_of(index)) ? served(index, index_type) : answer(404);
    });
    services.on(Method::put, "s3.example", [this](const HttpRequest& request) {
      stored_bytes = request.body.size();
      return with_header(answer(200), "ETag", "\"tag\"");
    });
    services.on(Method::head, "s3.example", [this](const HttpRequest&) {
      return with_header(answer(200), "Content-Length", std::to_string(stored_bytes));
    });
    Json config{{"storage", {{"endpoint", "https://s3.example/"}, {"bucket", "acme"}, {"region", "fra1"}}},
                {"registry", {{"image", "acme/odoo"}}}};
    queue(facts("capture", std::move(config)),
          {succeeded("github_workflow", {{"digest", digest_of(index)}, {"jobs", Json::array()}})});
  }
  std::string index = image_index().dump();
  std::size_t stored_bytes = 0;
};

TEST(F13_Allocation, OfKeepingWhatWasMadeFails) {
  fail_each_allocation(11, [] { return std::make_unique<Keeping>(); });
}

}  // namespace
}  // namespace ops::test
