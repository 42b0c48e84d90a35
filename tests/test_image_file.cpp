// Decoding and resizing against Pillow, on files that tests/images/make_images.py made; and files
// that are cut, changed or not images at all.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "data/image_file.h"
#include "kernels/error.h"
#include "tests/catch.h"
#include "tests/temporary_directory.h"

namespace {

namespace fs = std::filesystem;
using wrn::Image;
using Bytes = std::vector<std::uint8_t>;

const fs::path kImages = fs::path(WRN_SOURCE_DIR) / "tests" / "images";
constexpr std::size_t kPixels = 32 * 32 * 3;

std::vector<fs::path> image_files() {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(kImages)) {
    if (entry.path().extension() == ".png" || entry.path().extension() == ".jpg") {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

Bytes read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write(const fs::path& path, const Bytes& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

/// What is wrong with a file, or nothing. Whatever happens, it is one line that names the file.
std::string fault(const fs::path& path, std::int64_t most = wrn::kMostPixels) {
  try {
    const Image image = wrn::read_image(path, most);
    REQUIRE(std::ssize(image.pixels) == image.width * image.height * 3);
    REQUIRE(wrn::square(image, 32).size() == kPixels);
    return "";
  } catch (const wrn::Error& error) {
    const std::string what = error.what();
    REQUIRE(what.find(path.string()) != std::string::npos);
    REQUIRE(what.find('\n') == std::string::npos);
    REQUIRE(what.size() > path.string().size() + 5);
    return what;
  }
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("images of every kind are what Pillow makes of them") {
  const Bytes expected = read(kImages / "expected.bin");
  const auto files = image_files();
  REQUIRE(files.size() == 20);
  REQUIRE(expected.size() == files.size() * kPixels);
  for (std::size_t i = 0; i < files.size(); ++i) {
    const Bytes pixels = wrn::square(wrn::read_image(files[i]), 32);
    REQUIRE(pixels.size() == kPixels);
    int worst = 0;
    double sum = 0;
    for (std::size_t k = 0; k < kPixels; ++k) {
      const int difference = std::abs(pixels[k] - expected[i * kPixels + k]);
      worst = std::max(worst, difference);
      sum += difference;
    }
    // Pillow rounds between its two passes; decoders of JPEG may differ in their last bits.
    INFO(files[i].filename() << ": " << worst << " at most, " << sum / kPixels << " on average");
    CHECK(worst <= (files[i].extension() == ".png" ? 1 : 3));
    CHECK(sum / kPixels < 0.5);
  }
}

TEST_CASE("an image of 32x32 stays as it is, and PNGs go out and in") {
  Bytes pixels(kPixels);
  std::mt19937 random(7);
  for (std::uint8_t& byte : pixels) byte = static_cast<std::uint8_t>(random());
  const wrn::test::TemporaryDirectory directory;
  const std::string png = wrn::png_of(pixels, 32, 32);
  write(directory / "a.png", Bytes(png.begin(), png.end()));
  const Image image = wrn::read_image(directory / "a.png");
  REQUIRE(image.pixels == pixels);
  REQUIRE(wrn::square(image, 32) == pixels);
}

TEST_CASE("the middle square is taken") {
  // Black with a white square of 8x8 in the middle of 24x8 or 8x24.
  for (const bool wide : {false, true}) {
    Image image{wide ? 24 : 8, wide ? 8 : 24, {}};
    for (std::int64_t y = 0; y < image.height; ++y) {
      for (std::int64_t x = 0; x < image.width; ++x) {
        const std::int64_t along = wide ? x : y;
        image.pixels.insert(image.pixels.end(), 3, along >= 8 && along < 16 ? 255 : 0);
      }
    }
    const Bytes middle = wrn::square(image, 32);
    REQUIRE(std::all_of(middle.begin(), middle.end(), [](int v) { return v == 255; }));
  }
}

TEST_CASE("images that are cut short are refused") {
  const wrn::test::TemporaryDirectory directory;
  for (const fs::path& file : image_files()) {
    const Bytes whole = read(file);
    const fs::path cut = directory / file.filename().string();
    for (std::size_t size = 0; size < whole.size(); size += 1 + size / 64) {
      write(cut, Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)));
      const std::string what = fault(cut);
      // What follows the last pixel of a PNG may be missing.
      if (size + 40 < whole.size()) {
        INFO(file.filename() << " cut at " << size << " of " << whole.size());
        REQUIRE(what != "");
      }
    }
  }
}

TEST_CASE("images with changed bytes are refused or read, and no more") {
  const wrn::test::TemporaryDirectory directory;
  std::mt19937 random(11);
  int refused = 0;
  for (const fs::path& file : image_files()) {
    const Bytes whole = read(file);
    const fs::path changed = directory / file.filename().string();
    for (int round = 0; round < 150; ++round) {
      Bytes bytes = whole;
      for (int k = 0; k <= round % 4; ++k) {
        bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
      }
      write(changed, bytes);
      refused += fault(changed).empty() ? 0 : 1;
    }
  }
  REQUIRE(refused > 1000);  // a PNG's every chunk has a checksum
}

TEST_CASE("a JPEG of hundreds of scans is refused") {
  const wrn::test::TemporaryDirectory directory;
  const Bytes once = read(kImages / "progressive.jpg");
  // Its first scan, from the marker SOS to the next one, which is no byte stuffed after 0xff.
  const auto marker_after = [&](auto at, auto is) {
    return std::adjacent_find(at, once.end(), [&](int a, int b) { return a == 0xff && is(b); });
  };
  const auto begin = marker_after(once.begin(), [](int b) { return b == 0xda; });
  const auto end = marker_after(begin + 2, [](int b) { return b != 0; });
  REQUIRE(end != once.end());
  for (const int more : {150, 250}) {
    Bytes bytes(once.begin(), end);
    for (int i = 0; i < more; ++i) bytes.insert(bytes.end(), begin, end);
    bytes.insert(bytes.end(), end, once.end());
    write(directory / "scans.jpg", bytes);
    const std::string what = fault(directory / "scans.jpg");
    INFO(what);
    REQUIRE(has(what, "more than 200 scans") == (more == 250));
    REQUIRE(what.empty() == (more == 150));
  }
}

TEST_CASE("a JPEG with damaged data is refused, though libjpeg only warns") {
  const wrn::test::TemporaryDirectory directory;
  Bytes bytes = read(kImages / "wide.jpg");
  // A code of ones alone is none, in any table; after 0xff comes a 0 that is no data.
  const std::size_t middle = bytes.size() * 3 / 4;
  for (std::size_t i = 0; i < 64; ++i) bytes[middle + i] = i % 2 == 0 ? 0xff : 0;
  write(directory / "damaged.jpg", bytes);
  REQUIRE(has(fault(directory / "damaged.jpg"), "bad Huffman code"));
}

TEST_CASE("what is no image, or too large a one, is said to be that") {
  const wrn::test::TemporaryDirectory directory;
  REQUIRE(has(fault(directory / "missing.png"), "cannot be read"));
  REQUIRE(has(fault(directory.path()), "directory"));
  REQUIRE(has(fault("/dev/null"), "not a regular file"));
  write(directory / "text.png", {'h', 'e', 'l', 'l', 'o'});
  REQUIRE(has(fault(directory / "text.png"), "neither PNG nor JPEG"));
  write(directory / "empty.jpg", {});
  REQUIRE(has(fault(directory / "empty.jpg"), "is empty"));

  for (const char* name : {"wide.png", "wide.jpg"}) {
    REQUIRE(fault(kImages / name, 90 * 60) == "");
    REQUIRE(has(fault(kImages / name, 90 * 60 - 1), "90 x 60 pixels are more than the 5399"));
  }

  // 65,500 x 65,500 pixels, says the header, in the bytes of a small image.
  Bytes bomb = read(kImages / "wide.jpg");
  const Bytes size_of_wide = {0, 60, 0, 90};
  const auto at = std::search(bomb.begin(), bomb.end(), size_of_wide.begin(), size_of_wide.end());
  REQUIRE(at != bomb.end());
  for (int i = 0; i < 4; ++i) at[i] = i % 2 == 0 ? 0xff : 0xdc;
  write(directory / "bomb.jpg", bomb);
  REQUIRE(has(fault(directory / "bomb.jpg"), "65500 x 65500 pixels are more than"));
}
