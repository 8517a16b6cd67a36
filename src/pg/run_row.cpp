#include "pg/run_row.hpp"

#include <cstring>

namespace ops::pg {

namespace {

constexpr const char* column_names[run_column_count] = {
    "run_id",        "project_id",  "env_id",       "git_sha",     "git_ref",      "priority",    "idempotency_key",
    "origin_run_id", "origin_kind", "status",       "waiting_for", "claimed_by",   "claim_token", "finished_at",
    "attempt",       "metadata",    "available_at", "queued_at",   "requested_by", "created_at"};

/// Number of the column in the table, remembered as long as the table has it there.
int number_of(TupleDesc columns, int column) {
  static int known[run_column_count];
  int& number = known[column];
  if (number <= 0 || number > columns->natts ||
      std::strcmp(NameStr(TupleDescAttr(columns, number - 1)->attname), column_names[column]) != 0)
    number = SPI_fnumber(columns, column_names[column]);
  if (number <= 0)
    ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("ops.runs has no column \"%s\"", column_names[column]),
                    errhint("The tables of ops_runner keep their columns; create the extension anew.")));
  return number;
}

}  // namespace

RunRow::RunRow(HeapTuple tuple, TupleDesc columns) : columns_(columns) {
  Datum* values = static_cast<Datum*>(palloc(sizeof(Datum) * static_cast<Size>(columns->natts)));
  bool* nulls = static_cast<bool*>(palloc(sizeof(bool) * static_cast<Size>(columns->natts)));
  heap_deform_tuple(tuple, columns, values, nulls);
  take(values, nulls);
}

RunRow::RunRow(TupleTableSlot* slot) : columns_(slot->tts_tupleDescriptor) {
  slot_getallattrs(slot);
  take(slot->tts_values, slot->tts_isnull);
}

void RunRow::take(const Datum* values, const bool* nulls) {
  for (int i = 0; i < run_column_count; ++i) {
    const int number = number_of(columns_, i);
    values_[i] = values[number - 1];
    nulls_[i] = nulls[number - 1];
  }
}

std::string_view RunRow::text_at(RunColumn column) const {
  if (is_null(column)) return {};
  const struct varlena* value = DatumGetTextPP(at(column));
  return {VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value))};
}

bool RunRow::same(const RunRow& other, RunColumn column) const {
  if (is_null(column) != other.is_null(column)) return false;
  if (is_null(column)) return true;
  const auto* type = TupleDescAttr(columns_, number_of(columns_, static_cast<int>(column)) - 1);
  return datum_image_eq(at(column), other.at(column), type->attbyval, type->attlen);
}

const char* shown(std::string_view text, int most_bytes) {
  const char* bytes = text.data();  // NOLINT(bugprone-suspicious-stringview-data-usage): the length goes with it
  const int length = pg_mbcliplen(bytes, static_cast<int>(text.size()), most_bytes);
  return pnstrdup(bytes, static_cast<Size>(length));
}

}  // namespace ops::pg
