// A run's directory read back, as the pages are made of it. The first byte of an input chooses
// which of its files the rest is; config.json is there whatever it is.
#include "apps/run_record.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace wrn;
  if (size == 0) return 0;
  const char* const files[] = {"config.json", "metrics.jsonl", "predictions.safetensors"};
  for (const char* file : files) std::filesystem::remove(fuzz::directory() / file);
  fuzz::write(files[0], reinterpret_cast<const std::uint8_t*>("{}"), 2);
  fuzz::write(files[data[0] % 3], data + 1, size - 1);
  fuzz::expect_error_or_nothing([&] {
    const RunRecord run = read_run(fuzz::directory());
    if (!run.config.is_object()) std::abort();
    for (const nlohmann::json& line : run.metrics) {
      if (!line.is_object()) std::abort();
    }
    if (!run.predictions) return;
    const Predictions& p = *run.predictions;
    if (p.predicted.size() != p.labels.size() || p.probability.size() != p.labels.size()) {
      std::abort();
    }
    for (std::size_t i = 0; i < p.labels.size(); ++i) {
      if (p.labels[i] >= p.class_names.size() || p.predicted[i] >= p.class_names.size()) {
        std::abort();
      }
    }
    for (const std::int32_t mistake : p.mistakes) {
      if (mistake < 0 || mistake >= std::ssize(p.labels)) std::abort();
    }
  });
  return 0;
}
