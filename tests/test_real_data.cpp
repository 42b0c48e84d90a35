// The readers on real images: the first records of each official file.
#include <array>
#include <cmath>
#include <set>

#include "data/cifar.h"
#include "tests/catch.h"
#include "tests/real_data.h"

using namespace wrn;

namespace {

void require_labels(const Dataset& dataset, int classes, std::size_t seen) {
  REQUIRE(dataset.classes() == classes);
  const std::set<std::uint8_t> labels(dataset.labels.begin(), dataset.labels.end());
  REQUIRE(labels.size() == seen);
  REQUIRE(*labels.rbegin() == classes - 1);
}

void require_near(const std::array<double, 3>& actual, const std::array<double, 3>& expected,
                  double tolerance) {
  for (std::size_t channel = 0; channel < 3; ++channel) {
    INFO("channel " << channel << ": " << actual[channel] << ", expected " << expected[channel]);
    REQUIRE(std::abs(actual[channel] - expected[channel]) < tolerance);
  }
}

}  // namespace

// The means of single images deviate by 30 to 40 from that of all, so that of 5,170 by about 0.5
// and that of 916 by about 1.3; the tolerances are three times that.
TEST_CASE("CIFAR-10") {
  const auto dir = real_data_dir() / "cifar10-head";
  const Dataset train = read_cifar10(dir, Split::train), test = read_cifar10(dir, Split::test);
  REQUIRE(train.size() == 5170);
  REQUIRE(test.size() == 1017);
  require_labels(train, 10, 10);
  require_labels(test, 10, 10);
  REQUIRE(train.class_names[0] == "airplane");
  REQUIRE(train.class_names[9] == "truck");
  REQUIRE(train.class_names[train.labels[0]] == "frog");
  const ChannelStats stats = channel_stats(train);
  require_near(stats.mean, {125.3, 123.0, 113.9}, 1.5);
  require_near(stats.std, {63.0, 62.1, 66.7}, 1.0);
}

TEST_CASE("CIFAR-100") {
  const auto dir = real_data_dir() / "cifar100-head";
  const Dataset train = read_cifar100(dir, Split::train), test = read_cifar100(dir, Split::test);
  REQUIRE(train.size() == 486);
  REQUIRE(test.size() == 916);
  require_labels(train, 100, 99);
  require_labels(test, 100, 100);
  REQUIRE(train.class_names[0] == "apple");
  REQUIRE(train.class_names[99] == "worm");
  REQUIRE(train.class_names[train.labels[0]] == "cattle");
  const ChannelStats stats = channel_stats(test);
  require_near(stats.mean, {129.3, 124.1, 112.4}, 4);  // those of the whole training set
  require_near(stats.std, {68.2, 65.4, 70.4}, 3);
}
