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
  std::string token;
  for (int i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) token += '-';
    const int digit = i == 12 ? 4 : static_cast<int>(ctx.random() * 16);  // version 4
    token += "0123456789abcdef"[i == 16 ? 8 + digit % 4 : digit];
  }
  return ctx.remember("run_token", token).get<std::string>();
}

}  // namespace ops
