// data/whitening: against NumPy's float64 (files/make_whitening.py), and its cache.
#include <cmath>
#include <fstream>
#include <random>

#include "catch.h"
#include "data/input.h"
#include "data/whitening.h"
#include "devices.h"
#include "engine/program.h"
#include "temporary_directory.h"

using namespace wrn;

namespace {

constexpr int kFeatures = 8 * 8 * 3;

struct Golden {
  Safetensors file = read_safetensors(WRN_SOURCE_DIR "/tests/files/whitening.safetensors");
  std::span<const std::uint8_t> images = file.at("images").as<std::uint8_t>();
  std::span<const std::uint8_t> others = file.at("others").as<std::uint8_t>();
};

std::vector<float> whiten(const Whitening& whitening, std::span<const std::uint8_t> images,
                          int threads = 1) {
  std::vector<float> whitened(images.size(), NAN);
  whitening.apply(images, whitened, threads);
  return whitened;
}

double largest_difference(std::span<const float> got, std::span<const float> expected) {
  REQUIRE(got.size() >= expected.size());
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(double{got[i]} - expected[i]);
    largest = difference <= largest ? largest : difference;  // a NaN is kept
  }
  return largest;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

template <typename Function>
std::string error_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// The cache in `directory`, and what was warned of.
struct Cached {
  std::string warning;
  Whitening whitening;
  Cached(const std::filesystem::path& directory, std::span<const std::uint8_t> images)
      : whitening(cached_whitening(directory, images, kFeatures,
                                   [this](const std::string& what) { warning += what; })) {}
};

std::filesystem::path only_file(const test::TemporaryDirectory& directory) {
  const std::filesystem::directory_iterator first(directory.path());
  REQUIRE(std::distance(first, {}) == 1);
  return std::filesystem::directory_iterator(directory.path())->path();
}

}  // namespace

TEST_CASE("whitening equals NumPy's") {
  const Golden golden;
  const Whitening whitening = fit_whitening(golden.images, kFeatures);
  const auto whitened = golden.file.at("whitened").as<float>();
  const auto others = golden.file.at("whitened_others").as<float>();
  const std::vector<float> all = whiten(whitening, golden.images);
  CHECK(largest_difference(std::span(all).subspan(65 * kFeatures), whitened) <= 1e-4);
  CHECK(largest_difference(whiten(whitening, golden.others), others) <= 1e-4);
  CHECK(largest_difference(whiten(whitening, golden.others, 2), others) <= 1e-4);
  CHECK(fit_whitening(golden.images, kFeatures).checksum() == whitening.checksum());
  CHECK(fit_whitening(golden.others, kFeatures).checksum() != whitening.checksum());
  CHECK_THROWS_AS(fit_whitening({}, kFeatures), Error);
  CHECK_THROWS_AS(fit_whitening(golden.images, kFeatures + 1), Error);
}

TEST_CASE("many images are whitened as few are") {
  // More than are taken at a time, of which each differs.
  constexpr int kFew = 12, kImages = 600;
  std::vector<std::uint8_t> images, backward;
  std::mt19937 generator(1);
  for (int i = 0; i < kImages * kFew; ++i) {
    images.push_back(static_cast<std::uint8_t>(generator() % 256 * i / (kImages * kFew)));
  }
  for (int i = kImages; i-- > 0;) {
    backward.insert(backward.end(), images.begin() + i * kFew, images.begin() + (i + 1) * kFew);
  }
  const Whitening whitening = fit_whitening(images, kFew), other = fit_whitening(backward, kFew);
  CHECK(largest_difference(whitening.mean, other.mean) <= 1e-5);
  CHECK(largest_difference(whitening.matrix, other.matrix) <= 1e-5);
  const std::vector<float> all = whiten(whitening, images);
  for (std::size_t i = 0; i < kImages; ++i) {
    const auto image = std::span(images).subspan(i * kFew, kFew);
    REQUIRE(largest_difference(std::span(all).subspan(i * kFew, kFew), whiten(whitening, image)) <=
            1e-4);
  }
}

TEST_CASE("a whitening comes back from a file, and not from one that is damaged") {
  const test::TemporaryDirectory directory;
  const Golden golden;
  const Whitening whitening = fit_whitening(golden.images, kFeatures);
  Safetensors file;
  export_whitening(whitening, file);
  const Whitening again = import_whitening(file, whitening.checksum());
  CHECK(again.features == kFeatures);
  CHECK(again.mean == whitening.mean);
  CHECK(again.matrix == whitening.matrix);
  CHECK(has(error_of([&] { import_whitening(file, "0123456789abcdef"); }),
            "0123456789abcdef: the file is damaged"));
  CHECK_THROWS_AS(import_whitening({}, whitening.checksum()), Error);
  file.tensors[1].second.shape = {kFeatures * kFeatures};
  CHECK(has(error_of([&] { import_whitening(file, whitening.checksum()); }),
            "a mean of [192] and a matrix of [36864]"));
}

TEST_CASE("the cache is of these images, or written anew") {
  const test::TemporaryDirectory directory;
  const Golden golden;
  const std::string checksum = fit_whitening(golden.images, kFeatures).checksum();
  CHECK(Cached(directory.path(), golden.images).warning.empty());
  const std::filesystem::path file = only_file(directory);
  const auto written = std::filesystem::last_write_time(file);
  const Cached read(directory.path(), golden.images);
  CHECK(read.warning.empty());
  CHECK(read.whitening.checksum() == checksum);
  CHECK(std::filesystem::last_write_time(file) == written);

  // Of other images, under this name; then cut short; then with one bit of the matrix changed.
  const test::TemporaryDirectory elsewhere;
  const Cached others(elsewhere.path(), golden.others);
  std::filesystem::copy_file(only_file(elsewhere), file,
                             std::filesystem::copy_options::overwrite_existing);
  const Cached of_others(directory.path(), golden.images);
  CHECK(has(of_others.warning, file.string() + ": is of other images"));
  CHECK(of_others.whitening.checksum() == checksum);

  const auto size = std::filesystem::file_size(file);
  for (const std::uintmax_t length : {std::uintmax_t{0}, std::uintmax_t{7}, size / 2, size - 1}) {
    std::filesystem::resize_file(file, length);
    const Cached cut(directory.path(), golden.images);
    CHECK(has(cut.warning, file.string()));
    CHECK(has(cut.warning, "computed anew"));
    CHECK(cut.whitening.checksum() == checksum);
    CHECK(std::filesystem::file_size(file) == size);
  }
  {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekg(-1, std::ios::end);
    const char last = static_cast<char>(bytes.peek());
    bytes.seekp(-1, std::ios::end);
    bytes.put(static_cast<char>(last ^ 1));
  }
  const Cached changed(directory.path(), golden.images);
  CHECK(has(changed.warning, "the file is damaged"));
  CHECK(changed.whitening.checksum() == checksum);
  CHECK(Cached(directory.path(), golden.images).warning.empty());
}

TEST_CASE("what a killed process has left of a cache goes when one is written") {
  const Golden golden;
  const test::TemporaryDirectory directory;
  std::ofstream(directory / ".zca-0.safetensors.tmp.999999999.0") << "of no living process";
  const Cached cached(directory.path(), golden.images);
  CHECK(cached.warning.empty());
  const std::filesystem::directory_iterator files(directory.path());
  CHECK(std::distance(begin(files), end(files)) == 1);
}

TEST_CASE("a cache that cannot be written is no reason to stop") {
  const Golden golden;
  const Cached cached("/nowhere", golden.images);
  CHECK(has(cached.warning, "/nowhere/zca-"));
  CHECK(cached.whitening.checksum() == fit_whitening(golden.images, kFeatures).checksum());
}

TEST_CASE("whitened images reach the network, augmented as floats") {
  // A whitening that only normalises the contrast, so that what is expected is soon said.
  Whitening whitening{kImageBytes, std::vector<float>(kImageBytes),
                      std::vector<float>(std::size_t{kImageBytes} * kImageBytes)};
  for (std::size_t i = 0; i < kImageBytes; ++i) whitening.matrix[i * kImageBytes + i] = 1;
  const auto draw = [](int n, int salt) {
    Dataset dataset;
    dataset.class_names.resize(10);
    for (int i = 0; i < n * kImageBytes; ++i) {
      dataset.images.push_back(static_cast<std::uint8_t>((i * 37 + i / 96 * 11 + salt) % 251));
    }
    dataset.labels.resize(static_cast<std::size_t>(n), 3);
    return dataset;
  };
  const Dataset train = draw(1025, 0), test = draw(2, 5);  // more than are whitened at a time
  std::vector<float> expected = whiten(whitening, train.images);
  const std::vector<float> tests = whiten(whitening, test.images);
  expected.insert(expected.end(), tests.begin(), tests.end());

  for (const Device device : test::devices()) {
    INFO(test::name_of(device));
    Context context(device, 1);
    const ResidentData data(train, test, whitening, context);
    CHECK(data.train_size == 1025);
    const bool whitened = data.images.read<float>() == expected;
    CHECK(whitened);
    const RunState state(device);
    const Tensor order = Tensor::persistent("order", {2}, DType::kI32, device);
    order.write<std::int32_t>(std::vector<std::int32_t>{1026, 1});
    StepState step{};
    step.seed = 9;
    step.epoch = 2;
    state.step.write<StepState>(std::span(&step, 1));
    Tape tape(Mode::kInference, state, context);
    const Batch batch = load_images(
        tape, data, {.order = order, .rows = 2, .normalisation = {{}, {1, 1, 1}}, .augment = true});
    tape.keep(batch.images);
    Program program = tape.finish();
    const Buffer arena(program.arena_bytes(), "arena", device);
    program.bind(arena.data());
    program.run(context);
    const std::vector<float> images = program.read(batch.images);
    std::size_t at = 0, different = 0;
    for (const int index : {1026, 1}) {
      const Augmentation how = draw_augmentation(9, 2, index);
      for (int y = 0; y < kImageSide; ++y) {
        for (int x = 0; x < kImageSide; ++x) {
          for (int c = 0; c < 3; ++c) {
            const int from = (how.source_row(y) * kImageSide + how.source_column(x)) * 3 + c;
            different +=
                images[at++] != expected[static_cast<std::size_t>(index * kImageBytes + from)];
          }
        }
      }
    }
    CHECK(different == 0);
  }
}
