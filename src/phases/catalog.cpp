#include "core/crypto.hpp"
#include "core/json.hpp"
#include "core/phase_catalog.hpp"
#include "core/pipeline.hpp"
#include "phases/phase_kinds.hpp"

namespace ops {

const PhaseCatalog& default_catalog() {
  using namespace std::chrono_literals;
  static const PhaseCatalog catalog({
      {"github_workflow", {"github", "registry"}, 2h, perform_github_workflow, cancel_github_workflow},
      {"digitalocean_app", {"digitalocean", "registry"}, 45min, perform_digitalocean_app, cancel_digitalocean_app},
      {"odoo_smoke", {"smoke"}, 15min, perform_odoo_smoke, cancel_nothing},
      {"capture", {"github", "registry", "storage"}, 30min, perform_capture, cancel_nothing},
  });
  return catalog;
}

Coroutine<std::string> cancel_nothing(PhaseContext&) {
  co_return std::string();
}

Millis config_duration(const PhaseContext& ctx, std::string_view pointer, Millis usual) {
  const auto text = optional_text_at(ctx.config(), pointer);
  return text ? parse_duration(*text).value_or(usual) : usual;
}

std::string run_token(PhaseContext& ctx) {
  // Made from the run and the phase, so that it is the same even where the commit that remembered it was lost.
  std::string token = sha256_hex("run token of " + ctx.run().run_id + " " + ctx.phase().name).substr(0, 32);
  token[12] = '8';  // RFC 9562, version 8: made by a rule of our own
  token[16] = "89ab"[token[16] % 4];
  for (const std::size_t dash : {8, 13, 18, 23}) token.insert(dash, 1, '-');
  return ctx.remember("run_token", token).get<std::string>();
}

}  // namespace ops
