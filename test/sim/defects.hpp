// Ways to break what lies around the core. The simulation must notice each of them; variants.cpp lists them.
#pragma once

namespace ops::sim {

struct Defects {
  // Database
  bool forgets_intents = false;        ///< intended effects are not stored
  bool has_no_fence = false;           ///< writes of an old claim are taken
  bool take_over_keeps_token = false;  ///< so an old claim stays valid
  bool take_over_forgets_effects = false;
  bool take_over_settles_effects = false;  ///< what has no outcome counts as absent: sent again blindly
  bool take_over_forgets_memory = false;   ///< remembered values
  bool take_over_forgets_event_keys = false;
  bool take_over_finds_nothing = false;
  bool take_over_takes_finished = false;
  bool take_over_takes_living = false;  ///< runs of a worker whose session lock is held
  bool ignores_slots = false;           ///< several active runs in one environment
  bool loses_commits = false;           ///< every tenth commit is acknowledged and lost
  bool commits_late = false;            ///< acknowledged first, stored with the next transaction: sent before commit
  bool tears_commits = false;           ///< a crash in a commit leaves half of it
  bool never_flushes = false;
  bool loses_cancels = false;
  // Transport
  bool repeats_requests = false;   ///< as a client that retries by itself on a connection that was lost
  bool calls_lost_unsent = false;  ///< a lost answer is told as a request that never left
  bool finds_nothing = false;      ///< every search says at once that nothing is there
  // Worker
  bool endless_lease = false;
  // Phases
  bool cancels_nothing = false;  ///< nobody stops what a phase began
  bool succeeds_always = false;  ///< a failed phase counts as succeeded
  bool repeats_unkeyed = false;  ///< an unkeyed effect is declared repeatable
  bool ignores_digest = false;   ///< deploys another digest than the one that was built
};

}  // namespace ops::sim
