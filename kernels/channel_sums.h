// Sums over the rows of an image, for each of its channels: how the partial sums of `tiles` parts
// of the rows, which other kernels write (channel_sums.cuh), lie in memory, and how they are
// merged.
#pragma once

#include "kernels/kernels.h"

namespace wrn::cuda {

// Merge the tiles, in an order that follows from their number alone.

/// partial [tiles][channels][mean, m2], behind them the counts of rows [tiles] -> mean, variance
/// [channels].
void merge_moments(const float* partial, unsigned tiles, int channels, float* mean, float* variance,
                   Context&);
/// partial [tiles][channels][dy, dy_x] -> dgamma, dbeta [channels].
void merge_gradient_sums(const float* partial, unsigned tiles, int channels, const float* variance,
                         float epsilon, float* dgamma, float* dbeta, Context&);

inline std::size_t gradient_sums_bytes(unsigned tiles, int channels) {
  return 2 * sizeof(float) * std::size_t{tiles} * static_cast<std::size_t>(channels);
}
inline std::size_t moments_bytes(unsigned tiles, int channels) {
  return gradient_sums_bytes(tiles, channels) + sizeof(float) * std::size_t{tiles};
}

}  // namespace wrn::cuda
