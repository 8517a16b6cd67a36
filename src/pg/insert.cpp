#include "pg/insert.hpp"

#include <algorithm>
#include <cstring>

#include "pg/boundary.hpp"
#include "pg/column_values.hpp"

namespace ops::pg {

namespace {

// Server zone --------------------------------------------------------------------------------------------------------

/// So many rows are written at once, as COPY does.
constexpr std::size_t most_at_once = 500;

struct Rules {
  const char* table;
  const char* const* columns;
  std::size_t column_count;
};

bool fires_on_insert(const TriggerDesc* triggers) {
  if (triggers == nullptr) return false;
  for (int i = 0; i < triggers->numtriggers; ++i) {
    const Trigger& trigger = triggers->triggers[i];
    const char other_role =
        SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ? TRIGGER_FIRES_ON_ORIGIN : TRIGGER_FIRES_ON_REPLICA;
    if (TRIGGER_FOR_INSERT(trigger.tgtype) && trigger.tgenabled != TRIGGER_DISABLED && trigger.tgenabled != other_role)
      return true;
  }
  return false;
}

/// Nothing but insertion into heap and indexes happens to a row, whoever the caller is.
bool is_plain(Relation table) {
  const TupleConstr* constraints = RelationGetDescr(table)->constr;
  return table->rd_rel->relkind == RELKIND_RELATION && !fires_on_insert(table->trigdesc) &&
         table->rd_rules == nullptr && !table->rd_rel->relrowsecurity && !XactReadOnly &&
         !IsolationUsesXactSnapshot() &&
         (constraints == nullptr || (constraints->num_check == 0 && !constraints->has_generated_stored)) &&
         pg_class_aclcheck(RelationGetRelid(table), GetUserId(), ACL_INSERT) == ACLCHECK_OK;
}

/// Where the columns that are given stand in the table; false where one is missing or another one needs a value.
bool place_columns(const Rules& rules, TupleDesc description, int* attributes) {
  bool is_given[MaxHeapAttributeNumber] = {};
  for (std::size_t i = 0; i < rules.column_count; ++i) {
    attributes[i] = SPI_fnumber(description, rules.columns[i]) - 1;
    if (attributes[i] < 0) return false;
    is_given[attributes[i]] = true;
  }
  for (int i = 0; i < description->natts; ++i) {
    const Form_pg_attribute attribute = TupleDescAttr(description, i);
    if (!is_given[i] && !attribute->attisdropped && (attribute->attnotnull || attribute->atthasdef)) return false;
  }
  return true;
}

/// As most documents are; read once.
Datum empty_object() {
  static Datum object = 0;
  if (object == 0) {
    MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);
    object = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
    MemoryContextSwitchTo(caller);
  }
  return object;
}

/// The value of a row, as the type of its column. False where it cannot be one.
struct ValueAs {
  ValueAt at;
  Oid type;
  Datum& value;

  bool operator()(const TextColumn& column) const {
    const std::optional<std::string>& text = column[at.row];
    if (type == TEXTOID || !text) {
      value = at(column);
    } else if (type == JSONBOID) {
      value = *text == "{}" ? empty_object() : DirectFunctionCall1(jsonb_in, CStringGetDatum(text->c_str()));
    } else if (type == TEXTARRAYOID) {
      value = OidInputFunctionCall(F_ARRAY_IN, const_cast<char*>(text->c_str()), TEXTOID, -1);
    } else {
      return false;
    }
    return true;
  }
  bool operator()(const IntColumn& column) const {
    value = type == BOOLOID ? BoolGetDatum(column[at.row] != 0) : at(column);
    return type == INT4OID || type == BOOLOID;
  }
  bool operator()(const BigintColumn& column) const {
    if (type != INTERVALOID) return false;
    Interval* interval = static_cast<Interval*>(palloc0(sizeof(Interval)));
    interval->time = column[at.row] * 1000;
    value = IntervalPGetDatum(interval);
    return true;
  }
  bool operator()(const TimeColumn& column) const {
    value = at(column);
    return type == TIMESTAMPTZOID;
  }
  template <class T>
  bool operator()(const T&) const {
    return false;
  }
};

bool fill(TupleTableSlot* slot, const Argument* values, std::size_t row, const int* attributes, std::size_t count) {
  TupleDesc description = slot->tts_tupleDescriptor;
  ExecClearTuple(slot);
  std::fill_n(slot->tts_isnull, description->natts, true);
  for (std::size_t i = 0; i < count; ++i) {
    const Form_pg_attribute attribute = TupleDescAttr(description, attributes[i]);
    bool is_null = false;
    const ValueAs value_as{{row, is_null}, attribute->atttypid, slot->tts_values[attributes[i]]};
    if (!std::visit(value_as, values[i]) || (is_null && attribute->attnotnull)) return false;
    slot->tts_isnull[attributes[i]] = is_null;
  }
  ExecStoreVirtualTuple(slot);
  return true;
}

/// As COPY does it. False, and nothing is written, where the statement has to do it.
bool insert_directly(const Rules& rules, const Argument* values) {
  const std::size_t rows = row_count(values[0]);
  const Oid oid = get_relname_relid(rules.table, get_namespace_oid("ops", false));
  if (!OidIsValid(oid)) return false;  // the statement says so
  Relation table = table_open(oid, RowExclusiveLock);
  int attributes[Insert::most_columns];
  if (!is_plain(table) || !place_columns(rules, RelationGetDescr(table), attributes)) {
    table_close(table, NoLock);
    return false;
  }
  EState* state = CreateExecutorState();
  ResultRelInfo* target = makeNode(ResultRelInfo);
  InitResultRelInfo(target, table, 1, nullptr, 0);
  ExecOpenIndices(target, false);
  const std::size_t room = std::min(rows, most_at_once);
  TupleTableSlot** slots = static_cast<TupleTableSlot**>(palloc(sizeof(TupleTableSlot*) * (room + 1)));
  for (std::size_t i = 0; i < room; ++i) slots[i] = table_slot_create(table, nullptr);
  MemoryContext caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(state));
  bool direct = true;
  for (std::size_t begin = 0; direct && begin < rows; begin += room) {
    const std::size_t count = std::min(room, rows - begin);
    for (std::size_t i = 0; direct && i < count; ++i)
      direct = fill(slots[i], values, begin + i, attributes, rules.column_count);
    if (!direct) {
      if (begin > 0) elog(ERROR, "rows of ops.%s do not fit its columns", rules.table);
      break;
    }
    table_multi_insert(table, slots, static_cast<int>(count), GetCurrentCommandId(true), 0, nullptr);
    for (std::size_t i = 0; i < count; ++i) compat::insert_index_entries(target, slots[i], state);
    ResetPerTupleExprContext(state);
  }
  MemoryContextSwitchTo(caller);
  for (std::size_t i = 0; i < room; ++i) ExecDropSingleTupleTableSlot(slots[i]);
  ExecCloseIndices(target);
  FreeExecutorState(state);
  table_close(table, NoLock);
  if (direct) CommandCounterIncrement();
  return direct;
}

}  // namespace

void Insert::run(std::initializer_list<Argument> values) {
  const Rules rules{table_, columns_, column_count_};
  const Argument* columns = values.begin();
  if (values.size() == column_count_ && guarded([&] { return insert_directly(rules, columns); })) return;
  statement_.run(values);
}

}  // namespace ops::pg
