#include "data/svhn.h"

#include <array>
#include <cmath>

#include "data/files.h"
#include "data/mat.h"
#include "kernels/error.h"

namespace wrn {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostImages = 531131;  // of the largest file

/// Appends the images of X, each plane's columns turned to rows of red, green, blue.
void append_images(MatArray& x, Dataset& dataset) {
  const auto& d = x.dimensions;
  // MATLAB leaves out a last dimension of 1.
  const bool one = d.size() == 3;
  if ((d.size() != 4 && !one) || d[0] != kImageSide || d[1] != kImageSide || d[2] != 3) {
    fail("X is [{}], not [32, 32, 3, images]", fmt::join(d, ", "));
  }
  const std::int64_t n = one ? 1 : d[3];
  if (!x.is_u8) fail("X is not of the type uint8");
  if (n < 1 || n > kMostImages) fail("X has {} images, not 1 to {}", n, kMostImages);
  std::array<std::uint8_t, kImageBytes> planes;
  std::size_t pixel = dataset.images.size();
  dataset.images.resize(pixel + static_cast<std::size_t>(n * kImageBytes));
  for (std::int64_t image = 0; image < n; ++image) {
    x.read_u8(planes.data(), kImageBytes);
    for (int row = 0; row < kImageSide; ++row) {
      for (int column = 0; column < kImageSide; ++column) {
        for (int channel = 0; channel < 3; ++channel) {
          dataset.images[pixel++] = planes[channel * kPlane + column * kImageSide + row];
        }
      }
    }
  }
}

void append_labels(MatArray& y, Dataset& dataset) {
  if (y.dimensions.size() != 2 || y.dimensions[1] != 1 || y.size < 1 || y.size > kMostImages) {
    fail("y is [{}], not [images, 1]", fmt::join(y.dimensions, ", "));
  }
  std::int64_t image = 0;
  for (const double digit : y.read_all()) {
    if (!(digit >= 1 && digit <= 10) || digit != std::floor(digit)) {
      fail("image {} has the label {}, but the labels are 1 to 10", image, digit);
    }
    dataset.labels.push_back(static_cast<std::uint8_t>(static_cast<int>(digit) % 10));
    ++image;
  }
}

void append_file(const fs::path& path, Dataset& dataset) {
  bool has_x = false, has_y = false;
  const auto once = [](bool& seen, const char* name) {
    if (seen) fail("{} is there twice", name);
    seen = true;
  };
  read_mat(path, [&](MatArray& array) {
    if (array.name == "X") {
      once(has_x, "X");
      append_images(array, dataset);
    } else if (array.name == "y") {
      once(has_y, "y");
      append_labels(array, dataset);
    }
  });
  if (!has_x || !has_y) fail("{}: has no {} of real numbers", path.string(), has_x ? "y" : "X");
  const std::size_t images = dataset.images.size() / kImageBytes;
  if (images != dataset.labels.size()) {
    fail("{}: X brings the images to {}, y the labels to {}", path.string(), images,
         dataset.labels.size());
  }
}

}  // namespace

Dataset read_svhn(const fs::path& dir, Split split, SvhnExtra extra) {
  const std::string advice = "data/get_svhn.sh downloads the official files";
  if (missing(dir)) fail("{}: no such directory; {}", dir.string(), advice);
  std::error_code error;
  if (!fs::is_directory(dir, error)) fail("{}: is not a directory; {}", dir.string(), advice);

  std::vector<std::string> files = {split == Split::test ? "test_32x32.mat" : "train_32x32.mat"};
  const std::string extra_file = "extra_32x32.mat";
  if (split == Split::train && extra != SvhnExtra::no &&
      (extra == SvhnExtra::yes || !missing(dir / extra_file))) {
    files.push_back(extra_file);
  }
  Dataset dataset{"svhn", {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, {}, {}};
  for (const std::string& file : files) {
    if (missing(dir / file)) fail("{}: has no {}; {}", dir.string(), file, advice);
    append_file(dir / file, dataset);
  }
  return dataset;
}

}  // namespace wrn
