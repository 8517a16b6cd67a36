// Rows of ops.runs as triggers see them. Server zone: nothing here has a destructor.
#pragma once

#include <optional>
#include <string_view>

#include "core/run.hpp"

#include "pg/boundary.hpp"

namespace ops::pg {

/// Columns that triggers read.
enum class RunColumn : int {
  run_id,
  project_id,
  env_id,
  git_sha,
  git_ref,
  priority,
  idempotency_key,
  origin_run_id,
  origin_kind,
  status,  ///< all before are what the run was queued for and never change
  waiting_for,
  claimed_by,
  claim_token,
  finished_at,
  attempt,
  metadata,
  available_at,
  queued_at,
  requested_by,
  created_at,
};
constexpr int run_column_count = static_cast<int>(RunColumn::created_at) + 1;
constexpr int request_column_count = static_cast<int>(RunColumn::status);

class RunRow {
 public:
  RunRow(HeapTuple tuple, TupleDesc columns);
  explicit RunRow(TupleTableSlot* slot);

  bool is_null(RunColumn column) const { return nulls_[static_cast<int>(column)]; }
  Datum at(RunColumn column) const { return values_[static_cast<int>(column)]; }
  /// Empty for null.
  std::string_view text_at(RunColumn column) const;
  std::optional<RunStatus> status() const { return run_status_from(text_at(RunColumn::status)); }
  /// Bit for bit.
  bool same(const RunRow& other, RunColumn column) const;

 private:
  void take(const Datum* values, const bool* nulls);

  TupleDesc columns_;
  Datum values_[run_column_count];
  bool nulls_[run_column_count];
};

/// The beginning of a value for a message, in whole characters.
const char* shown(std::string_view text, int most_bytes = 100);

}  // namespace ops::pg
