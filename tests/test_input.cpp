// How the images of an epoch are drawn and loaded on the CPU: random numbers, orders, splits,
// batches and their augmentation.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "catch.h"
#include "data/order.h"
#include "kernels/augment.h"
#include "kernels/kernels.h"
#include "kernels/philox.h"
#include "require_error.h"

using namespace wrn;
using test::require_error;

TEST_CASE("philox is Random123's philox4x32-10") {
  const auto words = [](std::uint64_t key, std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                        std::uint32_t c3) {
    const PhiloxWords w = philox(key, c0, c1, c2, c3);
    return std::vector<std::uint32_t>(w.word, w.word + 4);
  };
  using Words = std::vector<std::uint32_t>;
  const std::uint32_t ones = 0xffffffff;
  REQUIRE(words(0, 0, 0, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  REQUIRE(words(~0ULL, ones, ones, ones, ones) ==
          Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  REQUIRE(words(0x299f31d0a4093822, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344) ==
          Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("dropout keeps the words that are p or more") {
  REQUIRE(least_kept(0) == 0);
  for (const float p : {0x1p-30F, 0.1F, 0.3F, 0.4F, 0.5F, 0.99999994F}) {
    CAPTURE(p);
    const std::uint32_t least = least_kept(p);
    REQUIRE(least % 256 == 0);
    REQUIRE((least / 0x1p32 >= p && (least - 256) / 0x1p32 < p));
  }
}

TEST_CASE("argsort keeps equal keys in order") {
  const std::vector<std::uint64_t> keys = {5, 1, ~0ULL, 1, 5, 0, 1};
  REQUIRE(argsort(keys) == std::vector<std::int32_t>{5, 1, 3, 6, 0, 4, 2});
  REQUIRE(argsort({}).empty());
}

namespace {

/// The order of the images 0..n-1.
std::vector<std::int32_t> epoch_order(int n, std::uint64_t seed, std::uint32_t epoch) {
  std::vector<std::int32_t> items(static_cast<std::size_t>(n)), order(items.size());
  std::iota(items.begin(), items.end(), 0);
  Context context;
  std::vector<std::byte> workspace(cpu::shuffle_workspace(n, context));
  context.workspace = workspace.data();
  cpu::shuffle(items.data(), order.data(), n, seed, epoch, context);
  return order;
}

}  // namespace

TEST_CASE("An epoch's order sorts Philox keys, and is another every epoch") {
  const int n = 1000;
  const std::uint64_t seed = 0x123456789abcdef0;
  const std::vector<std::int32_t> order = epoch_order(n, seed, 7);
  std::vector<std::pair<std::uint64_t, std::int32_t>> expected;
  for (std::int32_t i = 0; i < n; ++i) {
    const PhiloxWords words = philox(seed, i, 0, 7, RandomUse::kShuffle);
    expected.emplace_back(std::uint64_t{words.word[0]} << 32 | words.word[1], i);
  }
  std::sort(expected.begin(), expected.end());
  for (std::size_t i = 0; i < order.size(); ++i) REQUIRE(order[i] == expected[i].second);

  REQUIRE(order == epoch_order(n, seed, 7));
  REQUIRE(order != epoch_order(n, seed, 8));
  REQUIRE(order != epoch_order(n, seed + 1, 7));
  REQUIRE(epoch_order(0, seed, 0).empty());
  // Fixed for good: an old run must resume in a new version.
  REQUIRE(epoch_order(10, 1, 0) == std::vector<std::int32_t>{6, 5, 1, 0, 2, 4, 7, 8, 3, 9});
}

namespace {

/// The pixels of a line with four more on each side, by reflection: 4 3 2 1 0 1 ... 31 30 29 28 27.
int padded(int i) { return i < 4 ? 4 - i : i < 36 ? i - 4 : 66 - i; }

}  // namespace

TEST_CASE("An augmented image is flipped, padded by reflection and cropped, in this order") {
  for (int place = 0; place <= 8; ++place) {
    for (int i = 0; i < kImageSide; ++i) {
      REQUIRE(Augmentation{false, place, 4}.source_row(i) == padded(place + i));
      REQUIRE(Augmentation{false, 4, place}.source_column(i) == padded(place + i));
      REQUIRE(Augmentation{true, 4, place}.source_column(i) == 31 - padded(place + i));
    }
  }
}

TEST_CASE("Half the images are flipped, and all places of the crop are as likely") {
  constexpr int kImages = 8100;
  int flips = 0, same = 0;
  std::map<std::pair<int, int>, int> places;
  for (int image = 0; image < kImages; ++image) {
    const Augmentation how = draw_augmentation(1, 0, image), next = draw_augmentation(1, 1, image);
    flips += how.flip ? 1 : 0;
    ++places[{how.down, how.right}];
    same += how.down == next.down && how.right == next.right ? 1 : 0;
  }
  // Within five standard deviations.
  REQUIRE(std::abs(flips - kImages / 2) < 225);
  REQUIRE(places.size() == 81);
  for (const auto& [place, count] : places) {
    CAPTURE(place.first, place.second, count);
    REQUIRE((place.first >= 0 && place.first <= 8 && place.second >= 0 && place.second <= 8));
    REQUIRE(std::abs(count - 100) < 50);
  }
  REQUIRE(std::abs(same - 100) < 50);
  // Fixed for good: an old run must resume in a new version.
  const Augmentation how = draw_augmentation(1, 0, 4);
  REQUIRE((how.flip && how.down == 6 && how.right == 1));
}

TEST_CASE("A batch is of the images of the order from the first one on, and of padding") {
  const int images = 3, rows = 4;
  std::vector<float> pixels(images * kImageBytes);
  std::iota(pixels.begin(), pixels.end(), 0.0F);
  const std::vector<std::uint8_t> image_labels = {7, 8, 9};
  const std::vector<std::int32_t> order = {0, 0, 2, -1, 1, 0};
  StepState state{};
  state.seed = 5;
  state.epoch = 3;
  state.first = 2;
  Context context;
  for (const bool augment : {false, true}) {
    std::vector<float> x(rows * kImageBytes, NAN);
    std::vector<std::int32_t> labels(rows, 99);
    cpu::load_images(pixels.data(), image_labels.data(), order.data(), x.data(), labels.data(),
                     rows, {{1, 2, 3}, {1, 2, 4}}, augment, &state, context);
    REQUIRE(labels == std::vector<std::int32_t>{9, -1, 8, 7});
    std::size_t i = 0;
    for (int row = 0; row < rows; ++row) {
      const int image = order[static_cast<std::size_t>(row) + 2];
      const Augmentation how = augment ? draw_augmentation(5, 3, image) : Augmentation();
      for (int y = 0; y < kImageSide; ++y)
        for (int z = 0; z < kImageSide; ++z)
          for (int c = 0; c < 3; ++c, ++i) {
            const int column = padded(z + how.right);
            const int pixel = (image * kImageSide + padded(y + how.down)) * kImageSide +
                              (how.flip ? 31 - column : column);
            const float raw = static_cast<float>(3 * pixel + c);
            const float expected = (raw - static_cast<float>(c + 1)) / (c == 2 ? 4 : c + 1);
            if (x[i] != (image < 0 ? 0 : expected)) FAIL(row << " " << y << " " << z << " " << c);
          }
    }
  }
}

TEST_CASE("A validation split is drawn by the seed, and both its lists ascend") {
  const ValidationSplit split = split_validation(1000, 0.1, 3);
  REQUIRE(split.validation.size() == 100);
  REQUIRE(split.train.size() == 900);
  REQUIRE(std::is_sorted(split.train.begin(), split.train.end()));
  REQUIRE(std::is_sorted(split.validation.begin(), split.validation.end()));
  std::vector<std::int32_t> all;
  std::merge(split.train.begin(), split.train.end(), split.validation.begin(),
             split.validation.end(), std::back_inserter(all));
  std::vector<std::int32_t> expected(1000);
  std::iota(expected.begin(), expected.end(), 0);
  REQUIRE(all == expected);

  // Drawn by their own keys, from the whole range.
  std::vector<std::uint64_t> keys;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const PhiloxWords words = philox(3, i, 0, 0, RandomUse::kSplit);
    keys.push_back(std::uint64_t{words.word[0]} << 32 | words.word[1]);
  }
  std::vector<std::int32_t> drawn = argsort(keys);
  drawn.resize(100);
  std::sort(drawn.begin(), drawn.end());
  REQUIRE(split.validation == drawn);
  REQUIRE(split_validation(1000, 0.1, 4).validation != drawn);

  REQUIRE(split_validation(10, 0.25, 0).validation.size() == 3);  // 2.5, away from zero
  REQUIRE(split_validation(10, 0, 0).validation.empty());
  REQUIRE(split_validation(10, 0, 0).train.size() == 10);
  for (const double fraction : {-0.1, 1.0, 2.0, std::numeric_limits<double>::quiet_NaN()}) {
    require_error([&] { split_validation(10, fraction, 0); }, {"is not in [0, 1)"}, Status::kUsage);
  }
  require_error([] { split_validation(10, 0.01, 0); }, {"none of 10", "validate"}, Status::kUsage);
  require_error([] { split_validation(10, 0.99, 0); }, {"none of 10", "train"}, Status::kUsage);
}
