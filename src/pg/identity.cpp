#include "pg/identity.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "core/crypto.hpp"

#include "pg/boundary.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_system_identifier);
OPS_SQL_FUNCTION(ops_data_directory);
OPS_SQL_FUNCTION(ops_timeline);
OPS_SQL_FUNCTION(ops_is_replicated);
}

namespace ops::pg {

namespace {

constexpr const char* note_file = "ops_runner.standby";
constexpr const char* new_note_file = "ops_runner.standby.new";

/// The directory is named too, so that a copy of the note in a copy of the directory says nothing.
struct Note {
  std::uint64_t system_identifier = 0;
  std::string data_directory;
  std::uint32_t promoted_to = 0;  ///< 0: still a standby

  bool is_ours() const {
    return system_identifier == GetSystemIdentifier() && data_directory == data_directory_identity();
  }
};

std::optional<Note> read_note() {
  std::ifstream file(note_file);
  Note note;
  if (file >> note.system_identifier >> note.data_directory >> note.promoted_to) return note;
  return std::nullopt;
}

/// Empty where there is none. Unreadable is no answer: it would make another identity.
std::string machine_id() {
  std::ifstream file("/etc/machine-id");
  if (!file && access("/etc/machine-id", F_OK) == 0) throw SqlError(ERRCODE_IO_ERROR, "/etc/machine-id cannot be read");
  std::string machine;
  std::getline(file, machine);
  return machine;
}

std::string read_identity() {
  const std::string machine = machine_id();
  char path[PATH_MAX] = "";
  if (realpath(DataDir, path) == nullptr) strlcpy(path, DataDir, sizeof path);
  // Written once by initdb; a copy of the file has another inode.
  struct stat version_file{};
  if (stat((std::string(path) + "/PG_VERSION").c_str(), &version_file) != 0)
    throw SqlError(ERRCODE_IO_ERROR, std::string("the data directory cannot be read: ") + path);
  return sha256_hex(machine + '\n' + path + '\n' + std::to_string(version_file.st_ino)).substr(0, 32);
}

void write_note(std::uint32_t promoted_to) {
  {
    std::ofstream file(new_note_file, std::ios::trunc);
    file << GetSystemIdentifier() << ' ' << data_directory_identity() << ' ' << promoted_to << '\n';
  }
  std::rename(new_note_file, note_file);
}

}  // namespace

std::string data_directory_identity() {
  // Neither changes in the life of a process, and a process that is out of descriptors is still the same one.
  static const std::string identity = read_identity();
  return identity;
}

std::uint32_t current_timeline() {
  return RecoveryInProgress() ? 0 : GetWALInsertionTimeLine();
}

void note_standby() {
  if (access("standby.signal", F_OK) != 0) return;
  const auto note = read_note();
  if (!note || !note->is_ours() || note->promoted_to != 0) write_note(0);
}

void note_promotion() {
  const auto note = read_note();
  if (note && note->is_ours() && note->promoted_to == 0) write_note(current_timeline());
}

bool was_promoted() {
  const auto note = read_note();
  return note && note->is_ours() && note->promoted_to != 0 && note->promoted_to == current_timeline();
}

}  // namespace ops::pg

Datum ops_system_identifier(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  PG_RETURN_INT64(static_cast<int64>(GetSystemIdentifier()));
}

Datum ops_data_directory(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  return ops::pg::entry([]() -> Datum {
    const std::string identity = ops::pg::data_directory_identity();
    const char* shown = identity.c_str();
    return ops::pg::guarded([shown] { return CStringGetTextDatum(shown); });
  });
}

Datum ops_timeline(PG_FUNCTION_ARGS) {
  const std::uint32_t timeline = ops::pg::current_timeline();
  if (timeline == 0) PG_RETURN_NULL();
  PG_RETURN_INT32(static_cast<int32>(timeline));
}

Datum ops_is_replicated(PG_FUNCTION_ARGS) {
  (void)fcinfo;
  PG_RETURN_BOOL(IsLogicalWorker());
}
