// data/: the CIFAR readers and each of their errors, statistics and subsets, and the synthetic set.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "data/cifar.h"
#include "data/dataset.h"
#include "data/synthetic.h"
#include "kernels/augment.h"
#include "kernels/error.h"
#include "kernels/kernels.h"
#include "tests/catch.h"
#include "tests/require_error.h"
#include "tests/temporary_directory.h"

namespace fs = std::filesystem;
using namespace wrn;
using test::require_error;

namespace {

/// Root may read everything, so to be refused it must be somebody else until the end of the scope.
/// (In some containers there is nobody else: then it stays root.)
class NotRoot {
 public:
  NotRoot() : changed_(geteuid() == 0 && seteuid(65534) == 0) {}
  NotRoot(const NotRoot&) = delete;
  NotRoot& operator=(const NotRoot&) = delete;
  ~NotRoot() {
    if (changed_ && seteuid(0) != 0) std::abort();
  }

 private:
  bool changed_;
};

/// The largest file that may be written, until the end of the scope: a full disk, as far as the
/// program under test can tell.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_IGN);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, SIG_DFL);
  }

 private:
  rlimit before_{};
};

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The byte of a made-up image at (plane, pixel): differs between neighbours, planes and images.
std::uint8_t made_up(int image, int plane, int pixel) {
  return static_cast<std::uint8_t>(31 * image + 101 * plane + 7 * pixel + pixel / 251);
}

/// `count` records of made-up images from number `first` on; image i has the label i % classes.
std::string records(int first, int count, bool fine) {
  std::string bytes;
  for (int image = first; image < first + count; ++image) {
    if (fine) bytes += static_cast<char>(image % 20);
    bytes += static_cast<char>(image % (fine ? 100 : 10));
    for (int plane = 0; plane < 3; ++plane) {
      for (int pixel = 0; pixel < kPlane; ++pixel) {
        bytes += static_cast<char>(made_up(image, plane, pixel));
      }
    }
  }
  return bytes;
}

/// Five training files of 1, 2, 3, 4, 5 images, and a test file of 2.
void write_cifar10(const fs::path& dir) {
  fs::create_directories(dir);
  for (int file = 1, first = 0; file <= 5; first += file++) {
    write(dir / fmt::format("data_batch_{}.bin", file), records(first, file, false));
  }
  write(dir / "test_batch.bin", records(50, 2, false));
}

void require_images(const Dataset& dataset, int first, int count) {
  REQUIRE(dataset.size() == count);
  REQUIRE(dataset.images.size() == static_cast<std::size_t>(count * kImageBytes));
  bool same = true;
  std::size_t byte = 0;
  for (int image = first; image < first + count; ++image) {
    same &= dataset.labels[image - first] == image % dataset.classes();
    for (int pixel = 0; pixel < kPlane; ++pixel) {
      for (int plane = 0; plane < 3; ++plane) {
        same &= dataset.images[byte++] == made_up(image, plane, pixel);
      }
    }
  }
  REQUIRE(same);
}

}  // namespace

TEST_CASE("CIFAR-10: five files in order, planes interleaved, in either directory") {
  const test::TemporaryDirectory temp;
  for (const fs::path& dir :
       {temp.path() / "here", temp.path() / "there" / "cifar-10-batches-bin"}) {
    write_cifar10(dir);
  }
  fs::create_directory(temp.path() / "here" / "cifar-10-batches-bin");  // and nothing in it
  for (const fs::path& dir : {temp.path() / "here", temp.path() / "there"}) {
    const Dataset train = read_cifar10(dir, Split::train);
    REQUIRE(train.name == "cifar10");
    require_images(train, 0, 15);
    require_images(read_cifar10(dir, Split::test), 50, 2);
  }
}

TEST_CASE("CIFAR-100: fine labels") {
  const test::TemporaryDirectory temp;
  const fs::path dir = temp.path() / "cifar-100-binary";
  fs::create_directory(dir);
  write(dir / "train.bin", records(37, 4, true));
  write(dir / "test.bin", records(98, 3, true));
  for (const fs::path& path : {temp.path(), dir}) {
    const Dataset train = read_cifar100(path, Split::train);
    REQUIRE(train.name == "cifar100");
    REQUIRE(train.classes() == 100);
    REQUIRE(train.class_names[42] == "class 42");
    require_images(train, 37, 4);
    require_images(read_cifar100(path, Split::test), 98, 3);
  }
}

TEST_CASE("Class names: from their file, or built in") {
  const test::TemporaryDirectory temp;
  write_cifar10(temp.path());
  const auto names = [&] { return read_cifar10(temp.path(), Split::test).class_names; };
  const std::vector<std::string> official = {"airplane", "automobile", "bird",  "cat",  "deer",
                                             "dog",      "frog",       "horse", "ship", "truck"};
  REQUIRE(names() == official);

  const fs::path file = temp.path() / "batches.meta.txt";
  write(file, "a\nb\r\nc c\nd\ne\nf\ng\nh\ni\nj\n\n");
  REQUIRE(names() == std::vector<std::string>{"a", "b", "c c", "d", "e", "f", "g", "h", "i", "j"});

  write(file, "a\nb\n");
  require_error(names, {file.string(), "2 class names", "10 classes"});
  write(file, "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk");
  require_error(names, {file.string(), "11 class names"});
  write(file, "a\n\xff\xfe\nc\nd\ne\nf\ng\nh\ni\nj");
  require_error(names, {file.string(), "line 2", "printable"});
  write(file, "");
  require_error(names, {file.string(), "is empty"});
  write(file, std::string(70000, 'x'));
  require_error(names, {file.string(), "70000 bytes"});
  fs::remove(file);
  fs::create_directory(file);
  require_error(names, {file.string(), "is a directory"});
}

TEST_CASE("A missing directory or file is named, with what would help") {
  const test::TemporaryDirectory temp;
  const fs::path dir = temp.path() / "data", file = dir / "data_batch_3.bin";
  const auto train = [&] { read_cifar10(dir, Split::train); };
  require_error(train, {dir.string(), "no such directory", "data/get_cifar.sh cifar10"});
  write(dir, "a file");
  require_error(train, {dir.string(), "is not a directory"});
  fs::remove(dir);
  write_cifar10(dir);
  fs::remove(file);
  require_error(train, {dir.string() + ": has no data_batch_3.bin",
                        "data_batch_1.bin, data_batch_2", "data/get_cifar.sh cifar10"});
  fs::create_symlink("loop", dir / "loop");
  require_error([&] { read_cifar10(dir / "loop", Split::train); }, {"loop: cannot be read"});
  require_error([&] { read_cifar100(dir, Split::test); },
                {"has no test.bin", "cifar-100-binary", "data/get_cifar.sh cifar100"});
}

TEST_CASE("A file that cannot be read, or is no file, is an error and no hang") {
  const test::TemporaryDirectory temp;
  write_cifar10(temp.path());
  write_cifar10(temp.path() / "closed");
  const fs::path file = temp.path() / "data_batch_4.bin";
  const auto train = [&] { read_cifar10(temp.path(), Split::train); };

  {
    fs::permissions(file, fs::perms::none);
    fs::permissions(temp.path() / "closed", fs::perms::none);
    // A temporary directory is its owner's alone; somebody else must get as far as the file.
    fs::permissions(temp.path(), fs::perms(0755));
    const NotRoot user;
    if (geteuid() != 0) {
      require_error(train, {file.string(), "cannot be read at offset 0: Permission denied"});
      require_error([&] { read_cifar10(temp.path() / "closed", Split::train); },
                    {(temp.path() / "closed").string(), "cannot be read: Permission denied"});
    }
  }
  fs::permissions(temp.path() / "closed", fs::perms::owner_all);
  fs::remove(file);
  fs::create_directory(file);
  require_error(train, {file.string(), "is a directory"});
  fs::remove(file);
  REQUIRE(mkfifo(file.c_str(), 0600) == 0);
  require_error(train, {file.string(), "not a regular file"});
  fs::remove(file);
  fs::create_symlink("/dev/zero", file);
  require_error(train, {file.string(), "not a regular file"});
  fs::remove(file);
  fs::create_symlink(file, file);
  require_error(train, {file.string(), "cannot be read"});
}

TEST_CASE("A file of the wrong size is an error with its bytes") {
  const test::TemporaryDirectory temp;
  write_cifar10(temp.path());
  const fs::path file = temp.path() / "data_batch_5.bin";
  const auto train = [&] { read_cifar10(temp.path(), Split::train); };
  const std::string whole = slurp(file);
  for (const std::size_t size : {1UL, 3072UL, 3074UL, whole.size() - 1}) {
    write(file, whole.substr(0, size));
    require_error(train, {file.string(), fmt::format("{} bytes left over", size % 3073),
                          fmt::format("at offset {}", size - size % 3073)});
  }
  write(file, "");
  require_error(train, {file.string(), "is empty"});
  fs::resize_file(file, 30730000 + 3073);  // sparse
  require_error(train, {file.string(), "30733073 bytes", "30730000"});
  write(temp.path() / "train.bin", "");
  fs::resize_file(temp.path() / "train.bin", 153700000 + 3074);
  require_error([&] { read_cifar100(temp.path(), Split::train); }, {"153703074", "153700000"});
  // A file by itself may be either's, so it has as many records as the larger.
  require_error([&] { read_cifar_file(temp.path() / "train.bin", 100); },
                {"153703074", "153700000"});
  write(temp.path() / "test.bin", "");
  fs::resize_file(temp.path() / "test.bin", 30740000 + 3074);
  require_error([&] { read_cifar100(temp.path(), Split::test); }, {"30743074", "30740000"});
}

TEST_CASE("A label out of range is an error with record and offset") {
  const test::TemporaryDirectory temp;
  write_cifar10(temp.path());
  std::string bytes = records(0, 5, false);
  bytes[2 * 3073] = 10;
  write(temp.path() / "data_batch_2.bin", bytes);
  require_error([&] { read_cifar10(temp.path(), Split::train); },
                {"data_batch_2.bin", "record 2 at offset 6146", "label 10", "0 to 9"});

  bytes = records(0, 3, true);
  bytes[3074 + 1] = 100;
  write(temp.path() / "train.bin", bytes);
  const auto train = [&] { read_cifar100(temp.path(), Split::train); };
  require_error(train, {"train.bin", "record 1 at offset 3075", "label 100", "0 to 99"});
  bytes[3074] = static_cast<char>(255);
  write(temp.path() / "train.bin", bytes);
  require_error(train, {"train.bin", "record 1 at offset 3074", "label 255", "0 to 19"});
}

TEST_CASE("Channel statistics are those of all pixels") {
  const test::TemporaryDirectory temp;
  write_cifar10(temp.path());
  Dataset dataset = read_cifar10(temp.path(), Split::train);
  for (std::size_t i = 0; i < dataset.images.size(); i += 3) dataset.images[i] /= 3;
  const ChannelStats stats = channel_stats(dataset);
  const double n = static_cast<double>(dataset.images.size() / 3);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    long double sum = 0, squares = 0;
    for (std::size_t i = channel; i < dataset.images.size(); i += 3) sum += dataset.images[i];
    for (std::size_t i = channel; i < dataset.images.size(); i += 3) {
      squares += (dataset.images[i] - sum / n) * (dataset.images[i] - sum / n);
    }
    REQUIRE(std::abs(stats.mean[channel] - static_cast<double>(sum / n)) < 1e-12);
    REQUIRE(std::abs(stats.std[channel] - std::sqrt(static_cast<double>(squares / n))) < 1e-12);
  }

  std::fill(dataset.images.begin(), dataset.images.end(), 201);
  REQUIRE(channel_stats(dataset).mean == std::array<double, 3>{201, 201, 201});
  REQUIRE(channel_stats(dataset).std == std::array<double, 3>{0, 0, 0});
  require_error([] { channel_stats({"cifar10", {}, {}, {}}); }, {"cifar10 has no images"});
}

TEST_CASE("A subset has the images asked for, in that order") {
  const test::TemporaryDirectory temp;
  write_cifar10(temp.path());
  const Dataset all = read_cifar10(temp.path(), Split::train);
  const std::vector<std::int32_t> indices = {14, 3, 3, 0};
  const Dataset some = subset(all, indices);
  REQUIRE(some.name == all.name);
  REQUIRE(some.class_names == all.class_names);
  REQUIRE(some.labels == std::vector<std::uint8_t>{4, 3, 3, 0});
  REQUIRE(some.images.size() == 4 * static_cast<std::size_t>(kImageBytes));
  for (std::size_t i = 0; i < indices.size(); ++i) {
    REQUIRE(std::equal(some.images.begin() + i * kImageBytes,
                       some.images.begin() + (i + 1) * kImageBytes,
                       all.images.begin() + indices[i] * kImageBytes));
  }
  REQUIRE(subset(all, {}).size() == 0);
  for (const std::int32_t index : {-1, 15}) {
    const std::vector<std::int32_t> bad = {index};
    require_error([&] { subset(all, bad); }, {fmt::format("15 images, and no image {}", index)});
  }
}

TEST_CASE("The synthetic set is CIFAR-10 files, balanced and mixed") {
  const test::TemporaryDirectory temp;
  const fs::path dir = temp.path() / "not" / "yet" / "there" / "";
  write_synthetic(dir, 203, 40, 5);
  REQUIRE(std::distance(fs::directory_iterator(dir), {}) == 7);
  REQUIRE(std::distance(fs::directory_iterator(dir.parent_path().parent_path()), {}) == 1);
  for (int file = 1; file <= 5; ++file) {
    const auto size = fs::file_size(dir / fmt::format("data_batch_{}.bin", file));
    REQUIRE((size == 40 * 3073 || size == 41 * 3073));
  }
  const Dataset train = read_cifar10(dir, Split::train), test = read_cifar10(dir, Split::test);
  REQUIRE(train.class_names.front() == "disc");
  REQUIRE(train.class_names.back() == "dots");
  REQUIRE(train.size() == 203);
  REQUIRE(test.size() == 40);
  for (const Dataset* dataset : {&train, &test}) {
    std::vector<std::int64_t> count(10);
    for (const std::uint8_t label : dataset->labels) ++count[label];
    for (const std::int64_t c : count) REQUIRE(std::abs(c - dataset->size() / 10) <= 1);
    REQUIRE_FALSE(std::is_sorted(dataset->labels.begin(), dataset->labels.end()));
  }
  // No image twice, within a split or between them.
  std::set<std::string> images;
  for (const Dataset* dataset : {&train, &test}) {
    for (auto at = dataset->images.begin(); at != dataset->images.end(); at += kImageBytes) {
      images.emplace(at, at + kImageBytes);
    }
  }
  REQUIRE(images.size() == 243);
}

TEST_CASE("The synthetic set is the same bytes on every machine") {
  const test::TemporaryDirectory temp;
  const auto checksum = [&](std::uint64_t seed) {  // FNV-1a, 64 bits
    const fs::path dir = temp.path() / fmt::format("{}", seed);
    write_synthetic(dir, 50, 10, seed);
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char* file : {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                             "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"}) {
      for (const char byte : slurp(dir / file)) {
        hash = (hash ^ static_cast<std::uint8_t>(byte)) * 0x100000001b3;
      }
    }
    return hash;
  };
  REQUIRE(checksum(1) == 0x1771f91fd5947736);
  REQUIRE(checksum(0xfedcba9876543210) == 0x4ff3e714e4758b25);
}

TEST_CASE("The synthetic set is whole or not there") {
  const test::TemporaryDirectory temp;
  const fs::path dir = temp.path() / "set";
  const auto write_set = [&] { write_synthetic(dir, 20, 10, 1); };
  const auto entries = [&] { return std::distance(fs::directory_iterator(temp.path()), {}); };

  {
    const FileSizeLimit limit(5000);
    require_error(write_set, {"data_batch_1.bin: cannot be written: File too large"});
  }
  REQUIRE(entries() == 0);

  fs::create_directory(dir);                            // empty: as good as not there
  fs::create_directory(temp.path() / "set.partial-0");  // of a run that crashed: left alone
  write_set();
  REQUIRE(entries() == 2);
  const std::string before = slurp(dir / "test_batch.bin");
  write_set();  // as one does that began before the first had ended
  require_error([&] { write_synthetic(dir, 20, 10, 2); }, {dir.string(), "remove it"});
  REQUIRE(slurp(dir / "test_batch.bin") == before);
  require_error([&] { write_synthetic(dir / "test_batch.bin", 20, 10, 2); }, {"remove it"});
  require_error([&] { write_synthetic(dir / "test_batch.bin" / "x", 20, 10, 2); },
                {"test_batch.bin/x: cannot be written: Not a directory"});
  require_error([&] { write_synthetic("", 20, 10, 2); }, {"cannot be written"});
  REQUIRE(entries() == 2);

  const fs::path other = temp.path() / "other";
  require_error([&] { write_synthetic(other, 4, 10, 1); }, {"4 training"}, Status::kUsage);
  require_error([&] { write_synthetic(other, 50001, 10, 1); }, {"50001"}, Status::kUsage);
  require_error([&] { write_synthetic(other, 20, 0, 1); }, {"0 test"}, Status::kUsage);
  require_error([&] { write_synthetic(other, 20, 10001, 1); }, {"10001 test"}, Status::kUsage);
  REQUIRE(entries() == 2);
}
