#include "variants.hpp"

namespace ops::sim {

const std::vector<Variant>& variants() {
  static const std::vector<Variant> all{
      {"the intent is not stored", &Defects::forgets_intents, {"intent"}},
      {"effects are sent before the commit is stored", &Defects::commits_late, {"intent"}},
      {"no commit is flushed", &Defects::never_flushes, {"intent"}},
      {"a commit is acknowledged and lost", &Defects::loses_commits, {"intent", "end", "fence", "double"}},
      {"a commit is torn by a crash", &Defects::tears_commits, {"events", "once"}},
      {"writes of an old claim are taken", &Defects::has_no_fence, {"fence"}},
      {"a take-over keeps the claim token", &Defects::take_over_keeps_token, {"claim"}},
      {"a take-over takes runs of the living", &Defects::take_over_takes_living, {"living"}},
      {"a take-over takes finished runs", &Defects::take_over_takes_finished, {"final"}},
      {"a take-over finds nothing", &Defects::take_over_finds_nothing, {"orphan"}},
      {"a take-over forgets the effects", &Defects::take_over_forgets_effects, {"search", "double", "unkeyed"}},
      {"what is uncertain is sent again blindly", &Defects::take_over_settles_effects, {"search", "double", "unkeyed"}},
      {"a take-over forgets what was remembered", &Defects::take_over_forgets_memory, {"double"}},
      {"a take-over forgets which events were told", &Defects::take_over_forgets_event_keys, {"once"}},
      {"the lease never ends for its holder", &Defects::endless_lease, {"lease"}},
      {"slots are ignored", &Defects::ignores_slots, {"slots"}},
      {"a search finds nothing", &Defects::finds_nothing, {"double"}},
      {"the client repeats requests by itself", &Defects::repeats_requests, {"double"}},
      {"a lost answer counts as never sent", &Defects::calls_lost_unsent, {"double"}},
      {"cancel requests are lost", &Defects::loses_cancels, {"obeyed"}},
      {"nobody stops what a phase began", &Defects::cancels_nothing, {"cancel"}},
      {"a failed phase counts as succeeded", &Defects::succeeds_always, {"success"}},
      {"an unkeyed effect is repeated", &Defects::repeats_unkeyed, {"double"}},
      {"another digest is deployed", &Defects::ignores_digest, {"success"}},
  };
  return all;
}

}  // namespace ops::sim
