// Times of the server, which count from the year 2000, and those of C++.
#pragma once

#include <chrono>

#include "core/run.hpp"

#include "pg/boundary.hpp"

namespace ops::pg {

constexpr std::int64_t unix_to_postgres_us =
    (static_cast<std::int64_t>(POSTGRES_EPOCH_JDATE) - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

// Unsigned, so that both ends of time come back as they were.
constexpr TimestampTz server_time(WallTime time) {
  return static_cast<TimestampTz>(static_cast<uint64>(time.time_since_epoch().count()) -
                                  static_cast<uint64>(unix_to_postgres_us));
}
constexpr WallTime wall_time(TimestampTz time) {
  return WallTime{std::chrono::microseconds{
      static_cast<std::int64_t>(static_cast<uint64>(time) + static_cast<uint64>(unix_to_postgres_us))}};
}

}  // namespace ops::pg
