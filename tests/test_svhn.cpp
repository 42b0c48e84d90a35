// data/svhn and data/mat: files that SciPy wrote (files/make_svhn.py), and everything that may be
// wrong with one.
#include <zlib.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <random>

#include "catch.h"
#include "data/svhn.h"
#include "kernels/error.h"
#include "temporary_directory.h"

namespace fs = std::filesystem;
using namespace wrn;

namespace {

const fs::path kFiles = WRN_SOURCE_DIR "/tests/files/svhn";

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// "" where the images are those that make_svhn.py drew as numbers first, first + 1, ...
std::string mismatch(const Dataset& dataset, std::int64_t from, int first, int count) {
  for (int i = 0; i < count; ++i) {
    const auto image = static_cast<std::size_t>(from + i);
    if (dataset.labels.at(image) != (first + i) % 10) return fmt::format("label {}", image);
    for (int p = 0; p < kImageBytes; ++p) {
      const int expected = (31 * (first + i) + 101 * (p % 3) + 7 * (p / 3)) % 256;
      if (dataset.images.at(image * kImageBytes + static_cast<std::size_t>(p)) != expected) {
        return fmt::format("image {}, value {}", image, p);
      }
    }
  }
  return "";
}

/// The one line that reading `dir` fails with.
std::string error_of(const fs::path& dir, Split split = Split::test,
                     SvhnExtra extra = SvhnExtra::no) {
  try {
    read_svhn(dir, split, extra);
  } catch (const Error& error) {
    const std::string what = error.what();
    CHECK(error.status == Status::kRuntime);
    CHECK(what.find('\n') == std::string::npos);
    return what;
  }
  return "";
}

/// What test_32x32.mat of these bytes fails with.
std::string error_of_bytes(const test::TemporaryDirectory& dir, const std::string& bytes) {
  write(dir / "test_32x32.mat", bytes);
  return error_of(dir.path());
}

}  // namespace

TEST_CASE("SVHN: the three files, rows and columns in their places, 10 is the digit 0") {
  const Dataset test = read_svhn(kFiles, Split::test, SvhnExtra::automatic);
  CHECK(test.name == "svhn");
  CHECK(test.class_names ==
        std::vector<std::string>{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"});
  CHECK(test.size() == 3);
  CHECK(mismatch(test, 0, 50, 3) == "");
  const Dataset train = read_svhn(kFiles, Split::train, SvhnExtra::no);
  CHECK(train.size() == 12);
  CHECK(mismatch(train, 0, 0, 12) == "");
  for (const SvhnExtra extra : {SvhnExtra::automatic, SvhnExtra::yes}) {
    const Dataset all = read_svhn(kFiles, Split::train, extra);
    CHECK(all.size() == 17);
    CHECK(mismatch(all, 0, 0, 12) == "");
    CHECK(mismatch(all, 12, 90, 5) == "");
  }
}

TEST_CASE("SVHN: a file that is not compressed, with labels of 64 bits") {
  const test::TemporaryDirectory dir;
  fs::copy_file(kFiles / "plain.mat", dir / "test_32x32.mat");
  const Dataset dataset = read_svhn(dir.path(), Split::test, SvhnExtra::automatic);
  CHECK(dataset.size() == 2);
  CHECK(mismatch(dataset, 0, 0, 2) == "");
}

TEST_CASE("SVHN: files that are not there") {
  const test::TemporaryDirectory dir;
  CHECK(error_of(dir / "none").find("none: no such directory; data/get_svhn.sh") !=
        std::string::npos);
  CHECK(error_of(kFiles / "plain.mat").find("is not a directory") != std::string::npos);
  CHECK(error_of(dir.path()).find("has no test_32x32.mat; data/get_svhn.sh") != std::string::npos);
  fs::copy_file(kFiles / "plain.mat", dir / "train_32x32.mat");
  CHECK(error_of(dir.path(), Split::train) == "");
  CHECK(error_of(dir.path(), Split::train, SvhnExtra::automatic) == "");
  CHECK(error_of(dir.path(), Split::train, SvhnExtra::yes).find("has no extra_32x32.mat") !=
        std::string::npos);
  fs::create_directory(dir / "test_32x32.mat");
  CHECK(error_of(dir.path()).find("is a directory") != std::string::npos);
}

TEST_CASE("SVHN: arrays of a wrong type, shape or content are named") {
  const test::TemporaryDirectory dir;
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"x_is_double", "X is not of the type uint8"},
      {"x_is_text", "has no X of real numbers"},
      {"x_is_complex", "has no X of real numbers"},
      {"x_is_31_wide", "X is [32, 31, 3, 2], not [32, 32, 3, images]"},
      {"x_is_flat", "X is [3072, 2], not"},
      {"x_is_empty", "X has 0 images"},
      {"y_is_text", "has no y of real numbers"},
      {"y_is_a_row", "y is [1, 2], not [images, 1]"},
      {"y_is_longer", "X brings the images to 2, y the labels to 3"},
      {"y_has_0", "image 1 has the label 0, but the labels are 1 to 10"},
      {"y_has_11", "image 0 has the label 11"},
      {"y_has_halves", "image 0 has the label 1.5"},
      {"y_has_nan", "image 0 has the label nan"}};
  for (const auto& [name, says] : cases) {
    const std::string error = error_of_bytes(dir, slurp(kFiles / (name + ".mat")));
    INFO(name << ": " << error);
    CHECK(error.find((dir / "test_32x32.mat").string()) == 0);
    CHECK(error.find(says) != std::string::npos);
  }
}

TEST_CASE("SVHN: a file that is no MAT-file of version 5 says what it is") {
  const test::TemporaryDirectory dir;
  std::string bytes = slurp(kFiles / "test_32x32.mat");
  const auto says = [&](const std::string& what) {
    return error_of_bytes(dir, bytes).find(what) != std::string::npos;
  };
  bytes[125] = 2;
  CHECK(says("version 0x0200"));
  std::swap(bytes[126], bytes[127]);
  CHECK(says("big-endian"));
  bytes[126] = 'X';
  CHECK(says("is no MAT-file of version 5"));
  bytes.resize(128);
  bytes[125] = 1, bytes[126] = 'I', bytes[127] = 'M';
  CHECK(says("has no X"));
  bytes += "more";
  CHECK(says("at offset 128: the file ends where an element should begin"));
  bytes = "";
  CHECK(says("is empty"));
  write(dir / "test_32x32.mat", "x");
  fs::resize_file(dir / "test_32x32.mat", std::uintmax_t{1} << 40);  // sparse
  CHECK(error_of(dir.path()).find("1099511627776 bytes") != std::string::npos);
}

TEST_CASE("SVHN: X twice, and other arrays beside") {
  const test::TemporaryDirectory dir;
  const std::string good = slurp(kFiles / "test_32x32.mat"), plain = slurp(kFiles / "plain.mat");
  const std::string error = error_of_bytes(dir, good + plain.substr(128));
  CHECK(error.find(fmt::format("at offset {}: X is there twice", good.size())) !=
        std::string::npos);
  // An array of text under another name, which is none of our business.
  std::string text = slurp(kFiles / "x_is_text.mat").substr(128);
  std::uint32_t first = 0;
  text.copy(reinterpret_cast<char*>(&first), 4, 4);
  CHECK(error_of_bytes(dir, good + text.substr(0, 8 + first)) == "");
}

TEST_CASE("SVHN: sizes that cannot be are refused, each by what it is") {
  // Where plain.mat has them: the array's tag; of its flags, dimensions, name and values the tags,
  // and the dimensions.
  constexpr std::size_t kArray = 128, kFlags = 136, kDimensions = 152, kExtents = 160, kName = 176,
                        kValues = 184;
  struct Case {
    std::vector<std::pair<std::size_t, std::uint32_t>> words;  // at an offset
    std::string says;
  };
  const std::vector<Case> cases = {
      {{{kArray, 1}}, "there is no array, but type 1"},
      {{{kArray + 4, 0xffffffff}}, "the element has 4294967295 bytes, the file only 6272 more"},
      {{{kArray + 4, 4}}, "it ends where an element should begin"},
      {{{kArray + 4, 8}}, "it has an element of 8 bytes where 0 are left"},
      {{{kFlags, 5}}, "its flags are of type 5 and not 6"},
      {{{kFlags + 4, 4}}, "its flags are 1 numbers and not 2"},
      {{{kFlags + 4, 6}}, "6 bytes are none that its flags can have"},
      {{{kFlags + 4, 12}}, "12 bytes are none that its flags can have"},
      {{{kDimensions + 4, 4 * 33}}, "132 bytes are none that its dimensions can have"},
      {{{kExtents + 8, 0xffffffff}}, "it has the negative dimension -1"},
      {{{kExtents, 1 << 16}, {kExtents + 4, 1 << 15}, {kExtents + 8, 1}, {kExtents + 12, 1}},
       "X: its values have 6144 bytes, its dimensions say 2147483648"},
      {{{kExtents, 1 << 16}, {kExtents + 4, 1 << 15}, {kExtents + 8, 1}, {kExtents + 12, 2}},
       "X: its dimensions say more than any file has"},
      {{{kExtents, 0x7fffffff}, {kExtents + 4, 0x7fffffff}, {kExtents + 8, 0x7fffffff}},
       "X: its dimensions say more than any file has"},
      {{{kName, 5 << 16 | 1}}, "it has a small element of 5 bytes"},
      {{{kName, 1}, {kName + 4, 64}}, "64 bytes are none that its name can have"},
      {{{kValues, 8}}, "X: its values are of type 8, which is no number's"},
      {{{kValues + 4, 6143}}, "X: its values have 6143 bytes, its dimensions say 6144"},
      {{{kValues + 4, 6145}}, "it has an element of 6145 bytes where 6144 are left"}};
  const test::TemporaryDirectory dir;
  for (const Case& c : cases) {
    std::string bytes = slurp(kFiles / "plain.mat");
    for (const auto& [at, word] : c.words) {
      std::memcpy(&bytes[at], &word, sizeof word);
    }
    const std::string error = error_of_bytes(dir, bytes);
    INFO(c.says << ": " << error);
    CHECK(error.find("at offset 128: " + c.says) != std::string::npos);
  }
  // As large as a file may be, and larger, without taking the space.
  for (const auto& [more, says] :
       {std::pair(0, "is no MAT-file"), std::pair(1, "2147483649 bytes")}) {
    write(dir / "test_32x32.mat", "x");
    fs::resize_file(dir / "test_32x32.mat", (std::uintmax_t{1} << 31) + more);
    CHECK(error_of(dir.path()).find(says) != std::string::npos);
  }
}

TEST_CASE("SVHN: a compressed array is as long as it says, and no longer than its stream can be") {
  const std::string plain = slurp(kFiles / "plain.mat"), header = plain.substr(0, 128);
  std::uint32_t bytes = 0;
  plain.copy(reinterpret_cast<char*>(&bytes), 4, 132);
  const std::string x = plain.substr(128, 8 + bytes), y = plain.substr(128 + x.size());
  const auto words = [](std::uint32_t first, std::size_t second) {
    const std::uint32_t both[2] = {first, static_cast<std::uint32_t>(second)};
    return std::string(reinterpret_cast<const char*>(both), sizeof both);
  };
  // Stored as it is, so that the stream's size does not depend on what is in it.
  const auto deflated = [](const std::string& from) {
    uLongf size = compressBound(from.size());
    std::string to(size, '\0');
    REQUIRE(compress2(reinterpret_cast<Bytef*>(to.data()), &size,
                      reinterpret_cast<const Bytef*>(from.data()), from.size(), 0) == Z_OK);
    to.resize(size);
    return to;
  };
  const test::TemporaryDirectory dir;
  const auto error_with = [&](const std::string& array) {
    const std::string stream = deflated(array);
    return error_of_bytes(dir, header + words(15, stream.size()) + stream + y);
  };
  CHECK(error_with(x) == "");
  CHECK(error_with(x + std::string(7, '\0')) == "");
  CHECK(error_with(x + std::string(8, '\0')).find("go on after the array's end") !=
        std::string::npos);
  CHECK(error_with(x.substr(0, x.size() - 1)).find("the compressed data end too early") !=
        std::string::npos);
  CHECK(error_with(y.substr(8)).find("it is no array, but of type 6") != std::string::npos);
  for (const std::size_t more : {0, 1}) {
    std::string array = x;
    array.replace(0, 8, words(14, 1032 * deflated(x).size() + more));
    const std::string error = error_with(array);
    INFO(error);
    CHECK((error.find("more than there can be") != std::string::npos) == (more == 1));
  }
}

TEST_CASE("SVHN: cut anywhere, a file is an error of one line") {
  const test::TemporaryDirectory dir;
  std::mt19937 random(1);
  for (const char* name : {"train_32x32.mat", "plain.mat"}) {
    const std::string good = slurp(kFiles / name);
    int cut = 0;
    for (int i = 0; i < 500; ++i) {
      const std::size_t size = random() % good.size();
      const std::string error = error_of_bytes(dir, good.substr(0, size));
      INFO(name << " cut to " << size << " bytes");
      REQUIRE(error != "");
      REQUIRE(error.find((dir / "test_32x32.mat").string()) == 0);
      ++cut;
    }
    REQUIRE(cut == 500);
    REQUIRE(error_of_bytes(dir, good) == "");
  }
}

TEST_CASE("SVHN: a changed bit of a compressed file is an error, or changes no image") {
  const test::TemporaryDirectory dir;
  const std::string good = slurp(kFiles / "train_32x32.mat");
  std::mt19937 random(2);
  int errors = 0;
  for (int i = 0; i < 500; ++i) {
    std::string bytes = good;
    const std::size_t bit = 128 * 8 + random() % ((bytes.size() - 128) * 8);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    INFO("bit " << bit);
    if (error_of_bytes(dir, bytes) != "") {
      ++errors;
      continue;
    }
    const Dataset dataset = read_svhn(dir.path(), Split::test, SvhnExtra::no);
    REQUIRE(mismatch(dataset, 0, 0, 12) == "");
  }
  CHECK(errors > 450);
}
