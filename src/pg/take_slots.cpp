#include "pg/take_slots.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "pg/boundary.hpp"
#include "pg/insert.hpp"
#include "pg/ready_floors.hpp"
#include "pg/ready_runs.hpp"
#include "pg/server_time.hpp"
#include "pg/shared_memory.hpp"
#include "pg/statement.hpp"
#include "pg/stored_rows.hpp"

extern "C" {
OPS_SQL_FUNCTION(ops_take_slots);
}

namespace ops::pg {

namespace {

/// Largest number of runs examined at once while runs that cannot be claimed now stand before others.
constexpr int widest_window = 1000;
constexpr int most_rounds = 64;
/// No run has it.
constexpr int beyond_all_priorities = highest_priority + 1;
/// Floors are raised at once after a claim of more runs: so many dead index entries would have to be read again.
constexpr std::size_t many_claims = 64;

// Statements ---------------------------------------------------------------------------------------------------------
// OFFSET 0: each row is looked up by its key, whatever a plan knows of the table's size.

Statement find_ready_statement("SELECT ops._find_ready()");

Statement make_due_ready_statement(R"sql(
  UPDATE ops.run_queue q SET state = 'ready'
    FROM (SELECT d.run_id FROM ops.run_queue d WHERE d.state = 'later' AND d.available_at <= clock_timestamp()
           ORDER BY d.available_at LIMIT 1000 FOR UPDATE SKIP LOCKED) d
   WHERE q.run_id = d.run_id
  RETURNING q.priority, (extract(epoch FROM q.available_at) * 1000000)::bigint)sql");

Statement next_later_statement(R"sql(
  SELECT (extract(epoch FROM q.available_at) * 1000000)::bigint FROM ops.run_queue q
   WHERE q.state = 'later' ORDER BY q.available_at LIMIT 1)sql");

constexpr const char* run_columns[] = {"status"};
const StoredTable runs_table("runs", run_columns);
constexpr const char* environment_columns[] = {"max_active_runs"};
const StoredTable environments_table("environments", environment_columns);
constexpr const char* slot_columns[] = {"slot_no", "run_id"};
const StoredTable slots_table("run_slots", slot_columns);

constexpr const char* taken_columns[] = {"env_id", "slot_no", "run_id", "worker_id", "cancel_requested"};
Insert insert_slots("run_slots", taken_columns, R"sql(
  INSERT INTO ops.run_slots (env_id, slot_no, run_id, worker_id, cancel_requested)
  SELECT u.env_id, u.slot_no, u.run_id, u.worker_id, u.cancel_requested = 1
    FROM {u(env_id text, slot_no int, run_id text, worker_id text, cancel_requested int)}
  ON CONFLICT DO NOTHING)sql");  // with one snapshot for all it may not see what another claim has taken: 40001

Statement leave_queue_statement("DELETE FROM ops.run_queue q WHERE q.run_id = ANY ($1)");

// Full only where every active run can be locked: one that is ending right now is locked by the other session. And one
// that ends from now on waits for this transaction and then finds its successor blocked.
Statement full_environments_statement(R"sql(
  SELECT f.env_id
    FROM (SELECT a.env_id, count(*) AS active
            FROM (SELECT s.env_id FROM ops.run_slots s
                   CROSS JOIN LATERAL (SELECT FROM ops.runs r WHERE r.run_id = s.run_id
                                          AND (r.status IN ('claimed', 'running') OR r.run_id = ANY ($2))
                                       OFFSET 0 FOR SHARE SKIP LOCKED) r
                   WHERE s.env_id = ANY ($1)) a
           GROUP BY a.env_id) f
    JOIN ops.environments e ON e.env_id = f.env_id AND f.active >= e.max_active_runs)sql");

Statement block_statement(
    "UPDATE ops.run_queue q SET state = 'blocked' WHERE q.run_id = ANY ($1) AND q.env_id = ANY ($2)");

Statement oldest_ready_statement(R"sql(
  SELECT f.priority, (SELECT (extract(epoch FROM q.available_at) * 1000000)::bigint FROM ops.run_queue q
                       WHERE q.state = 'ready' AND q.priority = f.priority AND q.available_at >= f.since
                       ORDER BY q.available_at LIMIT 1)
    FROM {f(priority int, since timestamptz)})sql");

// Floors -------------------------------------------------------------------------------------------------------------

TimestampTz time_at(const Rows& rows, std::size_t row, std::size_t column) {
  return rows.at(row, column) ? server_time(WallTime{std::chrono::microseconds{rows.integer(row, column)}}) : DT_NOEND;
}

/// Where claims have to look: priorities, the highest first, and since when their runs may be ready.
struct Places {
  IntColumn priority;
  TimeColumn since;
  bool known = false;
  bool raise_due = false;
  bool later_due = false;
};

Places look(bool found_all) {
  static int priority[ready_floor_count];
  static TimestampTz since[ready_floor_count];
  const ReadyLook seen = guarded([&] { return look_for_ready(found_all, priority, since); });
  Places places;
  places.known = seen.count >= 0;
  places.raise_due = seen.raise_due;
  places.later_due = seen.later_due;
  for (int i = 0; i < seen.count; ++i) {
    places.priority.push_back(priority[i]);
    places.since.emplace_back(wall_time(since[i]));
  }
  return places;
}

/// Runs whose time has come become ready.
void make_due_ready() {
  const Rows due = make_due_ready_statement.run({});
  for (std::size_t i = 0; i < due.size(); ++i) {
    const int priority = static_cast<int>(due.integer(i, 0));
    const TimestampTz since = time_at(due, i, 1);
    guarded([&] { note_ready(priority, since); });
  }
}

Places find_places() {
  Places places = look(false);
  if (places.known && !places.later_due) return places;
  const bool unknown = !places.known;
  if (unknown) find_ready_statement.run({});
  make_due_ready();
  places = look(unknown);
  const Rows next = next_later_statement.run({});
  const TimestampTz since = next.size() == 0 ? DT_NOEND : time_at(next, 0, 0);
  guarded([&] { raise_later_floor(since); });
  return places;
}

/// What is left begins here.
void raise_floors(Places places) {
  if (places.priority.empty()) return;
  const Rows oldest = oldest_ready_statement.run({std::move(places.priority), std::move(places.since)});
  for (std::size_t i = 0; i < oldest.size(); ++i) {
    const int priority = static_cast<int>(oldest.integer(i, 0));
    const TimestampTz since = time_at(oldest, i, 1);
    guarded([&] { raise_ready_floor(priority, since); });
  }
}

// Slots --------------------------------------------------------------------------------------------------------------

/// Runs in claim order, and their environments.
struct Candidates {
  TextColumn run_id;
  TextColumn env_id;
  std::size_t size() const { return run_id.size(); }
  void add(const std::string& run, const std::string& env) {
    run_id.emplace_back(run);
    env_id.emplace_back(env);
  }
};

/// The first ready runs of places, locked, at most `window`; without those that another session holds.
Candidates find_candidates(const Places& places, const std::set<std::string>& passed_over, std::size_t window) {
  std::vector<const char*> environments;
  for (const std::string& env_id : passed_over) environments.push_back(env_id.c_str());
  Candidates candidates;
  for (std::size_t i = 0; i < places.priority.size() && candidates.size() < window; ++i) {
    const ReadyPlace place{places.priority[i], server_time(*places.since[i])};
    const std::size_t left = window - candidates.size();
    const ReadyRuns found =
        guarded([&] { return lock_ready_runs(place, environments.data(), environments.size(), left); });
    for (std::size_t row = 0; row < found.count; ++row) candidates.add(found.runs[row].run_id, found.runs[row].env_id);
  }
  return candidates;
}

/// What this claim has locked.
struct Locked {
  std::map<std::string, int> open;  ///< environments in which no other session claims, with their max_active_runs
  std::set<std::string> queued;     ///< runs that no other session changes
};

/// Claims of one environment take turns by its row, so that two of them never want the same slot number.
Locked lock(const Candidates& candidates) {
  Locked locked;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const std::string& run_id = *candidates.run_id[i];
    const std::string& env_id = *candidates.env_id[i];
    if (seen.insert(env_id).second) {
      const Rows environment = environments_table.lock(env_id, RowLock::no_key_update);
      if (environment.size() > 0) locked.open.emplace(env_id, static_cast<int>(environment.integer(0, 0)));
    }
    const Rows run = runs_table.lock(run_id, RowLock::update);
    if (run.size() > 0 && run.text(0, 0) == to_string(RunStatus::queued)) locked.queued.insert(run_id);
  }
  return locked;
}

struct Slots {
  IntColumn free;              ///< the lowest one last
  std::set<std::string> runs;  ///< that have one
};

/// Slots of an environment, of the free ones as many as are wanted and there are. Read after the environment was
/// locked, so that all are seen that others took, and nobody else takes one.
Slots slots_of(const std::string& env_id, int max_active_runs, std::size_t wanted) {
  Slots slots;
  std::set<int> in_use;
  const Rows taken = slots_table.rows(env_id);
  for (std::size_t i = 0; i < taken.size(); ++i) {
    in_use.insert(static_cast<int>(taken.integer(i, 0)));
    slots.runs.insert(taken.text(i, 1));
  }
  const int most = std::min(static_cast<int>(wanted), max_active_runs - static_cast<int>(in_use.size()));
  for (int number = 1; static_cast<int>(slots.free.size()) < most; ++number)
    if (!in_use.contains(number)) slots.free.push_back(number);
  std::ranges::reverse(slots.free);
  return slots;
}

/// Runs that have a slot now: in claim order, as many as there are slots and at most `limit`.
std::set<std::string> take_free_slots(const Candidates& candidates, const Locked& locked, const std::string& worker_id,
                                      int limit) {
  const auto may_be_claimed = [&](std::size_t i) {
    return locked.queued.contains(*candidates.run_id[i]) && locked.open.contains(*candidates.env_id[i]);
  };
  std::map<std::string, std::size_t> wanted;
  for (std::size_t i = 0; i < candidates.size(); ++i)
    if (may_be_claimed(i)) ++wanted[*candidates.env_id[i]];
  if (wanted.empty()) return {};

  std::map<std::string, Slots> slots;
  for (const auto& [id, count] : wanted) slots.emplace(id, slots_of(id, locked.open.at(id), count));

  TextColumn env_id, run_id;
  IntColumn slot_no;
  std::set<std::string> taken;
  for (std::size_t i = 0; i < candidates.size() && static_cast<int>(taken.size()) < limit; ++i) {
    if (!may_be_claimed(i)) continue;
    auto& [free, runs] = slots.at(*candidates.env_id[i]);
    if (free.empty() || runs.contains(*candidates.run_id[i])) continue;
    env_id.push_back(candidates.env_id[i]);
    slot_no.push_back(free.back());
    run_id.push_back(candidates.run_id[i]);
    taken.insert(*candidates.run_id[i]);
    free.pop_back();
  }
  const std::size_t count = taken.size();
  if (count > 0)
    insert_slots.run(
        {std::move(env_id), std::move(slot_no), std::move(run_id), TextColumn(count, worker_id), IntColumn(count, 0)});
  return taken;
}

/// Blocks runs whose environment is full. Adds environments that are not and gave no slot now to `passed_over`.
void block(const Candidates& candidates, const std::set<std::string>& won, const Locked& locked,
           const TextColumn& claimed, std::set<std::string>& passed_over) {
  TextColumn rest;
  std::set<std::string> environments, open;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (won.contains(*candidates.run_id[i])) continue;
    rest.push_back(candidates.run_id[i]);
    environments.insert(*candidates.env_id[i]);
    if (locked.open.contains(*candidates.env_id[i])) open.insert(*candidates.env_id[i]);
  }
  std::set<std::string> full;
  if (!open.empty()) full = full_environments_statement.run({column_of(open), claimed}).first_column();
  if (!full.empty()) block_statement.run({std::move(rest), column_of(full)});
  for (const std::string& env_id : environments)
    if (!full.contains(env_id)) passed_over.insert(env_id);
}

}  // namespace

TextColumn take_slots(const std::string& worker_id, int limit) {
  const Places places = find_places();
  TextColumn claimed;
  std::set<std::string> passed_over;
  int left = limit;
  int window = limit;
  bool all_examined = false;
  for (int round = 0; round < most_rounds; ++round) {
    const Candidates candidates = find_candidates(places, passed_over, static_cast<std::size_t>(window));
    all_examined = candidates.size() == 0;
    if (all_examined) break;
    const Locked locked = lock(candidates);
    const std::set<std::string> won = take_free_slots(candidates, locked, worker_id, left);
    if (!won.empty()) leave_queue_statement.run({column_of(won)});
    for (const auto& run_id : candidates.run_id)
      if (won.contains(*run_id)) claimed.push_back(run_id);
    left -= static_cast<int>(won.size());
    if (left <= 0) break;
    if (won.size() == candidates.size()) {
      all_examined = candidates.size() < static_cast<std::size_t>(window);
      if (all_examined) break;
      continue;
    }
    block(candidates, won, locked, claimed, passed_over);
    window = std::min(2 * window, widest_window);
  }
  // More are ready than were examined.
  if (!all_examined && left > 0)
    guarded([] {
      Bell bell;
      bell.queue = true;
      ring_at_commit(bell);
    });
  // Now and then, and after many: a floor that is somewhat low costs less than finding it.
  if (places.raise_due || window > limit || claimed.size() > many_claims) raise_floors(places);
  return claimed;
}

void rehearse_take_slots() {
  Candidates nobody;
  nobody.add("", "");
  guarded([] { (void)lock_ready_runs({beyond_all_priorities, 0}, nullptr, 0, 1); });
  (void)lock(nobody);
  (void)slots_of("", 1, 1);
  leave_queue_statement.run({std::move(nobody.run_id)});
}

}  // namespace ops::pg

Datum ops_take_slots(PG_FUNCTION_ARGS) {
  using namespace ops::pg;
  return entry([&]() -> Datum {
    const struct varlena* name = guarded([&] { return PG_GETARG_TEXT_PP(0); });
    const std::string worker_id(VARDATA_ANY(name), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(name)));
    MemoryContext caller = CurrentMemoryContext;
    guarded([] { SPI_connect(); });
    const TextColumn runs = take_slots(worker_id, PG_GETARG_INT32(1));
    guarded([] { SPI_finish(); });
    return guarded([&] {
      MemoryContextSwitchTo(caller);
      Datum* ids = static_cast<Datum*>(palloc(sizeof(Datum) * (runs.size() + 1)));
      for (std::size_t i = 0; i < runs.size(); ++i)
        ids[i] = PointerGetDatum(cstring_to_text_with_len(runs[i]->data(), static_cast<int>(runs[i]->size())));
      return PointerGetDatum(construct_array(ids, static_cast<int>(runs.size()), TEXTOID, -1, false, TYPALIGN_INT));
    });
  });
}
