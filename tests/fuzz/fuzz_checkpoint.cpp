// What a checkpoint says beside its weights. An input is the header of the file, without the length
// before it; what is read of it can be written, and then reads the same.
#include "apps/checkpoint_metadata.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace wrn;
  const std::uint64_t length = size;
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  file.append(reinterpret_cast<const char*>(data), size);
  const auto path =
      fuzz::write("x.safetensors", reinterpret_cast<const std::uint8_t*>(file.data()), file.size());
  fuzz::expect_error_or_nothing([&] {
    const Checkpoint checkpoint = checkpoint_of(read_safetensors(path));
    try {
      check(checkpoint.settings);
      Safetensors again;
      again.metadata = to_metadata(checkpoint);
      if (to_metadata(checkpoint_of(again)) != again.metadata) std::abort();
    } catch (const std::exception&) {
      std::abort();  // the reader let through what no run has
    }
  });
  return 0;
}
