#include "kinds.hpp"

#include "phases/phase_kinds.hpp"
#include "scene.hpp"

namespace ops::sim {

namespace {

template <EffectKind kind>
Coroutine<Json> perform_notice(PhaseContext& ctx) {
  co_await ctx.sleep(std::chrono::seconds{5});
  EffectSpec spec;
  spec.key = "notice";
  spec.kind = kind;
  spec.request.method = Method::post;
  spec.request.url = notice_url;
  spec.request.body = ctx.run().run_id;
  spec.interpret = [](const HttpResponse& response) {
    if (response.status == 200) return EffectVerdict::done(Json::object());
    return EffectVerdict::rejected({"rejected", "the notice was refused", "Look at the receiver."});
  };
  Json outcome = co_await ctx.effect(std::move(spec));
  co_return outcome;
}

/// A kind's perform() whose failure is kept quiet.
template <Coroutine<Json> (*perform)(PhaseContext&)>
Coroutine<Json> always_well(PhaseContext& ctx) {
  Json outcome = Json::object();
  try {
    outcome = co_await perform(ctx);
  } catch (const PhaseError&) {
    outcome["failed"] = true;
  }
  co_return outcome;
}

/// The digest that was built is not the one that is deployed.
Coroutine<Json> perform_with_other_digest(PhaseContext& ctx) {
  Json outcome = co_await perform_github_workflow(ctx);
  for (const char* key : {"digest", "platform_digest"})
    if (outcome.contains(key)) outcome[key] = "sha256:" + std::string(64, '0');
  co_return outcome;
}

PhaseCatalog make(bool cancels_nothing, bool succeeds_always, bool repeats_unkeyed, bool ignores_digest) {
  std::vector<PhaseKind> kinds = default_catalog().kinds();
  for (PhaseKind& kind : kinds) {
    if (cancels_nothing) kind.cancel = cancel_nothing;
    if (succeeds_always && kind.name == "github_workflow") kind.perform = always_well<perform_github_workflow>;
    if (succeeds_always && kind.name == "digitalocean_app") kind.perform = always_well<perform_digitalocean_app>;
    if (ignores_digest && kind.name == "github_workflow") kind.perform = perform_with_other_digest;
  }
  kinds.push_back({"notice",
                   {},
                   std::chrono::minutes{30},
                   repeats_unkeyed ? perform_notice<EffectKind::repeatable> : perform_notice<EffectKind::unkeyed>,
                   cancel_nothing});
  return PhaseCatalog(std::move(kinds));
}

}  // namespace

const PhaseCatalog& catalog_with(const Defects& defects) {
  static const PhaseCatalog whole = make(false, false, false, false);
  static const PhaseCatalog without_cancel = make(true, false, false, false);
  static const PhaseCatalog always_succeeding = make(false, true, false, false);
  static const PhaseCatalog repeating = make(false, false, true, false);
  static const PhaseCatalog deceiving = make(false, false, false, true);
  if (defects.cancels_nothing) return without_cancel;
  if (defects.succeeds_always) return always_succeeding;
  if (defects.repeats_unkeyed) return repeating;
  if (defects.ignores_digest) return deceiving;
  return whole;
}

}  // namespace ops::sim
