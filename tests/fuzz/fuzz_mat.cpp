// The reader of SVHN's MAT-files.
#include "data/svhn.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace wrn;
  fuzz::write("test_32x32.mat", data, size);
  fuzz::expect_error_or_nothing([] {
    const Dataset dataset = read_svhn(fuzz::directory(), Split::test, SvhnExtra::no);
    if (dataset.images.size() != dataset.labels.size() * kImageBytes) std::abort();
    for (const std::uint8_t label : dataset.labels) {
      if (label > 9) std::abort();
    }
  });
  return 0;
}
