#include "pg/transaction.hpp"

#include "core/ports.hpp"

#include "pg/boundary.hpp"

namespace ops::pg {

namespace {

/// What may go well when it is done again, whatever it was.
bool passes_by_itself(int sqlstate) {
  switch (ERRCODE_TO_CATEGORY(sqlstate)) {
    case ERRCODE_TRANSACTION_ROLLBACK:
    case ERRCODE_INSUFFICIENT_RESOURCES:
      return true;
    default:
      return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE || sqlstate == ERRCODE_QUERY_CANCELED ||
             sqlstate == ERRCODE_IO_ERROR;
  }
}

template <class F>
auto in_store(F&& call) -> std::invoke_result_t<F> {
  try {
    return call();
  } catch (const PgError&) {
    throw_as_store_failure();
  }
}

}  // namespace

void throw_as_store_failure() {
  try {
    throw;
  } catch (const PgError& error) {
    if (passes_by_itself(error.sqlstate())) throw StoreBusy(error.what());
    throw;
  }
}

Rows StoreStatement::run(std::initializer_list<Argument> arguments) {
  return in_store([&] { return Statement::run(arguments); });
}

Transaction::Transaction(const char* what) {
  try {
    in_store([&] {
      guarded([&] {
        SetCurrentStatementStartTimestamp();
        StartTransactionCommand();
        SPI_connect();
        PushActiveSnapshot(GetTransactionSnapshot());
        pgstat_report_activity(STATE_RUNNING, what);
      });
    });
  } catch (...) {
    abort_open_transaction();
    throw;
  }
}

void Transaction::commit(bool flush) {
  in_store([&] {
    guarded([&] {
      SPI_finish();
      PopActiveSnapshot();
      // An unflushed commit is complete or absent after a crash, and what it told is told again by the next life.
      if (!flush && synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
        set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
      else if (flush && synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
        set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
      CommitTransactionCommand();
      pgstat_report_activity(STATE_IDLE, nullptr);
    });
  });
  open_ = false;
}

Transaction::~Transaction() {
  if (open_) abort_open_transaction();
}

void abort_open_transaction() noexcept {
  try {
    guarded([] {
      if (IsTransactionState() || IsAbortedTransactionBlockState()) AbortCurrentTransaction();
      pgstat_report_activity(STATE_IDLE, nullptr);
    });
  } catch (const std::exception&) {
    // Aborting failed: the next StartTransactionCommand reports it.
  }
}

}  // namespace ops::pg
