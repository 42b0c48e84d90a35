// Sums over the rows of an image, for each of its channels, as batch norm wants them: in a thread,
// of a block's threads, and of its blocks. In all three they are merged in an order that follows
// from the shape alone, so the results are the same bits on every run.
#pragma once

#include "kernels/device.cuh"

namespace wrn::cuda {

/// Writes V channels from `channel` on, but those past the last, to row `tile` of
/// [tiles][channels].
template <int V>
__device__ void store_channels(float* partial, unsigned tile, int channel, int channels,
                               const Floats<V>& v) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (channel + i < channels) partial[std::int64_t{tile} * channels + channel + i] = v.at[i];
  }
}

/// Half of the channels, the first or the last.
template <int V>
__device__ Floats<V / 2> half_of(const Floats<V>& v, bool last) {
  Floats<V / 2> half;
#pragma unroll
  for (int i = 0; i < V / 2; ++i) half.at[i] = last ? v.at[V / 2 + i] : v.at[i];
  return half;
}
/// What the lane `apart` from this one has, all of the warp's lanes calling.
template <int V>
__device__ Floats<V> of_lane(const Floats<V>& v, int apart) {
  Floats<V> other;
#pragma unroll
  for (int i = 0; i < V; ++i) other.at[i] = __shfl_xor_sync(0xFFFFFFFF, v.at[i], apart);
  return other;
}

/// (count, mean, sum of squared distances from the mean) of some rows, for V channels. Merged by
/// the formula of Chan, Golub and LeVeque ("Updating Formulae and a Pairwise Algorithm for
/// Computing Sample Variances", 1979), which does not cancel where the mean is large.
template <int V>
struct Moments {
  static constexpr int kColumns = V;
  float count;
  Floats<V> mean, m2;

  static __device__ Moments of(float rows, const Floats<V>& mean, const Floats<V>& m2) {
    return {rows, mean, m2};
  }
  __device__ float rows() const { return count; }
  __device__ const Floats<V>& plane(int i) const { return i == 0 ? mean : m2; }

  __device__ void merge(const Moments& b) {
    const float both = count + b.count;
    const float share = both > 0 ? b.count / both : 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float distance = b.mean.at[i] - mean.at[i];
      mean.at[i] += distance * share;
      m2.at[i] += b.m2.at[i] + distance * distance * (count * share);
    }
    count = both;
  }
  /// Two of the channels, from `first` on, become b's; of how many rows, set_rows() says of all.
  __device__ void put(int first, const Moments<2>& b) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      mean.at[first + i] = b.mean.at[i];
      m2.at[first + i] = b.m2.at[i];
    }
  }
  __device__ void set_rows(float rows) { count = rows; }
  __device__ Moments<V / 2> half(bool last) const {
    return {count, half_of(mean, last), half_of(m2, last)};
  }
  __device__ Moments of_lane(int apart) const {
    return {__shfl_xor_sync(0xFFFFFFFF, count, apart), cuda::of_lane(mean, apart),
            cuda::of_lane(m2, apart)};
  }
  /// As those of a tile, to partial [count, mean, m2][tiles][channels].
  __device__ void store(float* partial, unsigned tile, unsigned tiles, int channel,
                        int channels) const {
    const std::int64_t plane = std::int64_t{tiles} * channels;
    Floats<V> counts;
#pragma unroll
    for (int i = 0; i < V; ++i) counts.at[i] = count;
    store_channels(partial, tile, channel, channels, counts);
    store_channels(partial + plane, tile, channel, channels, mean);
    store_channels(partial + 2 * plane, tile, channel, channels, m2);
  }
};

/// Sums of dy and of dy (x - mean), for V channels.
template <int V>
struct GradientSums {
  static constexpr int kColumns = V;
  Floats<V> dy, dy_x;

  static __device__ GradientSums of(float, const Floats<V>& dy, const Floats<V>& dy_x) {
    return {dy, dy_x};
  }
  __device__ float rows() const { return 0; }
  __device__ const Floats<V>& plane(int i) const { return i == 0 ? dy : dy_x; }

  __device__ void merge(const GradientSums& b) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      dy.at[i] += b.dy.at[i];
      dy_x.at[i] += b.dy_x.at[i];
    }
  }
  __device__ void put(int first, const GradientSums<2>& b) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      dy.at[first + i] = b.dy.at[i];
      dy_x.at[first + i] = b.dy_x.at[i];
    }
  }
  __device__ void set_rows(float) {}
  __device__ GradientSums<V / 2> half(bool last) const {
    return {half_of(dy, last), half_of(dy_x, last)};
  }
  __device__ GradientSums of_lane(int apart) const {
    return {cuda::of_lane(dy, apart), cuda::of_lane(dy_x, apart)};
  }
  /// As those of a tile, to partial [dy, dy_x][tiles][channels].
  __device__ void store(float* partial, unsigned tile, unsigned tiles, int channel,
                        int channels) const {
    store_channels(partial, tile, channel, channels, dy);
    store_channels(partial + std::int64_t{tiles} * channels, tile, channel, channels, dy_x);
  }
};

/// Merges what `rows` threads hold of the same channels, as a tree; that of row 0 has the result.
/// All threads of a block call it, those of no such row to keep them company. `column`: what row 0
/// may use of the shared memory; the next row's is `pitch` further.
template <typename T>
__device__ void merge_rows(T& mine, T* column, int row, int rows, int pitch) {
  if (row < rows) column[row * pitch] = mine;
  for (int left = rows; left > 1;) {
    const int half = (left + 1) / 2;
    __syncthreads();
    if (row + half < left) {
      mine.merge(column[(row + half) * pitch]);
      column[row * pitch] = mine;
    }
    left = half;
  }
}

// Merge the tiles, in their order, for each channel. Defined in batch_norm.cu.

/// partial [count, mean, m2][tiles][channels] -> mean, variance [channels].
void merge_moments(const float* partial, unsigned tiles, int channels, float* mean, float* variance,
                   Context&);
/// partial [dy, dy_x][tiles][channels] -> dgamma, dbeta [channels].
void merge_gradient_sums(const float* partial, unsigned tiles, int channels, const float* variance,
                         float epsilon, float* dgamma, float* dbeta, Context&);

inline std::size_t moments_bytes(unsigned tiles, int channels) {
  return 3 * sizeof(float) * std::size_t{tiles} * static_cast<std::size_t>(channels);
}
inline std::size_t gradient_sums_bytes(unsigned tiles, int channels) {
  return 2 * sizeof(float) * std::size_t{tiles} * static_cast<std::size_t>(channels);
}

}  // namespace wrn::cuda
