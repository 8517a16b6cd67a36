// The default phase kinds; src/phases/catalog.cpp makes the rows of the catalogue from them.
#pragma once

#include <string>

#include "core/phase_context.hpp"

namespace ops {

Coroutine<Json> perform_github_workflow(PhaseContext& ctx);
Coroutine<std::string> cancel_github_workflow(PhaseContext& ctx);

Coroutine<Json> perform_digitalocean_app(PhaseContext& ctx);
Coroutine<std::string> cancel_digitalocean_app(PhaseContext& ctx);

Coroutine<Json> perform_odoo_smoke(PhaseContext& ctx);
Coroutine<Json> perform_capture(PhaseContext& ctx);
/// For kinds that leave nothing running outside.
Coroutine<std::string> cancel_nothing(PhaseContext& ctx);

/// A duration of the phase's config, or what is usual.
Millis config_duration(const PhaseContext& ctx, std::string_view pointer, Millis usual);
/// A UUID that marks everything this phase starts outside; made once, remembered for ever.
std::string run_token(PhaseContext& ctx);

}  // namespace ops
