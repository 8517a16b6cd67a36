// Error codes of phases: what the sources write and docs/errors.md explains is the same, and the tests of this program
// have raised each one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "memory_store.hpp"

namespace ops::test {
namespace {

const std::filesystem::path top = OPS_SOURCE_DIRECTORY;

std::string content(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return text.str();
}

void collect(const std::string& text, const char* pattern, std::set<std::string>& found) {
  const std::regex form(pattern);
  for (std::sregex_iterator match(text.begin(), text.end(), form), end; match != end; ++match)
    found.insert((*match)[1]);
}

/// Codes in the forms in which the C++ sources name them.
std::set<std::string> codes_of_sources() {
  std::set<std::string> codes;
  for (const char* part : {"src/core", "src/phases"})
    for (const auto& entry : std::filesystem::directory_iterator(top / part)) {
      const std::string text = content(entry.path());
      for (const char* form :
           {R"re(PhaseError\(\s*"([a-z_]+)")re", R"re(return \{\s*"([a-z]+_[a-z_]+)",)re",
            R"re(rejected\(\s*\{"([a-z_]+)")re", R"re(\bfail\(\s*"([a-z_]+)")re", R"re("code", "([a-z_]+)")re"})
        collect(text, form, codes);
    }
  return codes;
}

std::set<std::string> codes_of_install_scripts() {
  std::set<std::string> codes;
  for (const auto& entry : std::filesystem::directory_iterator(top / "sql/install"))
    collect(content(entry.path()), R"re('code', '([a-z_]+)')re", codes);
  return codes;
}

std::set<std::string> documented_codes() {
  const std::string text = content(top / "docs/errors.md");
  std::istringstream lines(text.substr(text.find("## Of phases")));
  std::set<std::string> codes;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("| ") || line.starts_with("| code ")) continue;
    collect(line.substr(0, line.find('|', 1)), R"re(([a-z_]+))re", codes);
  }
  return codes;
}

TEST(ErrorCodes, OfTheSourcesAndOfTheDocumentationAreTheSame) {
  std::set<std::string> written = codes_of_sources();
  written.merge(codes_of_install_scripts());
  EXPECT_GT(written.size(), 30u);
  const std::set<std::string> documented = documented_codes();
  for (const std::string& code : written)
    EXPECT_TRUE(documented.contains(code)) << "docs/errors.md does not explain " << code;
  for (const std::string& code : documented) EXPECT_TRUE(written.contains(code)) << "nothing raises " << code;
}

/// After a run of all tests.
class EveryCodeIsRaised : public ::testing::Environment {
 public:
  void TearDown() override {
    if (::testing::GTEST_FLAG(filter) != "*") return;
    for (const std::string& code : codes_of_sources())
      EXPECT_TRUE(stored_error_codes().contains(code)) << "no unit test raises " << code;
  }
};
[[maybe_unused]] const auto* const every_code = ::testing::AddGlobalTestEnvironment(new EveryCodeIsRaised);

}  // namespace
}  // namespace ops::test
