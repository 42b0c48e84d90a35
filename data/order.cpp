#include "data/order.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/error.h"
#include "kernels/philox.h"

namespace wrn {

namespace {

std::vector<std::int32_t> split_order(std::int64_t n, std::uint64_t seed) {
  WRN_CHECK(n >= 0 && n <= std::numeric_limits<std::int32_t>::max(), "{} images", n);
  std::vector<std::uint64_t> keys(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const PhiloxWords random = philox(seed, static_cast<std::uint32_t>(i), 0, 0, RandomUse::kSplit);
    keys[i] = std::uint64_t{random.word[0]} << 32 | random.word[1];
  }
  return argsort(keys);
}

}  // namespace

std::vector<std::int32_t> argsort(std::span<const std::uint64_t> keys) {
  std::vector<std::int32_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return keys[a] < keys[b]; });
  return order;
}

ValidationSplit split_validation(std::int64_t n, double fraction, std::uint64_t seed) {
  if (!(fraction >= 0 && fraction < 1)) {  // written so that NaN fails too
    throw Error(fmt::format("a validation fraction of {} is not in [0, 1)", fraction),
                Status::kUsage);
  }
  const std::int64_t count = std::llround(fraction * static_cast<double>(n));
  if (fraction > 0 && (count == 0 || count == n)) {
    throw Error(fmt::format("a validation fraction of {} leaves none of {} images to {}", fraction,
                            n, count == 0 ? "validate with" : "train on"),
                Status::kUsage);
  }
  const std::vector<std::int32_t> order = split_order(n, seed);
  ValidationSplit split;
  split.validation.assign(order.begin(), order.begin() + count);
  split.train.assign(order.begin() + count, order.end());
  std::sort(split.validation.begin(), split.validation.end());
  std::sort(split.train.begin(), split.train.end());
  return split;
}

}  // namespace wrn
