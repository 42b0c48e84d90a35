// The reader of a run's metrics.jsonl and config.json, which the tables have. The first byte of an
// input chooses which of the two the rest is; the other is that of a run of three epochs.
#include "apps/table_runs.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace wrn;
  if (size == 0) return 0;
  const bool is_config = (data[0] & 1) != 0;
  const std::string other = is_config ? R"({"epoch": 1, "test_error": 50.5, "seconds": 1})"
                                        "\n"
                                      : R"({"training": {"epochs": 3}, "device_name": "cpu"})";
  const RunFiles files(fuzz::directory(), "fuzzed", 1);
  std::filesystem::create_directories(files.directory);
  const auto write = [&](const char* name, const void* bytes, std::size_t count) {
    fuzz::write((files.directory / name).c_str(), static_cast<const std::uint8_t*>(bytes), count);
  };
  write(is_config ? "config.json" : "metrics.jsonl", data + 1, size - 1);
  write(is_config ? "metrics.jsonl" : "config.json", other.data(), other.size());
  fuzz::expect_error_or_nothing([&] {
    const RunProgress state = run_progress(files);
    if (state.epochs < 0 || state.epochs_done < 0 || state.epochs_done > state.epochs ||
        !(state.error >= 0 && state.error <= 100)) {
      std::abort();
    }
  });
  return 0;
}
