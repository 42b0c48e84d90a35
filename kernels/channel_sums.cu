// The sums over the tiles of an image are merged into a batch norm's statistics or the gradients of
// its parameters; and the running statistics follow the batch's.
#include <algorithm>

#include "kernels/channel_sums.cuh"

namespace wrn::cuda {
namespace {

// The merging kernels do little but wait for memory, so they have many loads under way: a block has
// four channels, whose sums of a tile are one sector of memory, and a row of threads for every
// eight tiles, all of which a thread loads before it merges them. More than 1024 tiles take several
// rounds. What the rows then hold is merged eight at a time, too. The launch bound is one block a
// multiprocessor, because with fewer registers ptxas would let loads wait for each other.
constexpr unsigned kMergeLanes = 4, kFew = 8, kMostMergeRows = 2 * kFew * kFew;
constexpr unsigned kMergeThreads = kMergeLanes * kMostMergeRows;
dim3 merge_grid(unsigned tiles, int channels) {
  WRN_CHECK(std::int64_t{tiles} * channels <= 0x7FFFFFFF, "{} tiles of {} channels", tiles,
            channels);
  return {static_cast<unsigned>(divide_up(channels, kMergeLanes))};
}
dim3 merge_block(unsigned tiles) {
  return {kMergeLanes, std::min<unsigned>(divide_up(tiles, kFew), kMostMergeRows)};
}

/// Merges the sums of `left` rows of threads into those of the first kRows, which are left then; at
/// most kFew rows into one.
template <unsigned kRows, typename Sums>
__device__ void merge_into(Sums& mine, unsigned& left) {
  Sums* const column =
      shared_storage<Column<Sums, kMergeThreads>>().at + threadIdx.y * kMergeLanes + threadIdx.x;
  const unsigned rows = left;
  left = kRows;
  if (threadIdx.y < rows) *column = mine;
  __syncthreads();
  if (threadIdx.y >= kRows) return;
  Sums few[kFew - 1];
#pragma unroll
  for (unsigned j = 1; j < kFew; ++j) {
    few[j - 1] = threadIdx.y + j * kRows < rows ? column[j * kRows * kMergeLanes] : Sums{};
  }
  mine.merge(few);
}

/// The sums of all tiles; the threads with y = 0 have them.
template <typename Sums>
__device__ Sums merge_tiles(const float* partial, unsigned tiles, int channel, int channels) {
  Sums mine{};
  for (unsigned tile = threadIdx.y; channel < channels && tile < tiles; tile += kFew * blockDim.y) {
    Sums few[kFew];
#pragma unroll
    for (unsigned j = 0; j < kFew; ++j) {
      const unsigned at = tile + j * blockDim.y;
      few[j] = at < tiles ? Sums::load(partial, at, tiles, channel, channels) : Sums{};
    }
    mine.merge(few);
  }
  unsigned left = blockDim.y;
  if (left > kFew * kFew) merge_into<2 * kFew>(mine, left);
  if (left > kFew) merge_into<kFew>(mine, left);
  if (left > 1) merge_into<1>(mine, left);
  return mine;
}

__global__ void __launch_bounds__(kMergeThreads, 1)
    merge_moments_kernel(const float* partial, unsigned tiles, int channels, float* mean,
                         float* variance) {
  wait_for_previous_kernels();
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const auto all = merge_tiles<Moments<1>>(partial, tiles, c, channels);
  if (threadIdx.y > 0 || c >= channels) return;
  mean[c] = all.mean.at[0];
  variance[c] = all.m2.at[0] / all.count;
}

__global__ void __launch_bounds__(kMergeThreads, 1)
    merge_gradient_sums_kernel(const float* partial, unsigned tiles, int channels,
                               const float* variance, float epsilon, float* dgamma, float* dbeta) {
  wait_for_previous_kernels();
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const float spread = c < channels ? variance[c] : 0;  // on its way with the tiles
  const auto all = merge_tiles<GradientSums<1>>(partial, tiles, c, channels);
  if (threadIdx.y > 0 || c >= channels) return;
  dbeta[c] = all.dy.at[0];
  dgamma[c] = all.dy_x.at[0] * rsqrtf(spread + epsilon);
}

/// As many norms as fit into the 4 KB of a kernel's parameters, beside a pointer.
struct Norms {
  static constexpr int kMost = 63;
  struct Norm {
    RunningStatistics statistics;
    float unbiased;  // rows / (rows - 1)
  };
  Norm at[kMost];
};
static_assert(sizeof(Norms) + sizeof(Metrics*) <= 4096);

/// A row of blocks for each norm.
__global__ void update_running_statistics_kernel(const __grid_constant__ Norms norms,
                                                 const Metrics* metrics) {
  wait_for_previous_kernels();
  const auto& [norm, unbiased] = norms.at[blockIdx.y];
  const auto c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (c >= norm.channels || (metrics != nullptr && metrics->not_finite > 0)) return;
  float &mean = norm.running_mean[c], &variance = norm.running_variance[c];
  mean += norm.momentum * (norm.mean[c] - mean);
  variance += norm.momentum * (norm.variance[c] * unbiased - variance);
}

}  // namespace

void merge_moments(const float* partial, unsigned tiles, int channels, float* mean, float* variance,
                   Context& context) {
  launch(WRN_KERNEL(merge_moments_kernel), merge_grid(tiles, channels), merge_block(tiles),
         sizeof(Column<Moments<1>, kMergeThreads>), context, partial, tiles, channels, mean,
         variance);
}

void merge_gradient_sums(const float* partial, unsigned tiles, int channels, const float* variance,
                         float epsilon, float* dgamma, float* dbeta, Context& context) {
  launch(WRN_KERNEL(merge_gradient_sums_kernel), merge_grid(tiles, channels), merge_block(tiles),
         sizeof(Column<GradientSums<1>, kMergeThreads>), context, partial, tiles, channels,
         variance, epsilon, dgamma, dbeta);
}

void update_running_statistics(const std::vector<RunningStatistics>& norms, const Metrics* metrics,
                               Context& context) {
  constexpr unsigned kThreads = 256;
  for (std::size_t first = 0; first < norms.size(); first += Norms::kMost) {
    Norms some{};
    const std::size_t count = std::min<std::size_t>(Norms::kMost, norms.size() - first);
    int channels = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const RunningStatistics& norm = norms[first + i];
      WRN_CHECK(norm.rows > 1, "the variance of one value");
      const auto rows = static_cast<double>(norm.rows);
      some.at[i] = {norm, static_cast<float>(rows / (rows - 1))};
      channels = std::max(channels, norm.channels);
    }
    const dim3 grid{static_cast<unsigned>(divide_up(channels, kThreads)),
                    static_cast<unsigned>(count)};
    launch(WRN_KERNEL(update_running_statistics_kernel), grid, kThreads, 0, context, some, metrics);
  }
}

}  // namespace wrn::cuda
