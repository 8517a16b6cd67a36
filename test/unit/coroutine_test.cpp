// The coroutine type below every phase.
#include "core/coroutine.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>

namespace ops {
namespace {

struct Pause {
  std::coroutine_handle<>& where;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> caller) const noexcept { where = caller; }
  void await_resume() const noexcept {}
};

Coroutine<int> number(int value) {
  if (value < 0) throw std::runtime_error("negative");
  co_return value;
}
Coroutine<> checked(int value) {
  co_await number(value);
}
Coroutine<std::string> twice(int value) {
  const int first = co_await number(value);
  co_await checked(value);
  co_return std::to_string(first * 2);
}
Coroutine<> paused(std::coroutine_handle<>& where, std::shared_ptr<int> held) {
  const Pause pause{where};
  co_await pause;
  ++*held;
}

TEST(Coroutine, StartsWhenItIsStartedAndReturnsItsValue) {
  Coroutine<std::string> outer = twice(21);
  EXPECT_TRUE(outer);
  EXPECT_FALSE(outer.done());
  outer.start();
  ASSERT_TRUE(outer.done());
  EXPECT_EQ(outer.take(), "42");
}

TEST(Coroutine, ErrorsTravelToWhoAwaits) {
  Coroutine<std::string> outer = twice(-1);
  outer.start();
  ASSERT_TRUE(outer.done());
  EXPECT_THROW(outer.take(), std::runtime_error);
  Coroutine<> without_value = checked(-1);
  without_value.start();
  EXPECT_THROW(without_value.take(), std::runtime_error);
  Coroutine<> good = checked(1);
  good.start();
  EXPECT_NO_THROW(good.take());
}

TEST(Coroutine, GoesOnWhereItPaused) {
  std::coroutine_handle<> where;
  const auto held = std::make_shared<int>(0);
  Coroutine<> waiting = paused(where, held);
  waiting.start();
  EXPECT_FALSE(waiting.done());
  where.resume();
  EXPECT_TRUE(waiting.done());
  EXPECT_EQ(*held, 1);
}

TEST(Coroutine, WhatItHoldsGoesWithIt) {
  std::coroutine_handle<> where;
  const auto held = std::make_shared<int>(0);
  {
    Coroutine<> first = paused(where, held);
    first.start();
    Coroutine<> second = paused(where, held);
    second.start();
    EXPECT_EQ(held.use_count(), 3);
    first = std::move(second);
    EXPECT_EQ(held.use_count(), 2);
    Coroutine<>& same = first;
    first = std::move(same);
    EXPECT_EQ(held.use_count(), 2);
    Coroutine<> third(std::move(first));
    EXPECT_FALSE(first);
    EXPECT_FALSE(first.done());
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_EQ(*held, 0);
}

Coroutine<int> awaits_one_that_is_done() {
  Coroutine<int> inner = number(7);
  inner.start();
  const int value = co_await std::move(inner);
  co_return value;
}

TEST(Coroutine, OneThatIsDoneIsNotWaitedFor) {
  Coroutine<int> outer = awaits_one_that_is_done();
  outer.start();
  ASSERT_TRUE(outer.done());
  EXPECT_EQ(outer.take(), 7);
}

}  // namespace
}  // namespace ops
