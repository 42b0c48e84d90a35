// v3: a thread computes 8 x 8 elements of D (8 x 4 in narrow tiles), held in registers.
//
// v2 reads two floats of shared memory for every multiply-add. To keep the arithmetic units busy,
// shared memory would have to deliver eight times what it can. Here a thread reads 8 + 8 floats, in
// four 16-byte accesses, for 64 multiply-adds. Then the rest must keep up, too:
//   - A slice comes from global memory in groups of four floats, 16 bytes an access, along the axis
//     that is contiguous there. In shared memory it lies along m or n, as it is multiplied.
//   - Shared memory has room for two slices: while one is multiplied, the next is on its way into
//     registers, from where it goes to the other place. One barrier a slice is enough.
//
// A block computes 128 x N of D, N = 128, 64, 32 or 16 as fits the columns. A thread's 8 rows are
// two groups of four, half a tile apart, and so are its columns: neighbours in a warp then read
// neighbouring 16 bytes of shared memory. The threads of a warp form 4 x 8 (8 x 4 where a tile is
// only four threads wide), for the fewest different floats to read.
#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"
#include "kernels/sum_parts.h"

namespace wrn::cuda::v3 {
namespace {

constexpr int kRows = 128, kDepth = 8;  // of a slice
constexpr int kThreadRows = 8;

/// What a block of N columns is made of. kBlocksPerSm bounds a thread's registers, to 128 with
/// 128 or 32 columns and to 168 with 64 or 16. kCost: the time of a tile, where that of 128 columns
/// is 128, by the instructions of the main loop (README.md).
template <int N, int kThreadColumns_, int kBlocksPerSm_, int kCost_>
struct TileOf {
  static constexpr int kColumns = N, kThreadColumns = kThreadColumns_;
  static constexpr int kThreads = kRows / kThreadRows * (N / kThreadColumns);
  static constexpr int kBlocksPerSm = kBlocksPerSm_, kCost = kCost_;
};
template <int N>
struct Tile;
template <>
struct Tile<128> : TileOf<128, 8, 2, 128> {};
template <>
struct Tile<64> : TileOf<64, 8, 3, 70> {};
template <>
struct Tile<32> : TileOf<32, 4, 4, 45> {};
template <>
struct Tile<16> : TileOf<16, 4, 6, 28> {};

/// Slices as the multiplication reads them. The padding spreads the four values of a group that is
/// contiguous in depth over the banks: 4 (kRows + 4) is 16 modulo the 32 banks.
template <int kColumns>
struct alignas(16) Slices {
  float a[2][kDepth][kRows + 4];
  float b[2][kDepth][kColumns + 4];
};

/// One thread's part in bringing slices [kExtent, kDepth] of an operand to shared memory.
template <typename Operand, int kExtent, int kThreads, bool kVector>
class Courier {
  static constexpr int kGroups = kExtent * kDepth / 4;  // of four floats
  static constexpr int kEach = (kGroups + kThreads - 1) / kThreads;

 public:
  __device__ Courier(const Operand& operand, int first) : operand_(operand), first_(first) {
    if constexpr (kVector) {
      for (int i = 0; i < kEach; ++i) along_[i] = operand.along(first + group(i).x);
    }
  }
  __device__ void fetch(int depth) {
    for (int i = 0; i < kEach; ++i) {
      if (!has(i)) continue;
      const auto [m, kk] = group(i);
      if constexpr (kVector) {
        const float* address = operand_.at(along_[i], operand_.depth(depth + kk));
        fetched_[i] = address ? *reinterpret_cast<const float4*>(address) : float4{0, 0, 0, 0};
      } else {
        fetched_[i] = {element(m, depth + kk, 0), element(m, depth + kk, 1),
                       element(m, depth + kk, 2), element(m, depth + kk, 3)};
      }
    }
  }
  __device__ void store(float (&slice)[kDepth][kExtent + 4]) const {
    for (int i = 0; i < kEach; ++i) {
      if (!has(i)) continue;
      const auto [m, kk] = group(i);
      if constexpr (Operand::kDepthContiguous) {
        slice[kk][m] = fetched_[i].x;
        slice[kk + 1][m] = fetched_[i].y;
        slice[kk + 2][m] = fetched_[i].z;
        slice[kk + 3][m] = fetched_[i].w;
      } else {
        *reinterpret_cast<float4*>(&slice[kk][m]) = fetched_[i];
      }
    }
  }

 private:
  /// Whether this thread has an i-th group: the narrowest tile has fewer groups than threads.
  __device__ static bool has(int i) {
    return kGroups % kThreads == 0 || static_cast<int>(threadIdx.x) + i * kThreads < kGroups;
  }
  /// Where in the slice this thread's i-th group begins: m or n (x) and kk (y).
  __device__ static int2 group(int i) {
    const int g = static_cast<int>(threadIdx.x) + i * kThreads;
    if (Operand::kDepthContiguous) return {g / (kDepth / 4), g % (kDepth / 4) * 4};
    return {g % (kExtent / 4) * 4, g / (kExtent / 4)};
  }
  __device__ float element(int m, int depth, int j) const {
    return Operand::kDepthContiguous
               ? value(operand_.at(operand_.along(first_ + m), operand_.depth(depth + j)))
               : value(operand_.at(operand_.along(first_ + m + j), operand_.depth(depth)));
  }

  const Operand& operand_;
  int first_;
  Place along_[kEach];
  float4 fetched_[kEach];
};

/// The thread's column and row of groups of four in the block's tile.
template <int N>
__device__ int2 thread_place() {
  constexpr int kAcross = N / Tile<N>::kThreadColumns;  // threads
  constexpr int kWarpAcross = kAcross < 8 ? kAcross : 8;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  constexpr int kWarpsAcross = kAcross / kWarpAcross;
  return {warp % kWarpsAcross * kWarpAcross + lane % kWarpAcross,
          warp / kWarpsAcross * (32 / kWarpAcross) + lane / kWarpAcross};
}

/// Reads kCount floats for number i: groups of four, kStep apart.
template <int kCount, int kStep>
__device__ void read(const float* line, int i, float (&out)[kCount]) {
  for (int g = 0; g < kCount / 4; ++g) {
    const float4 four = *reinterpret_cast<const float4*>(line + g * kStep + i * 4);
    out[g * 4] = four.x;
    out[g * 4 + 1] = four.y;
    out[g * 4 + 2] = four.z;
    out[g * 4 + 3] = four.w;
  }
}

template <typename View, int N, bool kVector>
__global__ void __launch_bounds__(Tile<N>::kThreads, Tile<N>::kBlocksPerSm)
    register_tile_kernel(const View whole) {
  wait_for_previous_kernels();
  constexpr int kThreads = Tile<N>::kThreads, kThreadColumns = Tile<N>::kThreadColumns;
  auto& slices = shared_storage<Slices<N>>();
  const View view = whole.part(static_cast<int>(blockIdx.z));
  const auto [first_m, first_n] = tile_origin(view.columns, kRows, N);
  const auto [x, y] = thread_place<N>();

  Courier<decltype(view.a), kRows, kThreads, kVector> a(view.a, first_m);
  Courier<decltype(view.b), N, kThreads, kVector> b(view.b, first_n);
  float sum[kThreadRows][kThreadColumns] = {};

  int now = 0;
  a.fetch(view.depth_begin);
  b.fetch(view.depth_begin);
  a.store(slices.a[now]);
  b.store(slices.b[now]);
  __syncthreads();
  for (int depth = view.depth_begin; depth < view.depth_end; depth += kDepth) {
    const bool more = depth + kDepth < view.depth_end;
    if (more) {
      a.fetch(depth + kDepth);
      b.fetch(depth + kDepth);
    }
#pragma unroll
    for (int kk = 0; kk < kDepth; ++kk) {
      float row[kThreadRows], column[kThreadColumns];
      read<kThreadRows, kRows / 2>(slices.a[now][kk], y, row);
      read<kThreadColumns, N / 2>(slices.b[now][kk], x, column);
      for (int i = 0; i < kThreadRows; ++i) {
        for (int j = 0; j < kThreadColumns; ++j) sum[i][j] += row[i] * column[j];
      }
    }
    // The other slices were last read before the barrier that ended the last turn.
    now = 1 - now;
    if (more) {
      a.store(slices.a[now]);
      b.store(slices.b[now]);
    }
    __syncthreads();
  }

  for (int i = 0; i < kThreadRows; ++i) {
    float* out = view.row(first_m + i / 4 * (kRows / 2) + y * 4 + i % 4);
    if (!out) continue;
    for (int j = 0; j < kThreadColumns; j += 4) {
      const int n = first_n + j / 4 * (N / 2) + x * 4;
      if constexpr (kVector) {
        if (n < view.columns) {
          *reinterpret_cast<float4*>(out + n) = {sum[i][j], sum[i][j + 1], sum[i][j + 2],
                                                 sum[i][j + 3]};
        }
      } else {
        for (int t = 0; t < 4; ++t) {
          if (n + t < view.columns) out[n + t] = sum[i][j + t];
        }
      }
    }
  }
}

template <int N, typename View>
void run_tile(const View& view, Context& context) {
  const dim3 grid = tile_grid(view, kRows, N);
  if (view.vector) {
    launch(WRN_KERNEL(register_tile_kernel<View, N, true>), grid, Tile<N>::kThreads,
           sizeof(Slices<N>), context, view);
  } else {
    launch(WRN_KERNEL(register_tile_kernel<View, N, false>), grid, Tile<N>::kThreads,
           sizeof(Slices<N>), context, view);
  }
}

template <typename F>
auto with_tile(int columns, F f) {
  return with_cheapest<Tile<128>, Tile<64>, Tile<32>, Tile<16>>(columns, f);
}

template <typename View>
void run(const View& view, Context& context) {
  with_tile(view.columns, [&](auto tile) { run_tile<tile.kColumns>(view, context); });
}

int parts(const ConvShape& shape, Context& context) {
  return with_tile(shape.k, [&](auto tile) {
    return wgrad_parts(shape, kRows, tile.kColumns, tile.kBlocksPerSm, context);
  });
}

}  // namespace

void fprop(const float* x, const float* w, float* y, const ConvShape& shape, Context& context) {
  run(Fprop(x, w, y, shape), context);
}

void dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape, Context& context) {
  run(Dgrad(dy, w, dx, shape), context);
}

void wgrad(const float* x, const float* dy, float* dw, const ConvShape& shape, Context& context) {
  const Wgrad view(x, dy, reinterpret_cast<float*>(context.workspace), shape,
                   parts(shape, context));
  run(view, context);
  sum_parts(view.partial, view.parts, view.rows, view.columns, dw, context);
}

std::size_t wgrad_workspace(const ConvShape& shape, Context& context) {
  return wgrad_partial_bytes(shape, parts(shape, context));
}

}  // namespace wrn::cuda::v3
