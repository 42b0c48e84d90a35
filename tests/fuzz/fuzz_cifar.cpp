// The CIFAR readers. The first byte of an input chooses: its lowest bit the data set, the next one
// whether the rest is the file of images or that of names.
#include "data/cifar.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace wrn;
  if (size == 0) return 0;
  const bool is_100 = (data[0] & 1) != 0, are_names = (data[0] & 2) != 0;
  const std::string image(1 + (is_100 ? 1 : 0) + kImageBytes, '\0');
  const auto* one_image = reinterpret_cast<const std::uint8_t*>(image.data());
  const char* images_file = is_100 ? "test.bin" : "test_batch.bin";
  const char* names_file = is_100 ? "fine_label_names.txt" : "batches.meta.txt";
  if (are_names) {
    fuzz::write(images_file, one_image, image.size());
    fuzz::write(names_file, data + 1, size - 1);
  } else {
    std::filesystem::remove(fuzz::directory() / names_file);
    fuzz::write(images_file, data + 1, size - 1);
  }
  fuzz::expect_error_or_nothing([&] {
    const Dataset dataset = is_100 ? read_cifar100(fuzz::directory(), Split::test)
                                   : read_cifar10(fuzz::directory(), Split::test);
    if (dataset.images.size() != static_cast<std::size_t>(dataset.size() * kImageBytes)) {
      std::abort();
    }
    for (const std::uint8_t label : dataset.labels) {
      if (label >= dataset.classes()) std::abort();
    }
  });
  return 0;
}
