// The phase kinds the worker knows. One row per kind; the rows are made by src/phases/catalog.cpp.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/coroutine.hpp"
#include "core/phase_context.hpp"

namespace ops {

struct PhaseKind {
  std::string name;
  /// Sections of the environment's config that a phase of this kind reads (frozen into the phase when a run is queued).
  std::vector<std::string> sections;
  Millis default_timeout;
  /// Performs the phase; the returned object becomes its outcome.
  Coroutine<Json> (*perform)(PhaseContext&);
  /// Stops what perform() may have begun outside, follows it to its end, and says in one sentence what was stopped
  /// (empty: nothing was out there). Reads the effect journal; runs after perform() was dropped, also in a later life.
  Coroutine<std::string> (*cancel)(PhaseContext&);
};

class PhaseCatalog {
 public:
  explicit PhaseCatalog(std::vector<PhaseKind> kinds) : kinds_(std::move(kinds)) {}
  const PhaseKind* find(std::string_view name) const {
    for (const PhaseKind& kind : kinds_)
      if (kind.name == name) return &kind;
    return nullptr;
  }
  const std::vector<PhaseKind>& kinds() const { return kinds_; }

 private:
  std::vector<PhaseKind> kinds_;
};

/// The default kinds: github_workflow, digitalocean_app, odoo_smoke, capture.
const PhaseCatalog& default_catalog();

}  // namespace ops
