// Configurations of environments and runs, as users write them.
#include "core/json.hpp"
#include "core/phase_catalog.hpp"
#include "core/pipeline.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto config = ops::parse_json({reinterpret_cast<const char*>(data), size});
  if (!config) return 0;
  (void)ops::check_environment_config(*config, ops::default_catalog());
  (void)ops::check_pipeline(*config, "$", ops::default_catalog());
  (void)ops::check_run_metadata(*config, ops::default_catalog());
  return 0;
}
