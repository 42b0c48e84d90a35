// v5: the products by wgmma, fed by the tensor memory accelerator.
//
// A warpgroup's wgmma multiplies tiles that lie in shared memory, 64 rows by N columns, without the
// registers ever seeing an operand; and one thread asks for a whole box of a tensor at a time. So
// nobody computes an address of an element any more, and what is left for the block's threads is to
// say when:
//   - One warpgroup, the producer, asks for boxes; two, the consumers, multiply. Slices of depth 64
//     go around a ring of kStages places in shared memory. A place has two barriers: `full`, when
//     its boxes have come, and `empty`, when the consumers have multiplied them.
//   - Images are cut into blocks of 64 pixels, whole rows. Seen through tap (r, s), the patches of
//     a block are one box of x, a pixel over; what lies outside of the image comes as zeros, which
//     is the padding; stride 2 is the map's step. So the nine taps are nine boxes, and no im2col is
//     left.
//   - The grid is one block an SM, and a block takes tile after tile: while its consumers store
//     one, its producer has begun to load the next.
//
// Images: PixelBlocks below says which sizes. Channels: multiples of 8, as a map's strides are
// multiples of 16 bytes. README.md has pictures.
#pragma once

#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"
#include "kernels/hopper.cuh"
#include "kernels/tensor_map.h"

namespace wrn::cuda::v5 {

constexpr int kDepth = 64, kSteps = 4;  // of a slice; a product is 16 deep
constexpr int kUnit = 64;               // rows of a product: pixels, or of dw a tap's channels
constexpr int kConsumers = 2;
constexpr int kThreads = (1 + kConsumers) * kWarpgroup;
constexpr int kMostParts = 4;

/// What a block of N columns is made of. A consumer has kUnits x N / 2 sums in each thread's
/// registers.
template <int N>
struct Tile {
  static constexpr int kColumns = N;
  static constexpr int kUnits = N > 160 ? 1 : 2;
  static constexpr int kRows = kConsumers * kUnits * kUnit;
  /// As many as there is room for, beside `out` and the barriers, but 4 are enough.
  static constexpr int kStages =
      std::min(4, (227 * 1024 - kConsumers * kUnit * N * 2 - 1024) / ((kRows + N) * kDepth * 2));
  /// The width of boxes along the columns.
  static constexpr int kPanel = N % 64 == 0 ? 64 : N % 32 == 0 ? 32 : 16;
};
template <int N>
using Sums = float[Tile<N>::kUnits][N / 2];

template <int N>
struct alignas(1024) Shared {
  struct Stage {
    unsigned char a[Tile<N>::kRows * kDepth * 2], b[N * kDepth * 2];
  };
  Stage stage[Tile<N>::kStages];
  unsigned char out[kConsumers][kUnit * N * 2];
  Barrier full[Tile<N>::kStages], empty[Tile<N>::kStages];
};

/// A place in the ring, and the parity of the turn around it.
template <int N>
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  __device__ void next() {
    if (++stage < Tile<N>::kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

/// The blocks of 64 pixels that images of p x q are cut into: whole rows, or of rows wider than 64
/// a part. The last block of an image may reach beyond it; small images share a block.
struct PixelBlocks {
  int w, h, n;           // pixels of a block
  Divisor across, down;  // blocks in a row, rows of blocks in an image
  int count;

  static bool can_cut(int p, int q) {
    return q % kUnit == 0 || (kUnit % q == 0 && (p >= kUnit / q || kUnit / q % p == 0));
  }
  explicit PixelBlocks(const ConvShape& s)
      : w(std::min(s.q(), kUnit)),
        h(std::min(s.p(), kUnit / w)),
        n(kUnit / w / h),
        across(s.q() / w),
        down(static_cast<int>(divide_up(s.p(), h))),
        count(static_cast<int>(divide_up(s.n, n)) * down.value() * across.value()) {}

  /// The first pixel of block i: x is its column, y its row, z its image.
  __device__ int3 first(int i) const {
    const int line = across.divide(i), image = down.divide(line);
    return {(i - line * across.value()) * w, (line - image * down.value()) * h, image * n};
  }
};

/// Where in a stage wgmma finds an operand: a descriptor's layout, and in bytes where its step of
/// the slice begins and how far the next 64 rows are.
struct OperandView {
  std::uint64_t layout;
  unsigned step[kSteps], unit;
};
/// Contiguous along the depth: rows of `box` channels, `rows` of them in a box; kDepth / box boxes.
OperandView along_depth(int box, int rows);
/// Contiguous across: boxes of `box` columns, kDepth deep or, with `chunk` < kDepth, that much deep
/// and kDepth / chunk times after each other for a tile of `columns`.
OperandView across_depth(int box, int chunk, int columns);

/// The slices of a tile's depth, and how many of their steps count: in each `period`th only the
/// first `last_steps`, the rest being zeros.
struct Slices {
  int count, period, last_steps;
};

template <int N>
__device__ void init(Shared<N>& shared) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < Tile<N>::kStages; ++i) {
      init_barrier(shared.full[i], 1);
      init_barrier(shared.empty[i], kConsumers * kWarpgroup / 32);
    }
    fence_barrier_init();
  }
  __syncthreads();
}

/// A consumer's part in a tile: its sums become the products of all slices.
template <int N, bool kAcrossA, bool kAcrossB>
__device__ void multiply(Sums<N>& sum, Shared<N>& shared, Turn<N>& turn, const Slices& slices,
                         const OperandView& a, const OperandView& b, int consumer) {
#pragma unroll
  for (int u = 0; u < Tile<N>::kUnits; ++u) {
#pragma unroll
    for (int i = 0; i < N / 2; ++i) sum[u][i] = 0;
  }
  const bool arrives = threadIdx.x % 32 == 0;
  int in_period = 0, before = 0;
  for (int slice = 0; slice < slices.count; ++slice) {
    const int steps = ++in_period == slices.period ? slices.last_steps : kSteps;
    if (in_period == slices.period) in_period = 0;
    auto& stage = shared.stage[turn.stage];
    wait(shared.full[turn.stage], turn.parity);
    const auto multiply_step = [&](int step) {
#pragma unroll
      for (int u = 0; u < Tile<N>::kUnits; ++u) {
        const int unit = consumer * Tile<N>::kUnits + u;
        wgmma<N, kAcrossA, kAcrossB>(sum[u],
                                     operand(a.layout, stage.a, a.step[step] + unit * a.unit),
                                     operand(b.layout, stage.b, b.step[step]), true);
      }
    };
    // One path from fence to group, or ptxas adds a fence: a short slice's steps are multiplied one
    // by one.
    if (steps == kSteps) {
      begin_products(sum);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) multiply_step(step);
      commit_products();
    } else {
      for (int step = 0; step < steps; ++step) {
        begin_products(sum);
        multiply_step(step);
        commit_products();
      }
    }
    // The slice before this one has been multiplied: its place is free.
    wait_for_products<1>(sum);
    if (slice > 0 && arrives) arrive(shared.empty[before]);
    before = turn.stage;
    turn.next();
  }
  wait_for_products<0>(sum);
  if (slices.count > 0 && arrives) arrive(shared.empty[before]);
}

/// Where a thread's sum i of a unit is: y its row, x its column.
__device__ inline int2 place_of_sum(int i) {
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup;
  return {i / 4 * 8 + t % 4 * 2 + i % 2, t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8};
}

/// Calls f with the Tile for a product of `units` x `columns` that takes the least time: in waves
/// of a tile an SM, a tile's time being its products' and that of loading A, which is that of 32
/// columns.
template <typename F>
auto with_tile(std::int64_t units, int columns, int multiprocessors, F f) {
  const auto cost = [&](auto tile) {
    const std::int64_t tiles =
        divide_up(units * kUnit, tile.kRows) * divide_up(columns, tile.kColumns);
    return divide_up(tiles, multiprocessors) * tile.kRows * (tile.kColumns + 32);
  };
  const std::int64_t least =
      std::min({cost(Tile<16>{}), cost(Tile<32>{}), cost(Tile<64>{}), cost(Tile<128>{}),
                cost(Tile<160>{}), cost(Tile<192>{}), cost(Tile<256>{})});
  if (cost(Tile<256>{}) == least) return f(Tile<256>{});
  if (cost(Tile<192>{}) == least) return f(Tile<192>{});
  if (cost(Tile<160>{}) == least) return f(Tile<160>{});
  if (cost(Tile<128>{}) == least) return f(Tile<128>{});
  if (cost(Tile<64>{}) == least) return f(Tile<64>{});
  if (cost(Tile<32>{}) == least) return f(Tile<32>{});
  return f(Tile<16>{});
}

/// The width of boxes along `channels` of a depth.
inline int box_width(int channels) { return channels > 32 ? 64 : channels > 16 ? 32 : 16; }

/// Throws where supports() is false, or a tensor is not aligned.
void check(const ConvShape&, const void* a, const void* b, const void* out, Context&);

/// The map of x or dy [n,h,w,c] in blocks of pixels, `step` pixels apart, `box` channels wide.
void make_image_map(CUtensorMap& map, const bf16* images, int n, int h, int w, int c,
                    const PixelBlocks&, int box, int step);

}  // namespace wrn::cuda::v5
