// First the drawing, all in integers, and all randomness from Philox, so that the bytes are the
// same on every machine; then the writing of the files.
#include "data/synthetic.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "data/dataset.h"
#include "data/order.h"
#include "kernels/error.h"
#include "kernels/philox.h"

namespace wrn {

namespace {

namespace fs = std::filesystem;

enum Figure { kDisc, kRing, kSquare, kTriangle, kCross, kStar, kRows, kColumns, kChecks, kDots };
constexpr std::array<std::string_view, 10> kNames = {"disc", "ring", "square",  "triangle", "cross",
                                                     "star", "rows", "columns", "checks",   "dots"};

/// The random numbers of one image. Number 0 is its place in the order; drawing starts at 1.
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint32_t image, std::uint32_t split)
      : seed_(seed), image_(image), split_(split) {}

  std::uint32_t next() {
    if (used_ == 4) {
      words_ = philox(seed_, ++draw_, image_, split_, RandomUse::kSynthetic);
      used_ = 0;
    }
    return words_.word[used_++];
  }

  /// Uniform in low..high, both included.
  int between(int low, int high) {
    const auto count = static_cast<std::uint32_t>(high - low + 1);
    return low + static_cast<int>(std::uint64_t{next()} * count >> 32);
  }

  /// Around 0, bell-shaped: the sum of four random bytes has mean 510 and deviation 148.
  int noise(int deviation) {
    const std::uint32_t word = next();
    const std::uint32_t sum = (word & 255) + (word >> 8 & 255) + (word >> 16 & 255) + (word >> 24);
    return (static_cast<int>(sum) - 510) * deviation / 148;
  }

 private:
  std::uint64_t seed_;
  std::uint32_t image_, split_, draw_ = 0;
  PhiloxWords words_{};
  int used_ = 4;
};

constexpr std::int64_t kRecordBytes = 1 + kImageBytes;

struct Vector {
  std::int64_t x, y;
};

// Unit vectors, in thousandths, across the sides of a triangle and of a pentagon; y points down.
constexpr std::array<Vector, 3> kThree = {{{0, 1000}, {866, -500}, {-866, -500}}};
constexpr std::array<Vector, 5> kFive = {
    {{0, 1000}, {951, 309}, {588, -809}, {-588, -809}, {-951, 309}}};

/// How many of these directions p lies further along than `limit` thousandths of `unit`.
template <std::size_t count>
int beyond(const std::array<Vector, count>& directions, Vector p, std::int64_t limit,
           std::int64_t unit) {
  int result = 0;
  for (const Vector& d : directions) result += d.x * p.x + d.y * p.y > limit * unit;
  return result;
}

/// x modulo 2 units, within -unit..unit: what turns one figure into a texture of them.
std::int64_t wrap(std::int64_t x, std::int64_t unit) {
  const std::int64_t remainder = x % (2 * unit);
  return (remainder < 0 ? remainder + 2 * unit : remainder) - unit;
}

/// Whether p is inked. A shape has its centre at 0 and a radius of `unit`; the cells of a texture
/// are 2 units wide.
bool inked(Figure figure, Vector p, std::int64_t unit) {
  const Vector cell = {wrap(p.x, unit), wrap(p.y, unit)};
  const auto square = [](Vector q) { return q.x * q.x + q.y * q.y; };
  const std::int64_t wide = std::max(std::abs(p.x), std::abs(p.y));
  const std::int64_t narrow = std::min(std::abs(p.x), std::abs(p.y));
  switch (figure) {
    case kDisc:
      return square(p) < unit * unit;
    case kRing:
      return square(p) < unit * unit && 3 * square(p) > unit * unit;
    case kSquare:
      return 10 * wide < 8 * unit;
    case kTriangle:
      return beyond(kThree, p, 500, unit) == 0;
    case kCross:
      return wide < unit && 10 * narrow < 3 * unit;
    case kStar:
      return beyond(kFive, p, 309, unit) <= 1;  // a pentagon, and a tip on each side
    case kRows:
      return cell.y < 0;
    case kColumns:
      return cell.x < 0;
    case kChecks:
      return (cell.x < 0) != (cell.y < 0);
    case kDots:
      return 2 * square(cell) < unit * unit;
  }
  return false;
}

/// Draws one image: planes is [3, 32, 32]. Lengths are in quarters of a pixel.
void draw(Figure figure, Draws draws, char* planes) {
  int paper[3], ink[3], contrast = 0;
  while (contrast < 200) {  // any two colours, the ink the brighter
    contrast = 0;
    for (int channel = 0; channel < 3; ++channel) {
      paper[channel] = draws.between(0, 255);
      ink[channel] = draws.between(0, 255);
      contrast += ink[channel] - paper[channel];
    }
  }
  const int deviation = draws.between(4, 20);
  const int centre_x = draws.between(36, 92), centre_y = draws.between(36, 92);

  // One vector (a, b) both scales and turns: it is the figure's own x axis, as long as its radius.
  // It turns by up to 18 degrees either way, so that rows and columns stay what they are.
  const bool texture = figure >= kRows;
  const int shortest = texture ? 10 : 32, longest = texture ? 24 : 52;
  int a = 0, b = 0, unit = 0;
  while (unit < shortest * shortest || unit > longest * longest || 3 * std::abs(b) > a) {
    a = draws.between(0, longest);
    b = draws.between(-longest, longest);
    unit = a * a + b * b;
  }

  for (int y = 0; y < kImageSide; ++y) {
    for (int x = 0; x < kImageSide; ++x) {
      int covered = 0;  // of four points in the pixel
      for (int point = 0; point < 4; ++point) {
        const int dx = 4 * x + 1 + 2 * (point % 2) - centre_x;
        const int dy = 4 * y + 1 + 2 * (point / 2) - centre_y;
        covered += inked(figure, {a * dx + b * dy, a * dy - b * dx}, unit);
      }
      for (int channel = 0; channel < 3; ++channel) {
        const int colour = (ink[channel] * covered + paper[channel] * (4 - covered)) / 4;
        planes[channel * kPlane + y * kImageSide + x] =
            static_cast<char>(std::clamp(colour + draws.noise(deviation), 0, 255));
      }
    }
  }
}

/// n records, each a label and then the planes. The classes are as equal as n allows; sorting by a
/// random key of each image mixes them.
std::string draw_records(int n, std::uint64_t seed, std::uint32_t split) {
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    const PhiloxWords random = philox(seed, 0, i, split, RandomUse::kSynthetic);
    keys[i] = std::uint64_t{random.word[0]} << 32 | random.word[1];
  }
  const std::vector<std::int32_t> order = argsort(keys);

  std::string records(n * kRecordBytes, '\0');
  for (int i = 0; i < n; ++i) {
    char* record = &records[i * kRecordBytes];
    const int label = order[i] % static_cast<int>(kNames.size());
    record[0] = static_cast<char>(label);
    draw(static_cast<Figure>(label), Draws(seed, i, split), record + 1);
  }
  return records;
}

/// Written and synced, so that no file is less whole than the rename that follows.
void write_file(const fs::path& path, std::string_view bytes) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"),
                                                             std::fclose);
  if (!file || std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size() ||
      std::fflush(file.get()) != 0 || fsync(fileno(file.get())) != 0) {
    fail("{}: cannot be written: {}", path.string(), std::strerror(errno));
  }
}

/// A new directory `target`.partial-N, gone again at the end of the scope unless renamed.
struct Partial {
  explicit Partial(const fs::path& target) {
    int n = 0;
    do {
      path = fmt::format("{}.partial-{}", target.string(), n++);
    } while (!fs::create_directory(path));
  }
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;
  ~Partial() {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
  }
  /// Returns false where something is in the way.
  bool rename(const fs::path& target) {
    std::error_code error;
    fs::rename(path, target, error);
    for (const std::errc taken :
         {std::errc::directory_not_empty, std::errc::file_exists, std::errc::not_a_directory,
          std::errc::device_or_resource_busy}) {  // the last where a file system is mounted
      if (error == taken) return false;
    }
    if (error) throw std::system_error(error);
    path.clear();
    return true;
  }
  fs::path path;
};

/// Whether every file of `set` is in the directory too, byte for byte.
bool holds(const fs::path& directory, const fs::path& set) {
  using Bytes = std::istreambuf_iterator<char>;
  for (const fs::directory_entry& entry : fs::directory_iterator(set)) {
    std::ifstream ours(entry.path(), std::ios::binary);
    std::ifstream theirs(directory / entry.path().filename(), std::ios::binary);
    if (!theirs || !std::equal(Bytes(ours), Bytes(), Bytes(theirs), Bytes())) return false;
  }
  return true;
}

void check_count(std::string_view what, int count, int least, int most) {
  if (count >= least && count <= most) return;
  throw Error(
      fmt::format("{} {} images asked for, but a set has {} to {}", count, what, least, most),
      Status::kUsage);
}

}  // namespace

void write_synthetic(const fs::path& dir, int train_images, int test_images, std::uint64_t seed) {
  check_count("training", train_images, 5, 50000);  // one for each file
  check_count("test", test_images, 1, 10000);
  try {
    fs::path target = fs::weakly_canonical(fs::absolute(dir));
    if (!target.has_filename()) target = target.parent_path();  // it ended in a slash
    const auto in_the_way = [&] {
      fail("{}: is there already and no empty directory: remove it, or name another", dir.string());
    };
    // An empty directory is filled, not replaced: it may be the current one, or a mounted disk.
    const bool fills = fs::is_directory(target) && fs::is_empty(target);
    if (!fills && fs::exists(target) && !fs::exists(target / "batches.meta.txt")) in_the_way();
    fs::create_directories(target.parent_path());
    Partial partial(fills ? target / "set" : target);

    const std::string train = draw_records(train_images, seed, 0);
    for (std::int64_t file = 0; file < 5; ++file) {
      const std::int64_t first = train_images * file / 5, last = train_images * (file + 1) / 5;
      write_file(
          partial.path / fmt::format("data_batch_{}.bin", file + 1),
          std::string_view(train).substr(first * kRecordBytes, (last - first) * kRecordBytes));
    }
    write_file(partial.path / "test_batch.bin", draw_records(test_images, seed, 1));
    write_file(partial.path / "batches.meta.txt", fmt::format("{}\n", fmt::join(kNames, "\n")));
    if (fills) {
      const std::vector<fs::path> files(fs::directory_iterator(partial.path), {});
      for (const fs::path& file : files) fs::rename(file, target / file.filename());
    } else if (!partial.rename(target) && !holds(target, partial.path)) {
      in_the_way();  // two that begin at once draw the same set, and the second finds it there
    }
  } catch (const std::system_error& error) {
    fail("{}: cannot be written: {}", dir.string(), error.code().message());
  }
}

}  // namespace wrn
