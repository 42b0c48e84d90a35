// Batch norm's sums over the rows of an image, for each of its channels, and plain sums: within a
// thread, over the threads of a block, and over blocks. They are always merged in an order that
// follows from the shape alone, so the results are the same bits on every run.
#pragma once

#include "kernels/channel_sums.h"
#include "kernels/device.cuh"

namespace wrn::cuda {

/// Writes two numbers for each of V channels from `channel` on, but those past the last, to row
/// `tile` of [tiles][channels][2].
template <int V>
__device__ void store_pairs(float* partial, unsigned tile, int channel, int channels,
                            const Floats<V>& a, const Floats<V>& b) {
  Floats<2>* const row = grouped<2>(partial) + std::int64_t{tile} * channels;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    if (channel + i < channels) row[channel + i] = {a.at[i], b.at[i]};
  }
}
/// Reads those of a channel; tiles x channels are at most 2^31.
inline __device__ Floats<2> load_pair(const float* partial, unsigned tile, int channel,
                                      int channels) {
  return grouped<2>(partial)[tile * static_cast<unsigned>(channels) + channel];
}

/// (count, mean, sum of squared distances from the mean) of some rows, for V channels. Merged by
/// the formula of Chan, Golub and LeVeque ("Updating Formulae and a Pairwise Algorithm for
/// Computing Sample Variances", 1979), which does not cancel where the mean is large.
template <int V>
struct Moments {
  float count;
  Floats<V> mean, m2;

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
  /// Several at once, with one division: the mean of all, then the squared distances from it.
  template <int N>
  __device__ void merge(const Moments (&few)[N]) {
    float all = count;
#pragma unroll
    for (int j = 0; j < N; ++j) all += few[j].count;
    const float share = all > 0 ? 1 / all : 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < N; ++j) sum += few[j].count * (few[j].mean.at[i] - mean.at[i]);
      const float moved = sum * share;
      mean.at[i] += moved;
      m2.at[i] += count * moved * moved;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float distance = few[j].mean.at[i] - mean.at[i];
        m2.at[i] += few[j].m2.at[i] + few[j].count * distance * distance;
      }
    }
    count = all;
  }
  /// As those of a tile, to partial; the count once, with channel 0.
  __device__ void store(float* partial, unsigned tile, unsigned tiles, int channel,
                        int channels) const {
    store_pairs(partial, tile, channel, channels, mean, m2);
    if (channel == 0) partial[2 * std::int64_t{tiles} * channels + tile] = count;
  }
  static __device__ Moments<1> load(const float* partial, unsigned tile, unsigned tiles,
                                    int channel, int channels) {
    const Floats<2> pair = load_pair(partial, tile, channel, channels);
    return {partial[2 * std::int64_t{tiles} * channels + tile], {pair.at[0]}, {pair.at[1]}};
  }
};

/// Sums of dy and of dy (x - mean), for V channels.
template <int V>
struct GradientSums {
  Floats<V> dy, dy_x;

  __device__ void merge(const GradientSums& b) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      dy.at[i] += b.dy.at[i];
      dy_x.at[i] += b.dy_x.at[i];
    }
  }
  template <int N>
  __device__ void merge(const GradientSums (&few)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) merge(few[j]);
  }
  /// As those of a tile, to partial.
  __device__ void store(float* partial, unsigned tile, unsigned, int channel, int channels) const {
    store_pairs(partial, tile, channel, channels, dy, dy_x);
  }
  static __device__ GradientSums<1> load(const float* partial, unsigned tile, unsigned, int channel,
                                         int channels) {
    const Floats<2> pair = load_pair(partial, tile, channel, channels);
    return {{pair.at[0]}, {pair.at[1]}};
  }
};

/// Sums of V channels or elements, and nothing else.
template <int V>
struct PlainSums {
  Floats<V> sum;

  __device__ void add(const Floats<V>& more) {
#pragma unroll
    for (int i = 0; i < V; ++i) sum.at[i] += more.at[i];
  }
  __device__ void merge(const PlainSums& b) { add(b.sum); }
};

/// Merges what `rows` threads hold of the same channels, as a tree; the thread of row 0 gets the
/// result. All threads of a block must call it, also those with row >= rows, because of its
/// barriers. `column`: row 0's place in shared memory; each next row's is `pitch` further.
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

/// What the threads of a block hold, [blockDim.y][blockDim.x], of which there are at most kMost.
template <typename T, unsigned kMost>
struct Column {
  T at[kMost];
};

/// merge_rows of what the threads above each other hold; those with y = 0 have the result. The
/// dynamic shared memory is a Column.
template <unsigned kMost, typename T>
__device__ void merge_column(T& mine) {
  merge_rows(mine, shared_storage<Column<T, kMost>>().at + threadIdx.x,
             static_cast<int>(threadIdx.y), static_cast<int>(blockDim.y),
             static_cast<int>(blockDim.x));
}

}  // namespace wrn::cuda
