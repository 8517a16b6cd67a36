// JSON from outside: limits, syntax, cleaning, checked accessors (inputs I10 to I15, I31, I32).
#include "core/json.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>

namespace ops {
namespace {

std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  std::string why;
  return parse_json(text, limits, &why) ? "" : why;
}

std::string nested(std::size_t levels) {
  return std::string(levels, '[') + std::string(levels, ']');
}

TEST(ParseJson, TakesOneDocument) {
  EXPECT_EQ(parse_json(R"({"a":[1,-2,2.5,true,null,"x"]})"), Json::parse(R"({"a":[1,-2,2.5,true,null,"x"]})"));
  EXPECT_EQ(parse_json(" 17 "), Json(17));
}

TEST(ParseJson, I12_SkipsOneByteOrderMark) {
  EXPECT_EQ(parse_json("\xEF\xBB\xBF{}"), Json::object());
  EXPECT_NE(refusal("\xEF\xBB\xBF\xEF\xBB\xBF{}"), "");
}

TEST(ParseJson, I12_RefusesWhatIsNotUtf8) {
  for (const char* text :
       {"\"\xC0\xAF\"", "\"\xED\xA0\x80\"", "\"\xF5\x80\x80\x80\"", "\"\xE2\x82\"", R"("\ud800")", R"("\udc00 ")"})
    EXPECT_NE(refusal(text), "") << text;
}

TEST(ParseJson, I13_EnforcesDepthWhileParsing) {
  EXPECT_EQ(refusal(nested(64)), "");
  EXPECT_EQ(refusal(nested(65)), "nested deeper than 64 levels");
  for (const std::size_t levels : {1'000u, 20'000u, 200'000u})
    EXPECT_EQ(refusal(nested(levels)), "nested deeper than 64 levels");
  JsonLimits wide;
  wide.max_bytes = 16 * 1024 * 1024;
  EXPECT_EQ(refusal(std::string(5'000'000, '['), wide), "nested deeper than 64 levels");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  EXPECT_EQ(refusal(objects), "nested deeper than 64 levels");
}

TEST(ParseJson, I14_LimitsKeysAndSize) {
  std::string object = "{";
  for (int i = 0; i < 1'000; ++i) object += (i ? ",\"k" : "\"k") + std::to_string(i) + "\":0";
  EXPECT_EQ(refusal(object + "}"), "");
  EXPECT_EQ(refusal(object + ",\"more\":0}"), "an object has more than 1000 keys");
  EXPECT_EQ(refusal("{\"" + std::string(256, 'k') + "\":1}"), "");
  EXPECT_EQ(refusal("{\"" + std::string(257, 'k') + "\":1}"), "a key is longer than 256 bytes");
  JsonLimits small;
  small.max_bytes = 10;
  EXPECT_EQ(refusal("[1,2,3,4,5]", small), "larger than 10 bytes");
}

TEST(ParseJson, I15_RefusesNumbersThatDoNotFit) {
  EXPECT_NE(refusal("1e400"), "");
  EXPECT_NE(refusal("[-1e999999]"), "");
  EXPECT_EQ(refusal("1e308"), "");
}

TEST(ParseJson, I31_RefusesEverythingThatIsNotOneDocument) {
  for (const char* text : {"", " ", "{", "[1", "{\"a\":1,}", "{} {}", "[]x", "// c\n1", "{'a':1}", "NaN", "Infinity",
                           "+1", "01", "\"a\nb\"", "\"\\x\"", "tru", "{\"a\"}", "{1:2}"})
    EXPECT_NE(refusal(text), "") << text;
}

TEST(ParseJson, I10_TheLastOfEqualKeysWins) {
  EXPECT_EQ(parse_json(R"({"a":{"b":1},"a":2})"), Json({{"a", 2}}));
}

TEST(ParseJson, ReasonIsOptional) {
  EXPECT_FALSE(parse_json("{").has_value());
}

RC_GTEST_PROP(ParseJson, NeverThrowsAndKeepsItsLimits, (const std::string& text)) {
  JsonLimits limits;
  limits.max_bytes = 40;
  std::string why;
  const auto parsed = parse_json(text, limits, &why);
  RC_ASSERT(parsed.has_value() || !why.empty());
}

RC_GTEST_PROP(ParseJson, ReadsBackWhatDumpWrites,
              (const std::vector<std::string>& texts, const std::vector<int>& numbers)) {
  Json value = {{"numbers", numbers}, {"texts", Json::array()}};
  for (const std::string& text : texts) value["texts"].push_back(clean_text(text));
  RC_ASSERT(parse_json(dump_json(value)) == value);
}

TEST(DumpJson, I11_DropsNulCharacters) {
  const Json value = {{std::string("k\0y", 3), {std::string("a\0b", 3), 1}}};
  EXPECT_EQ(dump_json(value), R"({"ky":["ab",1]})");
}

TEST(DumpJson, KeepsAWrittenEscape) {
  EXPECT_EQ(dump_json(Json("\\u0000")), R"("\\u0000")");
}

TEST(DumpJson, ReplacesInvalidUtf8) {
  EXPECT_EQ(dump_json(Json("a\xFFz")), "\"a\xEF\xBF\xBDz\"");
}

TEST(CleanText, I49_RemovesControlCodesAndKeepsLines) {
  EXPECT_EQ(clean_text("a\x1B[31mred\x07\r\n\tb\x7F"), "a[31mred\n\tb");
  EXPECT_EQ(clean_text("x\xC2\x9By"), "xy");
  EXPECT_EQ(clean_text(std::string_view("a\0b", 3)), "ab");
  EXPECT_EQ(clean_text("\xE2\x82"), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(CleanText, CutsBetweenCharacters) {
  EXPECT_EQ(clean_text("a\xE2\x82\xAC", 3), "a");
  EXPECT_EQ(clean_text("a\xE2\x82\xAC", 4), "a\xE2\x82\xAC");
}

RC_GTEST_PROP(CleanText, IsAlwaysValidUtf8, (const std::string& text)) {
  RC_ASSERT(parse_json(Json(clean_text(text)).dump()).has_value());
}

RC_GTEST_PROP(CleanText, NeverExceedsItsLimit, (const std::string& text)) {
  RC_ASSERT(clean_text(text, 5).size() <= 5u);
}

HttpResponse answer(std::string body, std::string type = "application/json") {
  HttpResponse response;
  response.status = 200;
  response.headers.emplace_back("content-type", std::move(type));
  response.body = std::move(body);
  return response;
}

std::string bad_response(const HttpResponse& response) {
  try {
    answer_json(response, "GitHub", "the workflow run");
  } catch (const PhaseError& error) {
    EXPECT_EQ(error.code(), "bad_response");
    EXPECT_FALSE(error.hint().empty());
    EXPECT_LE(error.payload().at("body_start").get<std::string>().size(), 200u);
    return error.what();
  }
  return "";
}

TEST(AnswerJson, ReadsJson) {
  EXPECT_EQ(answer_json(answer("{\"id\":1}"), "GitHub", "the run"), Json({{"id", 1}}));
  EXPECT_EQ(answer_json(answer("[]", "application/vnd.oci.image.index.v1+json; charset=utf-8"), "r", "x"),
            Json::array());
}

TEST(AnswerJson, I33_LooksAtTheContentTypeFirst) {
  EXPECT_EQ(bad_response(answer("<html>", "text/html")),
            "GitHub answered the workflow run with status 200: the content type is \"text/html\" instead of JSON");
  HttpResponse untyped = answer("{}");
  untyped.headers.clear();
  EXPECT_NE(bad_response(untyped), "");
}

TEST(AnswerJson, I30_RefusesEmptyAndTruncated) {
  EXPECT_NE(bad_response(answer("")), "");
  EXPECT_NE(bad_response(answer("{\"id\":")), "");
  EXPECT_NE(bad_response(answer(std::string(1'000, '['))), "");
}

TEST(AnswerJson, KeepsNoSecretOfTheBody) {
  try {
    answer_json(answer("ghp_0123456789abcdefghij is broken"), "GitHub", "x");
    FAIL();
  } catch (const PhaseError& error) {
    EXPECT_EQ(error.payload().dump().find("ghp_0123"), std::string::npos);
  }
}

const Json document =
    Json::parse(R"({"id":12,"big":18446744073709551615,"f":1.0,"s":"x","n":null,"l":[{"a":"b"},2],"o":{"p":-3}})");

std::string field_error(const std::function<void()>& read) {
  try {
    read();
  } catch (const PhaseError& error) {
    EXPECT_EQ(error.code(), "bad_response");
    return error.what();
  }
  return "";
}

TEST(Accessors, ReadWhatIsThere) {
  EXPECT_EQ(integer_at(document, "/id"), 12);
  EXPECT_EQ(integer_at(document, "/o/p"), -3);
  EXPECT_EQ(text_at(document, "/l/0/a"), "b");
  EXPECT_EQ(array_at(document, "/l").size(), 2u);
  EXPECT_EQ(object_at(document, "/o").size(), 1u);
  EXPECT_EQ(object_at(document, ""), document);
}

TEST(Accessors, I32_NameTheFieldAndWhatWasFound) {
  EXPECT_EQ(field_error([] { text_at(document, "/id"); }), "the answer's field /id should be text and is number");
  EXPECT_EQ(field_error([] { integer_at(document, "/s"); }),
            "the answer's field /s should be an integer and is string");
  EXPECT_EQ(field_error([] { integer_at(document, "/none"); }),
            "the answer's field /none should be an integer and is missing");
  EXPECT_EQ(field_error([] { array_at(document, "/o"); }), "the answer's field /o should be a list and is object");
  EXPECT_EQ(field_error([] { object_at(document, "/l"); }), "the answer's field /l should be an object and is array");
}

TEST(Accessors, I15_NeverCastANumber) {
  EXPECT_NE(field_error([] { integer_at(document, "/f"); }), "");
  EXPECT_NE(field_error([] { integer_at(document, "/big"); }), "");
  EXPECT_NE(field_error([] { optional_integer_at(document, "/f"); }), "");
}

TEST(Accessors, MissingAndNullAreTheSame) {
  EXPECT_EQ(optional_text_at(document, "/n"), std::nullopt);
  EXPECT_EQ(optional_text_at(document, "/none/deeper"), std::nullopt);
  EXPECT_EQ(optional_integer_at(document, "/n"), std::nullopt);
  EXPECT_EQ(optional_integer_at(document, "/id"), 12);
  EXPECT_EQ(optional_text_at(document, "/s"), "x");
  EXPECT_NE(field_error([] { optional_text_at(document, "/id"); }), "");
}

TEST(Accessors, StepsThatLeadNowhere) {
  for (const char* pointer : {"/l/2", "/l/-", "/l/x", "/l/99999999999999999999", "/s/0", "/o/p/q"})
    EXPECT_TRUE(value_at(document, pointer).is_null()) << pointer;
}

}  // namespace
}  // namespace ops
