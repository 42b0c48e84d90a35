// Batch norm, alone or with the ReLU behind it. A row is a pixel of one image, a channel a column:
//
//   mean[c] = sum over rows of x / rows,  variance[c] = sum of (x - mean)^2 / rows
//   y  = (x - mean) gamma r + beta,  r = 1 / sqrt(variance + epsilon);  with ReLU y = max(y, 0)
//   dbeta = sum of dy,  dgamma = sum of dy (x - mean) r
//   dx = gamma r (dy - dbeta / rows - (x - mean) r dgamma / rows)
//
// where with ReLU dy is first set to zero where y was cut. (As mean and variance depend on every x,
// z = (x - mean) r has dz[j] / dx[i] = r ([i = j] - 1 / rows - z[i] z[j] / rows), and dx[i] is the
// sum over j of gamma dy[j] dz[j] / dx[i].) Everything is overwritten, nothing accumulated.
//
// Images are fp32 or bf16; sums, statistics and parameters fp32, and an element is rounded once,
// when it is written. In particular mean and variance are those of what x holds.
//
// Layout and ownership. x is [rows, c]. A thread owns a group of V channels: 16 bytes of them, four
// floats or eight bf16, where c is a multiple of that, else one. A block is `lanes` groups wide, at
// most 128 bytes, so that a warp reads whole cache lines of several rows; each thread keeps a few
// rows in registers, so that their loads overlap. Neighbouring blocks are neighbouring columns of
// the same rows. To sum, a block goes down the rows of its tile. To pass over an image, each block
// has a few rows, and the first blocks have the last rows: the kernel before has written those
// last, so that they may still be in the L2 cache. What this kernel writes last, the first rows, is
// what the next one reads first.
//
// The sums take three launches: every block reduces its tile to one partial result a channel, in
// the workspace [tiles][c][2]; channel_sums.cu merges the tiles; a third one applies the outcome.
// The order of every sum follows from the shape alone, so the results are the same bits on every
// run.
//
// The variance is never E[x^2] - E[x]^2, which cancels where the mean is large. Rows and tiles are
// merged as Moments (channel_sums.cuh), a few at a time: their mean and then the squared distances
// from it.
//
// The mask is one bit an element, [rows][ceil(c / 8)] bytes: set where the ReLU, and the dropout
// behind it, let it pass. A NaN stays a NaN, and its bit is clear, as in relu_backward.
//
// Where the convolutions compute the sums (fused.h), only the third launch is left, forward and
// backward.
#include <algorithm>
#include <bit>

#include "kernels/channel_sums.cuh"
#include "kernels/divisor.h"
#include "kernels/fused.h"

namespace wrn::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kAllLanes = 0xFFFFFFFF;
constexpr int kMaskBits = 8;  // of a byte: the elements that share one
constexpr int kPassRows = 4;

/// How an image is shared out among blocks.
struct Tiling {
  std::int64_t rows;
  std::int64_t tile_rows;  // a multiple of the block's height
  int channels;
  int groups;  // of V channels, in a row
  unsigned lanes;
  unsigned columns;  // blocks next to each other
  unsigned tiles;    // blocks below each other

  dim3 grid() const { return {columns, tiles}; }
  dim3 block() const { return {lanes, kThreads / lanes}; }
  /// The blocks of a pass, kPassRows rows to a thread: columns, next to each other, by rows.
  unsigned pass_blocks() const {
    const std::int64_t blocks = columns * divide_up(rows, std::int64_t{kPassRows} * block().y);
    WRN_CHECK(blocks <= 0x7FFFFFFF, "batch norm of {} rows", rows);
    return static_cast<unsigned>(blocks);
  }
};

Tiling tiling(const ImageShape& s, int width) {
  WRN_CHECK(s.n > 0 && s.h > 0 && s.w > 0 && s.c > 0, "batch norm n={} h={} w={} c={}", s.n, s.h,
            s.w, s.c);
  // About four blocks of 256 threads for each multiprocessor of the large GPUs: one wave.
  constexpr unsigned kBlocks = 512;
  // A thread with fewer rows than this would do little but reduce.
  constexpr unsigned kRowsPerThread = 4;
  Tiling t{};
  t.rows = s.rows();
  t.channels = s.c;
  t.groups = s.c / width;
  t.lanes = std::clamp(std::bit_ceil(static_cast<unsigned>(t.groups)),
                       static_cast<unsigned>(kMaskBits / width), width > 1 ? 8U : 32U);
  t.columns = static_cast<unsigned>(divide_up(t.groups, t.lanes));
  const unsigned height = kThreads / t.lanes;
  const std::int64_t most = divide_up(t.rows, std::int64_t{height} * kRowsPerThread);
  const std::int64_t wanted = std::min<std::int64_t>(std::max(kBlocks / t.columns, 1U), most);
  t.tile_rows = divide_up(divide_up(t.rows, wanted), height) * height;
  t.tiles = static_cast<unsigned>(divide_up(t.rows, t.tile_rows));
  return t;
}

/// How many channels a thread takes: 16 bytes of them, where these make up all.
template <typename Real>
int width_of(const ImageShape& s) {
  return s.c % kWide<Real> == 0 ? kWide<Real> : 1;
}

/// A thread's group of channels, in the `column`th column of blocks.
struct Place {
  int group;
  bool inside;  // false in the lanes past the last group

  __device__ Place(const Tiling& t, unsigned column)
      : group(static_cast<int>(column * blockDim.x + threadIdx.x)), inside(group < t.groups) {}
};

/// The rows of a block's tile, of which a thread has every blockDim.y-th.
struct TileRows {
  std::int64_t begin, end;

  __device__ explicit TileRows(const Tiling& t)
      : begin(blockIdx.y * t.tile_rows),
        end(begin + t.tile_rows < t.rows ? begin + t.tile_rows : t.rows) {}
};

/// A thread's channels and rows in a pass.
struct PassPlace : Place {
  std::int64_t row;  // the first of kPassRows, which are blockDim.y apart
};
/// The blocks begin with the last rows.
__device__ inline PassPlace pass_place(const Tiling& t) {
  const unsigned block = gridDim.x - 1 - blockIdx.x;
  return {Place(t, block % t.columns),
          std::int64_t{block / t.columns} * kPassRows * blockDim.y + threadIdx.y};
}

/// The parameters or statistics of a thread's channels.
template <int V>
__device__ Floats<V> load_channels(const float* p, const Place& at) {
  return at.inside ? grouped<V>(p)[at.group] : Floats<V>{};
}

/// x -> the Moments of its tiles
template <typename Real, int V>
__global__ void batch_norm_statistics_kernel(const Real* x, float* partial, Tiling t) {
  wait_for_previous_kernels();
  constexpr int kRows = 4;
  const Place at(t, blockIdx.x);
  const TileRows rows(t);
  const auto* in = grouped<V>(x);
  Moments<V> mine{};
  for (std::int64_t row = rows.begin + threadIdx.y; at.inside && row < rows.end;
       row += kRows * blockDim.y) {
    Moments<V> few[kRows];
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      const bool there = row + j * blockDim.y < rows.end;
      const Packed v(in + (row + j * blockDim.y) * t.groups + at.group, there);
      few[j] = {there ? 1.0F : 0.0F, v.floats(), {}};
    }
    mine.merge(few);
  }
  merge_column<kThreads>(mine);
  if (threadIdx.y > 0 || !at.inside) return;
  mine.store(partial, blockIdx.y, t.tiles, at.group * V, t.channels);
}

/// One byte of the mask from the 8 / V threads whose elements it has; all of them get it.
template <int V>
__device__ unsigned gather_mask(unsigned bits) {
  bits <<= threadIdx.x * V % kMaskBits;
#pragma unroll
  for (int other = 1; other < kMaskBits / V; other *= 2) {
    bits |= __shfl_xor_sync(kAllLanes, bits, other);
  }
  return bits;
}

template <int V>
__device__ std::int64_t mask_index(std::int64_t row, const Place& at, const Tiling& t) {
  return row * ((t.channels + kMaskBits - 1) / kMaskBits) + std::int64_t{at.group} * V / kMaskBits;
}

/// What follows the batch norm.
enum class Behind { kNothing, kRelu, kReluAndDropout };

/// Dropout behind the ReLU of images of so many pixels.
struct Draws {
  const StepState* state;
  int layer;
  std::uint32_t least;  // least_kept()
  float growth;         // 1 / (1 - p)
  Divisor pixels;

  Draws(const Dropout& dropout = {}, int image_pixels = 1)
      : state(dropout.state),
        layer(dropout.layer),
        least(least_kept(dropout.p)),
        growth(1 / (1 - dropout.p)),
        pixels(image_pixels) {}
};

/// Of the V elements from channel `channel` of a row on, whether dropout keeps them. Every four
/// elements of an image share a draw.
template <int V>
__device__ Group<bool, V> kept(const Draws& draws, std::uint64_t seed, std::uint32_t step,
                               std::int64_t row, int channel, int channels) {
  constexpr int kDraw = 4;
  const int image = draws.pixels.divide(static_cast<int>(row));
  const std::int64_t pixel = row - std::int64_t{image} * draws.pixels.value();
  const std::int64_t element = pixel * channels + channel;
  Group<bool, V> keeps;
#pragma unroll
  for (int i = 0; i < V; i += kDraw) {
    const PhiloxWords random =
        dropout_draw(seed, step, draws.layer, static_cast<std::uint32_t>(image), element + i);
    if constexpr (V == 1) {
      keeps.at[0] = random.word[element % kDraw] >= draws.least;
    } else {
#pragma unroll
      for (int j = 0; j < kDraw; ++j) keeps.at[i + j] = random.word[j] >= draws.least;
    }
  }
  return keeps;
}

/// `mask` is null where nothing will be propagated backwards. Without a bound ptxas takes more
/// registers with dropout than three blocks of a multiprocessor have.
template <typename Real, int V, Behind kBehind>
__global__ void __launch_bounds__(kThreads, 3)
    batch_norm_apply_kernel(const Real* x, const float* gamma, const float* beta, const float* mean,
                            const float* variance, Real* y, std::uint8_t* mask, float epsilon,
                            Draws draws, Tiling t) {
  wait_for_previous_kernels();
  const PassPlace at = pass_place(t);
  const auto* in = grouped<V>(x);
  auto* out = grouped<V>(y);
  Packed<Real, V> v[kPassRows];
#pragma unroll
  for (int j = 0; j < kPassRows; ++j) {
    const std::int64_t r = at.row + j * blockDim.y;
    v[j] = Packed(in + r * t.groups + at.group, at.inside && r < t.rows);
  }
  std::uint64_t seed = 0;
  std::uint32_t step = 0;
  if constexpr (kBehind == Behind::kReluAndDropout) {
    seed = draws.state->seed;
    step = draws.state->step;
  }
  const Floats<V> center = load_channels<V>(mean, at), shift = load_channels<V>(beta, at);
  Floats<V> scale = load_channels<V>(gamma, at);
  const Floats<V> spread = load_channels<V>(variance, at);
#pragma unroll
  for (int i = 0; i < V; ++i) scale.at[i] *= rsqrtf(spread.at[i] + epsilon);
  const float growth = kBehind == Behind::kReluAndDropout ? draws.growth : 1;
#pragma unroll
  for (int j = 0; j < kPassRows; ++j) {
    const std::int64_t r = at.row + j * blockDim.y;
    const bool there = at.inside && r < t.rows;
    [[maybe_unused]] Group<bool, V> keeps;
    if constexpr (kBehind == Behind::kReluAndDropout) {
      keeps = kept<V>(draws, seed, step, r, at.group * V, t.channels);
    }
    unsigned passed = 0;
    Floats<V> values = v[j].floats();
#pragma unroll
    for (int i = 0; i < V; ++i) {
      float value = (values.at[i] - center.at[i]) * scale.at[i] + shift.at[i];
      if constexpr (kBehind != Behind::kNothing) {
        const bool keep = kBehind == Behind::kRelu || keeps.at[i];
        passed |= keep && value > 0 ? 1U << i : 0;
        value = keep && !(value < 0) ? value * growth : 0;
      }
      values.at[i] = value;
    }
    if (there) out[r * t.groups + at.group] = from_floats<Real>(values);
    if (kBehind != Behind::kNothing && mask != nullptr) {
      passed = gather_mask<V>(there ? passed : 0);  // all of a warp
      if (there && threadIdx.x * V % kMaskBits == 0) {
        mask[mask_index<V>(r, at, t)] = static_cast<std::uint8_t>(passed);
      }
    }
  }
}

/// dy of a group of elements, through the ReLU where there was one; zeros if it is not there.
template <bool kRelu, typename Real, int V>
struct Gradient {
  Packed<Real, V> dy;
  unsigned passed;  // a bit an element

  Gradient() = default;
  __device__ Gradient(const Real* d, const std::uint8_t* mask, std::int64_t row, bool there,
                      const Place& at, const Tiling& t)
      : dy(grouped<V>(d) + row * t.groups + at.group, there), passed(0) {
    if (kRelu && there) {
      passed = mask[mask_index<V>(row, at, t)] >> (threadIdx.x * V % kMaskBits);
    }
  }
  __device__ Floats<V> floats() const {
    Floats<V> v = dy.floats();
#pragma unroll
    for (int i = 0; i < V; ++i) v.at[i] = !kRelu || (passed >> i & 1) != 0 ? v.at[i] : 0;
    return v;
  }
};

/// x, dy -> partial [tiles][c][dy, dy_x]
template <typename Real, int V, bool kRelu>
__global__ void batch_norm_sums_kernel(const Real* x, const Real* dy, const float* mean,
                                       const std::uint8_t* mask, float* partial, Tiling t) {
  wait_for_previous_kernels();
  constexpr int kRows = 2;
  const Place at(t, blockIdx.x);
  const TileRows rows(t);
  const auto* in = grouped<V>(x);
  const Floats<V> center = load_channels<V>(mean, at);
  GradientSums<V> mine{};
  for (std::int64_t row = rows.begin + threadIdx.y; at.inside && row < rows.end;
       row += kRows * blockDim.y) {
    Packed<Real, V> v[kRows];
    Gradient<kRelu, Real, V> d[kRows];
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      const std::int64_t r = row + j * blockDim.y;
      v[j] = Packed(in + r * t.groups + at.group, r < rows.end);
      d[j] = {dy, mask, r, r < rows.end, at, t};
    }
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
      const Floats<V> of_y = d[j].floats(), of_x = v[j].floats();
#pragma unroll
      for (int i = 0; i < V; ++i) {
        mine.dy.at[i] += of_y.at[i];
        mine.dy_x.at[i] += of_y.at[i] * (of_x.at[i] - center.at[i]);
      }
    }
  }
  merge_column<kThreads>(mine);
  if (threadIdx.y > 0 || !at.inside) return;
  mine.store(partial, blockIdx.y, t.tiles, at.group * V, t.channels);
}

template <typename Real, int V, bool kRelu>
__global__ void batch_norm_dx_kernel(const Real* x, const Real* dy, const float* gamma,
                                     const float* mean, const float* variance,
                                     const std::uint8_t* mask, const float* dgamma,
                                     const float* dbeta, const Real* skip, Real* dx, float epsilon,
                                     float share, Tiling t) {
  wait_for_previous_kernels();
  const PassPlace at = pass_place(t);
  const auto* in = grouped<V>(x);
  const auto* past = grouped<V>(skip);
  auto* out = grouped<V>(dx);
  if (!at.inside) return;
  Packed<Real, V> v[kPassRows], s[kPassRows];
  Gradient<kRelu, Real, V> d[kPassRows];
#pragma unroll
  for (int j = 0; j < kPassRows; ++j) {
    const std::int64_t r = at.row + j * blockDim.y;
    const bool there = r < t.rows, skips = there && skip != nullptr;
    v[j] = Packed(in + r * t.groups + at.group, there);
    s[j] = Packed(skips ? past + r * t.groups + at.group : past, skips);
    d[j] = {dy, mask, r, there, at, t};
  }
  const Floats<V> center = load_channels<V>(mean, at), spread = load_channels<V>(variance, at);
  Floats<V> scale = load_channels<V>(gamma, at);   // gamma r
  Floats<V> offset = load_channels<V>(dbeta, at);  // dbeta / rows
  Floats<V> slope = load_channels<V>(dgamma, at);  // r dgamma / rows
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const float r = rsqrtf(spread.at[i] + epsilon);
    scale.at[i] *= r;
    offset.at[i] *= share;
    slope.at[i] *= r * share;
  }
#pragma unroll
  for (int j = 0; j < kPassRows; ++j) {
    const std::int64_t r = at.row + j * blockDim.y;
    Floats<V> values = d[j].floats();
    const Floats<V> of_x = v[j].floats(), of_skip = s[j].floats();  // zeros if there is none
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float distance = of_x.at[i] - center.at[i];
      values.at[i] =
          scale.at[i] * (values.at[i] - offset.at[i] - distance * slope.at[i]) + of_skip.at[i];
    }
    if (r < t.rows) out[r * t.groups + at.group] = from_floats<Real>(values);
  }
}

// The launches, for V channels a thread.

template <int V, typename Real>
void apply(Behind behind, const Draws& draws, const Real* x, const float* gamma, const float* beta,
           const float* mean, const float* variance, Real* y, std::uint8_t* mask, const Tiling& t,
           float epsilon, Context& context) {
  const auto kernel = behind == Behind::kNothing
                          ? WRN_KERNEL(batch_norm_apply_kernel<Real, V, Behind::kNothing>)
                      : behind == Behind::kRelu
                          ? WRN_KERNEL(batch_norm_apply_kernel<Real, V, Behind::kRelu>)
                          : WRN_KERNEL(batch_norm_apply_kernel<Real, V, Behind::kReluAndDropout>);
  launch(kernel, t.pass_blocks(), t.block(), 0, context, x, gamma, beta, mean, variance, y, mask,
         epsilon, draws, t);
}
Behind behind(bool relu) { return relu ? Behind::kRelu : Behind::kNothing; }

template <int V, typename Real>
void forward(const Real* x, const float* gamma, const float* beta, Real* y, float* mean,
             float* variance, std::uint8_t* mask, const ImageShape& shape, float epsilon, bool relu,
             Context& context) {
  const Tiling t = tiling(shape, V);
  float* partial = reinterpret_cast<float*>(context.workspace);
  launch(WRN_KERNEL(batch_norm_statistics_kernel<Real, V>), t.grid(), t.block(),
         sizeof(Column<Moments<V>, kThreads>), context, x, partial, t);
  merge_moments(partial, t.tiles, shape.c, mean, variance, context);
  apply<V>(behind(relu), {}, x, gamma, beta, mean, variance, y, mask, t, epsilon, context);
}

template <int V, bool kRelu, typename Real>
void dx_of(const Real* x, const Real* dy, const float* gamma, const float* mean,
           const float* variance, const std::uint8_t* mask, const float* dgamma, const float* dbeta,
           const Real* skip, Real* dx, const Tiling& t, float epsilon, Context& context) {
  launch(WRN_KERNEL(batch_norm_dx_kernel<Real, V, kRelu>), t.pass_blocks(), t.block(), 0, context,
         x, dy, gamma, mean, variance, mask, dgamma, dbeta, skip, dx, epsilon,
         1 / static_cast<float>(t.rows), t);
}

template <int V, bool kRelu, typename Real>
void backward(const Real* x, const Real* dy, const float* gamma, const float* mean,
              const float* variance, const std::uint8_t* mask, Real* dx, float* dgamma,
              float* dbeta, const ImageShape& shape, float epsilon, Context& context) {
  const Tiling t = tiling(shape, V);
  float* partial = reinterpret_cast<float*>(context.workspace);
  launch(WRN_KERNEL(batch_norm_sums_kernel<Real, V, kRelu>), t.grid(), t.block(),
         sizeof(Column<GradientSums<V>, kThreads>), context, x, dy, mean, mask, partial, t);
  merge_gradient_sums(partial, t.tiles, shape.c, variance, epsilon, dgamma, dbeta, context);
  dx_of<V, kRelu, Real>(x, dy, gamma, mean, variance, mask, dgamma, dbeta, nullptr, dx, t, epsilon,
                        context);
}

/// The most tiles, of whichever type the images are.
unsigned most_tiles(const ImageShape& shape) {
  unsigned tiles = 0;
  for (const int width : {1, kWide<float>, kWide<bf16>}) {
    if (shape.c % width == 0) tiles = std::max(tiles, tiling(shape, width).tiles);
  }
  return tiles;
}

}  // namespace

template <typename Real>
void batch_norm_forward(const Real* x, const float* gamma, const float* beta, Real* y, float* mean,
                        float* variance, std::uint8_t* mask, const ImageShape& shape, float epsilon,
                        bool relu, Context& context) {
  WRN_CHECK(epsilon > 0, "batch norm with epsilon {}", epsilon);
  WRN_CHECK(!relu || mask != nullptr, "batch norm with a ReLU and no mask");
  check_aligned(x, gamma, beta, y, mean, variance);
  const auto run = width_of<Real>(shape) > 1 ? forward<kWide<Real>, Real> : forward<1, Real>;
  run(x, gamma, beta, y, mean, variance, mask, shape, epsilon, relu, context);
}

template <typename Real>
void batch_norm_inference(const Real* x, const float* gamma, const float* beta, const float* mean,
                          const float* variance, Real* y, const ImageShape& shape, float epsilon,
                          bool relu, Context& context) {
  WRN_CHECK(epsilon > 0, "batch norm with epsilon {}", epsilon);
  check_aligned(x, gamma, beta, mean, variance, y);
  const int width = width_of<Real>(shape);
  const auto run = width > 1 ? apply<kWide<Real>, Real> : apply<1, Real>;
  run(behind(relu), {}, x, gamma, beta, mean, variance, y, nullptr, tiling(shape, width), epsilon,
      context);
}

template <typename Real>
void batch_norm_backward(const Real* x, const Real* dy, const float* gamma, const float* mean,
                         const float* variance, const std::uint8_t* mask, Real* dx, float* dgamma,
                         float* dbeta, const ImageShape& shape, float epsilon, bool relu,
                         Context& context) {
  WRN_CHECK(epsilon > 0, "batch norm with epsilon {}", epsilon);
  WRN_CHECK(!relu || mask != nullptr, "batch norm with a ReLU and no mask");
  constexpr int kV = kWide<Real>;
  check_aligned(x, dy, gamma, mean, variance, dx, dgamma, dbeta);
  const auto run = width_of<Real>(shape) > 1
                       ? (relu ? backward<kV, true, Real> : backward<kV, false, Real>)
                       : (relu ? backward<1, true, Real> : backward<1, false, Real>);
  run(x, dy, gamma, mean, variance, mask, dx, dgamma, dbeta, shape, epsilon, context);
}

template <typename Real>
void batch_norm_activation(const Real* x, const float* gamma, const float* beta, const float* mean,
                           const float* variance, Real* y, std::uint8_t* mask,
                           const ImageShape& shape, float epsilon, const Dropout& dropout,
                           Context& context) {
  WRN_CHECK(epsilon > 0, "batch norm with epsilon {}", epsilon);
  WRN_CHECK(mask != nullptr, "an activation without a mask");
  WRN_CHECK(dropout.p >= 0 && dropout.p < 1 && (dropout.p == 0 || dropout.state != nullptr),
            "dropout with p = {}", dropout.p);
  const std::int64_t pixels = std::int64_t{shape.h} * shape.w;
  WRN_CHECK(shape.rows() <= 0x7FFFFFFF && pixels * shape.c <= std::int64_t{4} << 32,
            "an activation of {} pixels, {} elements an image", shape.rows(), pixels * shape.c);
  check_aligned(x, gamma, beta, mean, variance, y);
  const int width = width_of<Real>(shape);
  const auto run = width > 1 ? apply<kWide<Real>, Real> : apply<1, Real>;
  run(dropout.p > 0 ? Behind::kReluAndDropout : Behind::kRelu, {dropout, static_cast<int>(pixels)},
      x, gamma, beta, mean, variance, y, mask, tiling(shape, width), epsilon, context);
}

template <typename Real>
void batch_norm_dx(const Real* x, const Real* d, const float* gamma, const float* mean,
                   const float* variance, const float* dgamma, const float* dbeta, const Real* skip,
                   Real* dx, const ImageShape& shape, float epsilon, Context& context) {
  WRN_CHECK(epsilon > 0, "batch norm with epsilon {}", epsilon);
  check_aligned(x, d, gamma, mean, variance, dgamma, dbeta, skip, dx);
  const int width = width_of<Real>(shape);
  const auto run = width > 1 ? dx_of<kWide<Real>, false, Real> : dx_of<1, false, Real>;
  run(x, d, gamma, mean, variance, nullptr, dgamma, dbeta, skip, dx, tiling(shape, width), epsilon,
      context);
}

#define WRN_FOR(Real)                                                                              \
  template void batch_norm_forward(const Real*, const float*, const float*, Real*, float*, float*, \
                                   std::uint8_t*, const ImageShape&, float, bool, Context&);       \
  template void batch_norm_inference(const Real*, const float*, const float*, const float*,        \
                                     const float*, Real*, const ImageShape&, float, bool,          \
                                     Context&);                                                    \
  template void batch_norm_backward(const Real*, const Real*, const float*, const float*,          \
                                    const float*, const std::uint8_t*, Real*, float*, float*,      \
                                    const ImageShape&, float, bool, Context&);                     \
  template void batch_norm_activation(const Real*, const float*, const float*, const float*,       \
                                      const float*, Real*, std::uint8_t*, const ImageShape&,       \
                                      float, const Dropout&, Context&);                            \
  template void batch_norm_dx(const Real*, const Real*, const float*, const float*, const float*,  \
                              const float*, const float*, const Real*, Real*, const ImageShape&,   \
                              float, Context&);
WRN_FOR(float)
WRN_FOR(bf16)

std::size_t batch_norm_mask_bytes(const ImageShape& shape, Context&) {
  return static_cast<std::size_t>(shape.rows() * divide_up(shape.c, kMaskBits));
}

std::size_t batch_norm_forward_workspace(const ImageShape& shape, float, bool, Context&) {
  return moments_bytes(most_tiles(shape), shape.c);
}

std::size_t batch_norm_inference_workspace(const ImageShape&, float, bool, Context&) { return 0; }

std::size_t batch_norm_backward_workspace(const ImageShape& shape, float, bool, Context&) {
  return gradient_sums_bytes(most_tiles(shape), shape.c);
}

}  // namespace wrn::cuda
