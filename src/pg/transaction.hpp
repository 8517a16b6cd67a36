// A transaction of the worker as an object: not committed means aborted. Statements inside it go through
// StoreStatement.
#pragma once

#include "pg/statement.hpp"

namespace ops::pg {

/// A statement of the worker, inside a Transaction.
class StoreStatement : public Statement {
 public:
  using Statement::Statement;
  /// @throws StoreBusy for what may go well when it is done again, PgError
  Rows run(std::initializer_list<Argument> arguments);
};

/// In a catch block: throws what was caught again, as StoreBusy where it may go well when it is done again.
[[noreturn]] void throw_as_store_failure();

class Transaction {
 public:
  /// Starts a transaction with a snapshot and opens SPI. @param what  shown in pg_stat_activity
  explicit Transaction(const char* what);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  /// @param flush  wait until the commit is on disk; without it a crash may undo it, never partly
  void commit(bool flush);

 private:
  bool open_ = true;
};

/// Aborts what an error left open. For catch blocks of the worker's loop.
void abort_open_transaction() noexcept;

}  // namespace ops::pg
