// Secret values by name: Supabase Vault where that extension is installed, then ops_runner.secrets_directory.
#pragma once

#include "core/ports.hpp"

namespace ops::pg {

class SecretStore final : public SecretSource {
 public:
  bool reads_store() const override { return has_vault_; }
  /// Outside of a transaction if reads_store(). Reads anew each time: a rotated secret is used by the next request.
  std::optional<SecretString> find(std::string_view name) override;
  /// Looks whether the vault is there; call now and then, outside of a transaction.
  void look_for_vault();

 private:
  bool has_vault_ = false;
};

}  // namespace ops::pg
