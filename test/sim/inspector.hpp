// Watches everything and throws Broken when an invariant does not hold. Knows the rules, not how the product keeps
// them.
#pragma once

#include <map>
#include <set>
#include <string>

#include "database.hpp"
#include "outcome.hpp"
#include "services.hpp"

namespace ops::sim {

class Inspector final : public Witness {
 public:
  Inspector(Ground& ground, Database& database, Services& services, const Scene& scene)
      : ground_(ground), database_(database), services_(services), scene_(scene) {}

  // From the database
  void committed(const std::string& run_id, const RunRow& before, const StoredRun& after) override;
  void given_out(const std::string& run_id, const std::string& claim_token, const std::string& worker_id) override;
  void accepted(const std::string& run_id, const std::string& claim_token) override;
  void lost(const std::string& run_id) override;

  // From the wire
  void sends(const std::string& worker_id, const HttpRequest& request);
  void hears(const HttpRequest& request, const HttpResponse& response);
  void took_effect(const std::string& key);

  // From people
  void decided(const std::string& run_id, const EffectRecord& effect) { effects_[name(run_id, effect)].open = false; }
  void queued() { ++queued_; }

  /// A worker makes a pass, as it has done since that moment.
  void turns(const std::string& worker_id, SteadyTime up_since);
  /// After every step.
  void look() const;
  /// When everything has come to an end.
  void look_at_end() const;

 private:
  struct Effect {
    std::string run_id;
    EffectKind kind = EffectKind::keyed;
    bool open = false;  ///< sent, and it is not known to us what became of it
    bool searched = false;
  };
  static std::string name(const std::string& run_id, const EffectRecord& effect) {
    return run_id + " " + effect.phase + " " + effect.key;
  }
  void check_claim(const std::string& run_id, const RunRow& before, const RunRow& after);
  void check_path(const std::string& run_id, const RunRow& before, const RunRow& after) const;
  void check_success(const StoredRun& run) const;
  void check_built(const StoredRun& run, const StoredPhase& phase) const;
  void check_deployed(const StoredRun& run, const StoredPhase& phase) const;
  void check_stopped(const std::string& run_id) const;
  static void check_events(const std::string& run_id, const StoredRun& run);

  Ground& ground_;
  Database& database_;
  Services& services_;
  const Scene& scene_;
  struct Cancel {
    SteadyTime time;
    std::uint64_t turn;
  };
  std::size_t queued_ = 0;
  std::uint64_t turns_ = 0;
  std::map<std::string, Cancel> cancels_;      ///< first request by run
  std::map<std::string, std::string> tokens_;  ///< newest claim token by run
  std::set<std::string> all_tokens_;
  std::map<std::string, Effect> effects_;              ///< by run, phase and key
  std::map<std::string, std::string> effect_of_hash_;  ///< request hash -> the same
  std::map<std::string, int> performed_;               ///< by key of the service
  std::map<std::string, std::string> run_of_token_;    ///< run token -> run id
};

}  // namespace ops::sim
