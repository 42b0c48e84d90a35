// The stand-in for the shuffle of kernels/launchers.h, which on a GPU is a sort by CUB.
#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/philox.h"
#include "kernels/runtime.h"
#include "simt/internal.h"

namespace wrn::cuda {

void shuffle(const std::int32_t* items, std::int32_t* order, int n, std::uint64_t seed,
             std::uint32_t epoch, Context& context) {
  WRN_CHECK(n >= 0, "{} items", n);
  const auto sort = [=] {
    std::vector<std::uint64_t> keys(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const PhiloxWords random =
          philox(seed, static_cast<std::uint32_t>(i), 0, epoch, RandomUse::kShuffle);
      keys[i] = std::uint64_t{random.word[0]} << 32 | random.word[1];
    }
    std::vector<std::size_t> sorted(keys.size());
    std::iota(sorted.begin(), sorted.end(), 0);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
    for (std::size_t i = 0; i < sorted.size(); ++i) order[i] = items[sorted[i]];
  };
  WRN_CUDA_CALL(simt::enqueue(context.runtime().stream.get(), sort), "{} items", n);
}

std::size_t shuffle_workspace(int, Context&) { return 0; }

}  // namespace wrn::cuda
