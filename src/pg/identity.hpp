// Who this server is, so that a copy of a database does not act (rule R8, threat T25).
//
// A database is armed for one server, database, data directory and timeline. A copy differs in one of them: a dump or a
// template in the database, a base backup or a snapshot in the directory, a point-in-time restore in the timeline. A
// standby differs too, and shall go on after its promotion: while it replays it leaves a note in its data directory.
#pragma once

#include <cstdint>
#include <string>

namespace ops::pg {

/// Hash of machine, path and inode of the data directory, hex.
std::string data_directory_identity();

/// Timeline that this server writes; 0 while it is in recovery.
std::uint32_t current_timeline();

/// In recovery: leaves the note where this server is a standby.
void note_standby();
/// After recovery: completes the note with the timeline that the promotion began.
void note_promotion();
/// This data directory was a standby and was promoted to the timeline that it writes now.
bool was_promoted();

}  // namespace ops::pg
