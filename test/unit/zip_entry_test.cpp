// One file out of a zip that came from outside (inputs I35, I36).
#include "phases/zip_entry.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "zip_archive.hpp"

namespace ops::test {
namespace {

TEST(ZipEntry, IsTheFileOfThatName) {
  const std::string zip = zip_of({{"other.json", "1"}, {"result.json", "{\"a\":1}"}, {"empty", ""}});
  EXPECT_EQ(zip_entry(zip, "result.json", 100), "{\"a\":1}");
  EXPECT_EQ(zip_entry(zip, "empty", 100), "");
  EXPECT_EQ(zip_entry(zip, "absent", 100), std::nullopt);
}

TEST(ZipEntry, IsNamedExactly) {
  const std::string zip = zip_of({{"a/result.json", "1"}, {"../result.json", "2"}, {"result.json.bak", "3"}});
  EXPECT_EQ(zip_entry(zip, "result.json", 100), std::nullopt);
}

TEST(ZipEntry, I35_IsCountedAfterDecompression) {
  const std::string zeros(8 * 1024 * 1024, '\0');
  const std::string bomb = zip_of({{"result.json", zeros}});
  ASSERT_LT(bomb.size(), zeros.size() / 100);
  EXPECT_EQ(zip_entry(bomb, "result.json", 1024 * 1024), std::nullopt);
  EXPECT_EQ(zip_entry(zip_of({{"result.json", std::string(100, 'x')}}), "result.json", 100), std::string(100, 'x'));
  EXPECT_EQ(zip_entry(zip_of({{"result.json", std::string(101, 'x')}}), "result.json", 100), std::nullopt);
}

TEST(ZipEntry, ManyEntriesAreNotSearchedForEver) {
  std::vector<std::pair<std::string, std::string>> files;
  for (int i = 0; i < 1'000; ++i) files.emplace_back("f" + std::to_string(i), "");
  files.emplace_back("result.json", "late");
  EXPECT_EQ(zip_entry(zip_of(files), "result.json", 100), std::nullopt);
}

TEST(ZipEntry, I36_DamagedArchivesHoldNothing) {
  for (const char* bytes : {"", "PK", "not a zip", "<html>404</html>", "\x1f\x8b\x08garbage"})
    EXPECT_EQ(zip_entry(bytes, "result.json", 100), std::nullopt) << bytes;
  const std::string zip = zip_of({{"result.json", std::string(5'000, 'x') + "unlike"}});
  const std::string whole = *zip_entry(zip, "result.json", 10'000);
  for (std::size_t cut = 1; cut < 60; ++cut) {
    const auto found = zip_entry(zip.substr(0, cut), "result.json", 10'000);
    EXPECT_TRUE(!found || *found != whole) << cut;
  }
}

RC_GTEST_PROP(ZipEntry, NoBytesBreakIt, (const std::string& tail)) {
  const std::string zip = zip_of({{"result.json", "content"}});
  const auto at = *rc::gen::inRange<std::size_t>(0, zip.size());
  std::string damaged = zip;
  damaged[at] = static_cast<char>(damaged[at] ^ *rc::gen::inRange(1, 256));
  const auto found = zip_entry(damaged + tail, "result.json", 100);
  RC_ASSERT(!found || found->size() <= 100u);
}

}  // namespace
}  // namespace ops::test
