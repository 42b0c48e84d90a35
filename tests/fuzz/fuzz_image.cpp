// The decoders of PNG and JPEG, for images of fewer pixels than the program takes: with a hundred
// million of them, a fuzzer would do little else.
#include "data/image_file.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace wrn;
  const auto path = fuzz::write("image", data, size);
  fuzz::expect_error_or_nothing([&] {
    constexpr std::int64_t kMost = 1 << 18;
    const Image image = read_image(path, kMost);
    if (image.width < 1 || image.height < 1 || image.width * image.height > kMost ||
        std::ssize(image.pixels) != image.width * image.height * 3) {
      std::abort();
    }
    if (square(image, 32).size() != 32 * 32 * 3) std::abort();
  });
  return 0;
}
