// Error codes of phases: what the sources write and docs/errors.md explains is the same, and the tests of this program
// have raised each one.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
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

bool is_code(std::string_view word) {
  return !word.empty() && word.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string_view::npos;
}

/// Quoted codes that stand behind `before`, with nothing but `between` in between.
void collect(std::string_view text, std::string_view before, std::string_view between, std::set<std::string>& found) {
  for (std::size_t at = 0; (at = text.find(before, at)) != std::string_view::npos;) {
    at += before.size();
    const std::size_t quote = text.find_first_not_of(between, at);
    if (quote == std::string_view::npos || (text[quote] != '"' && text[quote] != '\'')) continue;
    const std::string_view word = text.substr(quote + 1, text.find(text[quote], quote + 1) - quote - 1);
    if (is_code(word)) found.emplace(word);
  }
}

/// Codes in the forms in which the C++ sources name them.
std::set<std::string> codes_of_sources() {
  std::set<std::string> codes;
  for (const char* part : {"src/core", "src/phases"})
    for (const auto& entry : std::filesystem::directory_iterator(top / part)) {
      const std::string text = content(entry.path());
      for (const char* before : {"PhaseError(", "return {", "fail(", "\"code\", "}) collect(text, before, " \n", codes);
      collect(text, "rejected(", " \n{", codes);
    }
  return codes;
}

std::set<std::string> codes_of_install_scripts() {
  std::set<std::string> codes;
  for (const auto& entry : std::filesystem::directory_iterator(top / "sql/install"))
    collect(content(entry.path()), "'code', ", "", codes);
  return codes;
}

std::set<std::string> documented_codes() {
  const std::string text = content(top / "docs/errors.md");
  std::istringstream lines(text.substr(text.find("## Of phases")));
  std::set<std::string> codes;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find('|', 1)));
    for (std::string word; words >> word;) {
      while (word.ends_with(',')) word.pop_back();
      if (line.starts_with("| ") && !line.starts_with("| code ") && is_code(word)) codes.insert(word);
    }
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
