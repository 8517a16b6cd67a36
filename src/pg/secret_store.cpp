#include "pg/secret_store.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

#include "pg/settings.hpp"
#include "pg/transaction.hpp"

#include "pg/boundary.hpp"
#include "pg/shared_memory.hpp"

namespace ops::pg {

namespace {

constexpr off_t largest_secret = 64 * 1024;

// Only where this worker may read it: the vault's own privileges decide.
StoreStatement vault_present_statement(R"sql(
  SELECT coalesce(has_table_privilege(c.oid, 'SELECT'), false)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = 'vault' AND c.relname = 'decrypted_secrets' AND has_schema_privilege(n.oid, 'USAGE'))sql");

StoreStatement vault_statement("SELECT decrypted_secret FROM vault.decrypted_secrets WHERE name = $1");

/// The same alphabet that config accepts for credential names: no path can be made of it.
bool is_plain_name(std::string_view name) {
  if (name.empty() || name.size() > 64 || name.front() == '.') return false;
  return name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") ==
         std::string_view::npos;
}

std::optional<SecretString> read_file(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) {
    // The file may be there: the worker cannot look just now.
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
      throw std::runtime_error(std::string("a secret cannot be read: ") + strerror(errno));
    return std::nullopt;
  }
  struct stat about{};
  std::string text;
  const bool usable = fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode) && about.st_size <= largest_secret;
  // Readable by others: refused, so that a careless chmod is noticed before the secret is used.
  const bool closed = (about.st_mode & (S_IRWXG | S_IRWXO)) == 0;
  if (!usable || !closed) {
    close(descriptor);
    note_error(MyDatabaseId, usable ? "a secret file is readable by others than the server's user: chmod 600 it"
                                    : "a secret file is not a regular file of at most 64 kB");
    return std::nullopt;
  }
  text.resize(static_cast<std::size_t>(about.st_size));
  std::size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = read(descriptor, text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    filled += static_cast<std::size_t>(count);
  }
  close(descriptor);
  text.resize(filled);
  // An editor's last newline is not part of the secret.
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return SecretString(std::move(text));
}

}  // namespace

void SecretStore::look_for_vault() {
  Transaction transaction("looking for a vault");
  const Rows rows = vault_present_statement.run({});
  has_vault_ = rows.size() == 1 && rows.is_true(0, 0);
  transaction.commit(false);
}

std::optional<SecretString> SecretStore::find(std::string_view name) {
  if (!is_plain_name(name)) return std::nullopt;
  if (has_vault_) {
    try {
      Transaction transaction("reading a secret");
      const Rows rows = vault_statement.run({std::string(name)});
      transaction.commit(false);
      if (rows.size() == 1 && rows.at(0, 0)) return SecretString(rows.text(0, 0));
    } catch (const PgError&) {
      note_error(MyDatabaseId,
                 "the vault could not be read; check the grants of role ops_runner_worker on schema vault");
    }
  }
  if (settings.secrets_directory[0] == '\0') return std::nullopt;
  return read_file(std::string(settings.secrets_directory) + '/' + std::string(name));
}

}  // namespace ops::pg
