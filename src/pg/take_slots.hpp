// The one rule by which runs are claimed, for the worker of this server and for workers outside.
#pragma once

#include <string>

#include "pg/statement.hpp"

namespace ops::pg {

/// Chooses runs by priority and age, never more of an environment than its max_active_runs, locks them and moves them
/// from the queue into slots. The caller makes them claimed in the same transaction. It waits for nobody: what another
/// session holds is passed over and stays ready. Where SPI is connected.
///
/// Blocked runs are never walked over: a run is examined when it arrives and again when a slot of its environment is
/// given back. It begins where runs are ready, and not at the head of the index (ready_floors.hpp).
/// @param limit  most runs
/// @return run ids in claim order @throws PgError
TextColumn take_slots(const std::string& worker_id, int limit);

/// Does what a claim of one run does, for a run that does not exist. Changes nothing. Where SPI is connected.
/// @throws PgError
void rehearse_take_slots();

}  // namespace ops::pg
