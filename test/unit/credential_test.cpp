// Hashes, signatures and the one place where secrets meet requests.
#include <gtest/gtest.h>

#include <openssl/evp.h>
#include <openssl/pem.h>

#include <memory>

#include "core/credential.hpp"
#include "core/crypto.hpp"
#include "core/json.hpp"

namespace ops {
namespace {

const WallTime moment{std::chrono::seconds{1'800'000'000}};

// Hashes: FIPS 180-2 and RFC 4231, RFC 4648
// ------------------------------------------------------------------------------

TEST(Crypto, Sha256OfKnownTexts) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 parts;
  parts.update("a");
  parts.update("");
  parts.update("bc");
  EXPECT_EQ(parts.finish_hex(), sha256_hex("abc"));
}

TEST(Crypto, HmacOfRfc4231) {
  EXPECT_EQ(hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Crypto, Base64OfRfc4648) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
  EXPECT_EQ(base64url("\xfb\xff"), "-_8");
}

// SigV4: the examples of docs.aws.amazon.com, "Signature Calculations for the Authorization Header"
// ------------------------

std::string signature_of(Method method, const std::string& url, const std::vector<Header>& headers,
                         const std::string& payload_hash) {
  HttpRequest request;
  request.method = method;
  request.url = url;
  request.headers = headers;
  request.headers.push_back({"x-amz-content-sha256", payload_hash});
  request.headers.push_back({"x-amz-date", "20130524T000000Z"});
  const std::string header =
      sigv4_authorization(request, "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1",
                          "s3", "20130524T000000Z", payload_hash);
  EXPECT_TRUE(
      header.starts_with("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "))
      << header;
  return header.substr(header.rfind('=') + 1);
}

TEST(Credential, SigV4SignsTheExamplesOfTheDocumentation) {
  const std::string bucket = "https://examplebucket.s3.amazonaws.com";
  const std::string empty = sha256_hex("");
  EXPECT_EQ(signature_of(Method::get, bucket + "/test.txt", {{"Range", "bytes=0-9"}}, empty),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  EXPECT_EQ(signature_of(Method::put, bucket + "/test%24file.text",
                         {{"Date", "Fri, 24 May 2013 00:00:00 GMT"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                         sha256_hex("Welcome to Amazon S3.")),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
  EXPECT_EQ(signature_of(Method::get, bucket + "/?lifecycle", {}, empty),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  // Parameters in another order: the canonical form sorts them.
  EXPECT_EQ(signature_of(Method::get, bucket + "/?prefix=J&max-keys=2", {}, empty),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(Credential, SigV4WritesTheCanonicalFormOfOddParts) {
  const std::string host = "https://examplebucket.s3.amazonaws.com";
  const std::string empty = sha256_hex("");
  // A parameter without value is one with an empty value; spaces around a header's value do not count.
  EXPECT_EQ(signature_of(Method::get, host + "/?a&b=", {}, empty),
            signature_of(Method::get, host + "/?b=&a=", {}, empty));
  EXPECT_EQ(signature_of(Method::get, host + "/", {{"Range", "  bytes=0-9\t"}}, empty),
            signature_of(Method::get, host + ":443/", {{"range", "bytes=0-9"}}, empty));
  EXPECT_EQ(signature_of(Method::get, host, {{"x-a", " "}}, empty),
            signature_of(Method::get, host + "/", {{"x-a", ""}}, empty));
  // The port is part of the signed host unless it is the scheme's own.
  EXPECT_NE(signature_of(Method::get, host + ":8443/", {}, empty), signature_of(Method::get, host + "/", {}, empty));
  EXPECT_EQ(signature_of(Method::get, "http://[::1]:80/", {}, empty),
            signature_of(Method::get, "http://[::1]/", {}, empty));
  EXPECT_NE(signature_of(Method::get, "http://[::1]:443/", {}, empty),
            signature_of(Method::get, "http://[::1]/", {}, empty));
}

// Use of credentials
// -----------------------------------------------------------------------------------------------------

HttpRequest request_with(CredentialScheme scheme, const std::string& url = "https://api.github.com/user") {
  HttpRequest request;
  request.url = url;
  request.credential = CredentialUse{scheme, "the_secret", "https://api.github.com", "us-east-1"};
  return request;
}
std::string header_of(const HttpRequest& request, const std::string& name) {
  for (const Header& header : request.headers)
    if (header.name == name) return header.value;
  return {};
}

TEST(Credential, T12_IsRefusedForAnotherOrigin) {
  for (const char* url : {"https://evil.example/user", "http://api.github.com/user", "https://api.github.com:8443/user",
                          "https://api.github.com.evil.example/", "https://xapi.github.com/"}) {
    HttpRequest request = request_with(CredentialScheme::bearer, url);
    const auto problem = apply_credential(request, SecretString("ghp_secretsecret"), moment);
    ASSERT_TRUE(problem) << url;
    EXPECT_EQ(problem->failure, TransportFailure::refused_by_rule);
    EXPECT_EQ(problem->text.find("ghp_"), std::string::npos);
    EXPECT_TRUE(request.headers.empty()) << url;
  }
}

TEST(Credential, MalformedSecretsAreNamedAndNotShown) {
  const struct {
    CredentialScheme scheme;
    const char* secret;
  } malformed[] = {
      {CredentialScheme::bearer, ""},
      {CredentialScheme::bearer, "two words"},
      {CredentialScheme::bearer, "token\r\nX-Injected: 1"},
      {CredentialScheme::basic, "plainsecret"},
      {CredentialScheme::basic, R"({"username":"plainsecret"})"},
      {CredentialScheme::aws_sigv4, R"({"access_key_id":"plainsecret"})"},
      {CredentialScheme::aws_sigv4, R"({"access_key_id":"a b","secret_access_key":"plainsecret"})"},
      {CredentialScheme::github_app_jwt, R"({"app_id":1,"private_key":"plainsecret"})"},
      {CredentialScheme::github_app_jwt, "[]"},
      {CredentialScheme::github_app_jwt, R"({"private_key":"plainsecret"})"},
      {CredentialScheme::github_app_jwt, R"({"app_id":1.5,"private_key":"plainsecret"})"},
      {CredentialScheme::bearer, "t\xc3\xb6ken"},
      {CredentialScheme::bearer, "token\x7f"},
      {CredentialScheme::basic, R"({"password":"plainsecret"})"},
      {CredentialScheme::basic, R"({"username":"a","password":["plainsecret"]})"},
      {CredentialScheme::aws_sigv4, R"({"secret_access_key":"plainsecret"})"},
      {CredentialScheme::aws_sigv4, R"({"access_key_id":"","secret_access_key":"plainsecret"})"},
      {CredentialScheme::aws_sigv4, R"({"access_key_id":"a","secret_access_key":"plainsecret","session_token":"b c"})"},
  };
  for (const auto& [scheme, secret] : malformed) {
    HttpRequest request = request_with(scheme);
    const auto problem = apply_credential(request, SecretString(secret), moment);
    ASSERT_TRUE(problem) << secret;
    EXPECT_EQ(problem->failure, TransportFailure::secret_malformed);
    EXPECT_NE(problem->text.find("the_secret"), std::string::npos);
    EXPECT_EQ(problem->text.find("plainsecret"), std::string::npos);
    EXPECT_EQ(header_of(request, "Authorization"), "");
  }
}

TEST(Credential, BasicJoinsNameAndPassword) {
  HttpRequest request = request_with(CredentialScheme::basic);
  ASSERT_FALSE(apply_credential(request, SecretString(R"({"username":"Aladdin","password":"open sesame"})"), moment));
  EXPECT_EQ(header_of(request, "Authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");  // RFC 7617
}

struct KeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(BIO* bio) const { BIO_free_all(bio); }
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

std::string from_base64url(std::string text) {
  for (char& c : text) c = c == '-' ? '+' : c == '_' ? '/' : c;
  const std::size_t padding = (4 - text.size() % 4) % 4;
  text.append(padding, '=');
  std::string bytes(text.size() / 4 * 3, '\0');
  EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()), reinterpret_cast<const unsigned char*>(text.data()),
                  static_cast<int>(text.size()));
  bytes.resize(bytes.size() - padding);
  return bytes;
}

TEST(Credential, AppTokenIsAJwtThatTheKeyVerifies) {
  const std::unique_ptr<EVP_PKEY, KeyDeleter> key(EVP_RSA_gen(2048));
  const std::unique_ptr<BIO, KeyDeleter> pem(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(pem.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  char* text = nullptr;
  const long length = BIO_get_mem_data(pem.get(), &text);
  const Json secret{{"app_id", 4711}, {"private_key", std::string(text, static_cast<std::size_t>(length))}};

  HttpRequest request = request_with(CredentialScheme::github_app_jwt);
  ASSERT_FALSE(apply_credential(request, SecretString(secret.dump()), moment));
  const std::string jwt = header_of(request, "Authorization").substr(7);
  const std::size_t dot = jwt.rfind('.');
  const std::string signed_part = jwt.substr(0, dot);
  const std::string signature = from_base64url(jwt.substr(dot + 1));
  const std::unique_ptr<EVP_MD_CTX, KeyDeleter> context(EVP_MD_CTX_new());
  EVP_DigestVerifyInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get());
  EXPECT_EQ(EVP_DigestVerify(context.get(), reinterpret_cast<const unsigned char*>(signature.data()), signature.size(),
                             reinterpret_cast<const unsigned char*>(signed_part.data()), signed_part.size()),
            1);
  const Json claims = Json::parse(from_base64url(signed_part.substr(signed_part.find('.') + 1)));
  EXPECT_EQ(claims["iss"], "4711");
  EXPECT_EQ(claims["iat"], 1'800'000'000 - 60);
  EXPECT_LE(claims["exp"].get<std::int64_t>() - claims["iat"].get<std::int64_t>(), 600);  // GitHub's limit
}

TEST(Credential, ABearerTokenIsTheWholeSecret) {
  HttpRequest request = request_with(CredentialScheme::bearer);
  ASSERT_FALSE(apply_credential(request, SecretString("ghp_token"), moment));
  EXPECT_EQ(header_of(request, "Authorization"), "Bearer ghp_token");
  HttpRequest numbers = request_with(CredentialScheme::basic);
  ASSERT_FALSE(apply_credential(numbers, SecretString(R"({"username":1,"password":2})"), moment));
  EXPECT_EQ(header_of(numbers, "Authorization"), "Basic MToy");
}

TEST(Credential, ASessionTokenIsABearerToken) {
  HttpRequest request;
  request.session_token = std::make_shared<const SecretString>("ghs_session");
  apply_session_token(request);
  EXPECT_EQ(header_of(request, "Authorization"), "Bearer ghs_session");
}

TEST(Credential, T12_AUrlOrOriginThatIsNoneIsRefused) {
  HttpRequest request = request_with(CredentialScheme::bearer, "not a url");
  EXPECT_EQ(apply_credential(request, SecretString("t"), moment)->failure, TransportFailure::refused_by_rule);
  request = request_with(CredentialScheme::bearer);
  request.credential->origin = "api.github.com";
  EXPECT_EQ(apply_credential(request, SecretString("t"), moment)->failure, TransportFailure::refused_by_rule);
}

std::string pem_of(EVP_PKEY* key, const EVP_CIPHER* cipher = nullptr) {
  const std::unique_ptr<BIO, KeyDeleter> pem(BIO_new(BIO_s_mem()));
  char password[] = "hunter2";
  PEM_write_bio_PrivateKey(pem.get(), key, cipher, nullptr, 0, nullptr, cipher ? password : nullptr);
  char* text = nullptr;
  const long length = BIO_get_mem_data(pem.get(), &text);
  return {text, static_cast<std::size_t>(length)};
}

TEST(Crypto, OnlyAnOpenRsaKeySigns) {
  const std::unique_ptr<EVP_PKEY, KeyDeleter> rsa(EVP_RSA_gen(2048));
  const std::unique_ptr<EVP_PKEY, KeyDeleter> elliptic(EVP_EC_gen("P-256"));
  EXPECT_TRUE(rs256_signature(pem_of(rsa.get()), "text"));
  EXPECT_FALSE(rs256_signature(pem_of(elliptic.get()), "text"));
  EXPECT_FALSE(rs256_signature(pem_of(rsa.get(), EVP_aes_128_cbc()), "text"));  // and nobody is asked for a password
  for (const char* text : {"", "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "hunter2"})
    EXPECT_FALSE(rs256_signature(text, "text")) << text;
}

TEST(Crypto, AHashThatMovesGoesOn) {
  Sha256 first;
  first.update("ab");
  Sha256 second(std::move(first));
  second.update("c");
  Sha256 third;
  third = std::move(second);
  EXPECT_EQ(third.finish_hex(), sha256_hex("abc"));
}

TEST(Credential, SignedUploadOfAFileNamesItsHash) {
  class NoFile final : public ScratchFile {
   public:
    const std::string& path() const override { return path_; }

   private:
    std::string path_;
  };
  const SecretString key(R"({"access_key_id":"AKID","secret_access_key":"s"})");
  HttpRequest streamed = request_with(CredentialScheme::aws_sigv4, "https://api.github.com/bucket/key");
  streamed.body_file = std::make_shared<NoFile>();
  streamed.body_sha256 = sha256_hex("of the file");
  ASSERT_FALSE(apply_credential(streamed, key, moment));
  EXPECT_EQ(header_of(streamed, "x-amz-content-sha256"), sha256_hex("of the file"));
  HttpRequest empty = request_with(CredentialScheme::aws_sigv4, "https://api.github.com/bucket/key");
  ASSERT_FALSE(apply_credential(empty, key, moment));
  EXPECT_EQ(header_of(empty, "x-amz-content-sha256"), sha256_hex(""));

  HttpRequest request = request_with(CredentialScheme::aws_sigv4, "https://api.github.com/bucket/key");
  request.method = Method::put;
  request.body = "hello";
  ASSERT_FALSE(apply_credential(
      request, SecretString(R"({"access_key_id":"AKID","secret_access_key":"s","session_token":"t"})"), moment));
  EXPECT_EQ(header_of(request, "x-amz-content-sha256"), sha256_hex("hello"));
  EXPECT_EQ(header_of(request, "x-amz-date"), "20270115T080000Z");
  EXPECT_NE(header_of(request, "Authorization").find("host;x-amz-content-sha256;x-amz-date;x-amz-security-token"),
            std::string::npos);
}

}  // namespace
}  // namespace ops
