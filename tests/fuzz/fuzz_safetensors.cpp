// The reader of safetensors files: checkpoints, weights, the cache of the whitening.
#include "engine/safetensors.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace wrn;
  const auto path = fuzz::write("x.safetensors", data, size);
  fuzz::expect_error_or_nothing([&] {
    const Safetensors file = read_safetensors(path);
    std::size_t bytes = 0;
    for (const auto& [name, entry] : file.tensors) {
      if (file.find(name) != &entry) std::abort();
      try {
        entry.check(entry.dtype);
      } catch (const Error&) {
        std::abort();  // the reader let through what does not hold together
      }
      bytes += entry.bytes.size();
    }
    if (bytes > size) std::abort();
  });
  return 0;
}
