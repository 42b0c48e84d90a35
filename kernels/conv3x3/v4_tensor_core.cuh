// v4: the products on tensor cores, fed by copies that run ahead.
//
// mma multiplies a 16 x 16 tile of A by a 16 x 8 tile of B for a warp (bf16; with tf32 half as
// deep) in one instruction, some fifteen times as fast as v3's multiply-adds. So everything else
// must be rare. Slices go from global to shared memory by cp.async, 16 bytes a copy, not through
// registers, and arrive while earlier slices are multiplied: there is room for kStages slices, of
// which one is multiplied and the others are under way. ldmatrix loads four 8 x 8 matrices into a
// warp's registers, as the fragments that mma reads. It reads eight rows of 16 bytes at a time,
// which must lie in different banks: so slices are swizzled. It can transpose, so that slices lie
// as their tensors do, whichever axis is contiguous.
//
// A block computes 128 x N of D, N = 160, 128, 64, 32 or 16 as fits the columns, a warp 64 or 32
// rows of it. Sums are fp32. They leave through shared memory, so that a row goes to global memory
// in 16-byte pieces. An epilogue (epilogue.h) does more with them there, and sums columns.
//
// Where channel counts are no multiples of 16 bytes, threads build the slices element by element.
// In tf32 the first layer, with its three channels, needs that; nothing large does. (bf16 has
// first_layer.cu.)
#pragma once

#include "kernels/conv3x3/epilogue.cuh"
#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"
#include "kernels/sum_parts.h"
#include "kernels/tensor_core.cuh"

namespace wrn::cuda::v4 {

constexpr int kRows = 128;
constexpr int kDepthBytes = 64;  // of a slice: 32 bf16 or 16 fp32, two mma deep
constexpr int kSteps = 2;
constexpr int kStages = 4;

/// What a block of N columns is made of. kBlocksPerSm bounds a thread's registers. kCost: the time
/// of a tile, that of 128 columns being 128: narrow tiles read A as often for fewer products.
template <int N, int kWarpRows_, int kWarpColumns_, int kBlocksPerSm_, int kCost_>
struct TileOf {
  static constexpr int kColumns = N, kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kThreads = kRows / kWarpRows * (N / kWarpColumns) * 32;
  static constexpr int kBlocksPerSm = kBlocksPerSm_, kCost = kCost_;
};
template <int N>
struct Tile;
template <>
struct Tile<160> : TileOf<160, 64, 40, 1, 164> {};
template <>
struct Tile<128> : TileOf<128, 64, 64, 2, 128> {};
template <>
struct Tile<64> : TileOf<64, 64, 32, 3, 70> {};
template <>
struct Tile<32> : TileOf<32, 32, 32, 4, 40> {};
template <>
struct Tile<16> : TileOf<16, 32, 16, 4, 28> {};

/// A slice of an operand, [kExtent, kDepth], as it lies in shared memory: along the axis that is
/// contiguous in global memory. A line is 128 bytes, which covers all banks once. Reading takes a
/// column of 16-byte groups, eight rows of it at a time, so groups change places within their line:
/// group g of line i lies at g ^ (i % 8). Along m or n a slice is cut into panels, at most a line
/// wide, so that the rows of a column are in lines that follow each other.
template <typename T, bool kDepthContiguous, int kExtent>
struct alignas(128) Slice {
  static constexpr int kDepth = kDepthBytes / sizeof(T), kGroup = 16 / sizeof(T);
  static constexpr int kLine = 128 / sizeof(T);
  static constexpr int kLargestPowerOf2 = kExtent & -kExtent;
  static constexpr int kPanel = kDepthContiguous           ? kDepth
                                : kLargestPowerOf2 < kLine ? kLargestPowerOf2
                                                           : kLine;

  __device__ T* at(int m, int kk) {
    const int row = kDepthContiguous ? m : m / kPanel * kDepth + kk;
    const int column = kDepthContiguous ? kk : m % kPanel;
    const int byte = (row * kPanel + column) * static_cast<int>(sizeof(T));
    // For fp32 across the depth, reading takes two groups of four rows at a time (load_a, load_b).
    constexpr bool kPairs = sizeof(T) == 4 && !kDepthContiguous;
    const int line = byte / 128;
    return reinterpret_cast<T*>(data + (byte ^ (kPairs ? line % 4 * 32 : line % 8 * 16)));
  }
  __device__ const T* at(int m, int kk) const { return const_cast<Slice*>(this)->at(m, kk); }

  unsigned char data[kExtent * kDepthBytes];
};
template <typename Operand, int kExtent>
using SliceOf = Slice<typename Operand::Element, Operand::kDepthContiguous, kExtent>;

/// One thread's part in bringing slices of an operand to shared memory: groups of 16 bytes.
template <typename Operand, int kExtent, int kThreads, bool kVector>
class Courier {
  using T = typename Operand::Element;
  using Target = SliceOf<Operand, kExtent>;
  static constexpr int kAcross = Target::kPanel / Target::kGroup;  // groups in a row
  static constexpr int kGroups = kExtent * kDepthBytes / 16;
  static constexpr int kEach = (kGroups + kThreads - 1) / kThreads;
  /// How many different kk a thread's groups begin at: they take turns.
  static constexpr int kDepths = Operand::kDepthContiguous || Target::kDepth * kAcross <= kThreads
                                     ? 1
                                     : Target::kDepth * kAcross / kThreads;
  static constexpr int kAlongs = (kEach + kDepths - 1) / kDepths;

 public:
  __device__ Courier(const Operand& operand, int first) : operand_(operand), first_(first) {
    if constexpr (kVector) {
#pragma unroll
      for (int i = 0; i < kAlongs; ++i) along_[i] = operand.along(first + group(i * kDepths).x);
    }
  }
  __device__ void fetch(Target& slice, int depth) const {
    if constexpr (kVector) {
      Place place[kDepths];
#pragma unroll
      for (int i = 0; i < kDepths; ++i) place[i] = operand_.depth(depth + group(i).y);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        if (!has(i)) continue;
        const T* from = operand_.at(along_[i / kDepths], place[i % kDepths]);
        const auto [m, kk] = group(i);
        copy_async<16>(slice.at(m, kk), from ? from : operand_.data, from ? 16 : 0);
      }
    } else {
      for (int i = 0; i < kEach; ++i) {
        if (!has(i)) continue;
        const auto [m, kk] = group(i);
        T* to = slice.at(m, kk);
        for (int j = 0; j < Target::kGroup; ++j) to[j] = element(m, depth + kk, j);
      }
    }
  }

 private:
  /// Whether this thread has an i-th group.
  __device__ static bool has(int i) {
    return kGroups % kThreads == 0 || static_cast<int>(threadIdx.x) + i * kThreads < kGroups;
  }
  /// Where in the slice this thread's i-th group begins: m or n (x) and kk (y). Neighbours bring
  /// what is neighbouring in both memories.
  __device__ static int2 group(int i) {
    const int g = static_cast<int>(threadIdx.x) + i * kThreads;
    const int row = g / kAcross, column = g % kAcross * Target::kGroup;
    if (Operand::kDepthContiguous) return {row, column};
    return {row / Target::kDepth * Target::kPanel + column, row % Target::kDepth};
  }
  __device__ T element(int m, int depth, int j) const {
    return Operand::kDepthContiguous
               ? value(operand_.at(operand_.along(first_ + m), operand_.depth(depth + j)))
               : value(operand_.at(operand_.along(first_ + m + j), operand_.depth(depth)));
  }

  const Operand& operand_;
  int first_;
  Place along_[kAlongs];
};

/// tf32 is fp32 rounded: as late as here, so that slices can be copied as they are.
template <typename T>
__device__ void round_fragment(unsigned (&fragment)[4]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int j = 0; j < 4; ++j) fragment[j] = round_to_tf32(fragment[j]);
  }
}

/// The fragments of M tiles of A, from row `first` on, for one step of a slice. fp32 across the
/// depth, which ldmatrix cannot transpose, is read element by element.
template <typename T, bool kDepthContiguous, int kExtent, int M>
__device__ void load_a(const Slice<T, kDepthContiguous, kExtent>& slice, int first, int step,
                       unsigned (&a)[M][4]) {
  constexpr int kGroup = 16 / sizeof(T);
  const int lane = static_cast<int>(threadIdx.x) % 32, kk = step * 2 * kGroup;
#pragma unroll
  for (int i = 0; i < M; ++i) {
    const int m = first + i * 16;
    if constexpr (kDepthContiguous) {
      load_matrices(a[i], slice.at(m + lane % 16, kk + lane / 16 * kGroup));
    } else if constexpr (sizeof(T) == 2) {
      const int matrix = lane / 8;
      load_matrices_transposed(a[i], slice.at(m + matrix % 2 * 8, kk + matrix / 2 * 8 + lane % 8));
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        a[i][j] = __float_as_uint(*slice.at(m + lane / 4 + j % 2 * 8, kk + lane % 4 + j / 2 * 4));
      }
    }
    round_fragment<T>(a[i]);
  }
}

/// The fragments of N tiles of B, from column `first` on, for all steps of a slice: 64 bytes of
/// depth are four matrices, two for each step.
template <typename T, bool kDepthContiguous, int kExtent, int N>
__device__ void load_b(const Slice<T, kDepthContiguous, kExtent>& slice, int first,
                       unsigned (&b)[kSteps][N][2]) {
  constexpr int kGroup = 16 / sizeof(T);
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const int n = first + i * 8;
    unsigned fragment[4];
    if constexpr (kDepthContiguous) {
      load_matrices(fragment, slice.at(n + lane % 8, lane / 8 * kGroup));
    } else if constexpr (sizeof(T) == 2) {
      load_matrices_transposed(fragment, slice.at(n, lane));
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        fragment[j] = __float_as_uint(*slice.at(n + lane / 4, j * 4 + lane % 4));
      }
    }
    round_fragment<T>(fragment);
#pragma unroll
    for (int j = 0; j < 4; ++j) b[j / 2][i][j % 2] = fragment[j];
  }
}

/// A thread's sums: tiles of 16 x 8 as mma leaves them, of its warp's part of the block's tile.
template <int N>
struct Sums {
  static constexpr int kM = Tile<N>::kWarpRows / 16, kN = Tile<N>::kWarpColumns / 8;
  float at[kM][kN][4];
};
/// Where the warp's part begins in the block's tile: row (x) and column (y).
template <int N>
__device__ int2 warp_origin() {
  constexpr int kAcross = N / Tile<N>::kWarpColumns;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  return {warp / kAcross * Tile<N>::kWarpRows, warp % kAcross * Tile<N>::kWarpColumns};
}

template <typename A, typename B, int N>
__device__ void multiply(const SliceOf<A, kRows>& a, const SliceOf<B, N>& b, Sums<N>& sums) {
  const auto [m, n] = warp_origin<N>();
  unsigned columns[kSteps][Sums<N>::kN][2];
  load_b(b, n, columns);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    unsigned rows[Sums<N>::kM][4];
    load_a(a, m, step, rows);
    mma<typename A::Element>(sums.at, rows, columns[step]);
  }
}

/// The block's tile on its way out. With the padding, what a warp writes lies in different banks.
template <int N>
using Output = float[kRows][N + 8];

/// The sums of all the block's threads, where each can read them.
template <int N>
__device__ void share_sums(const Sums<N>& sums, Output<N>& tile) {
  const auto [warp_m, warp_n] = warp_origin<N>();
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < Sums<N>::kM; ++i) {
#pragma unroll
    for (int j = 0; j < Sums<N>::kN; ++j) {
      const auto& sum = sums.at[i][j];
      float* out = &tile[warp_m + i * 16 + lane / 4][warp_n + j * 8 + lane % 4 * 2];
      *reinterpret_cast<float2*>(out) = {sum[0], sum[1]};
      *reinterpret_cast<float2*>(out + 8 * (N + 8)) = {sum[2], sum[3]};
    }
  }
  __syncthreads();
}

/// The sums go to D, in groups of 16 bytes along its rows.
template <int N, bool kVector, typename View>
__device__ void store_tile(const View& view, int first_m, int first_n, const Output<N>& tile) {
  using D = std::remove_pointer_t<decltype(view.row(0))>;
  constexpr int kGroup = 16 / sizeof(D), kAcross = N / kGroup;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kAcross; i += Tile<N>::kThreads) {
    const int m = i / kAcross, n = i % kAcross * kGroup;
    D* row = view.row(first_m + m);
    if (!row || first_n + n >= view.columns) continue;
    store_group<kVector>(row + first_n + n, from_floats<D>(*grouped<kGroup>(&tile[m][n])),
                         view.columns - first_n - n);
  }
}

/// How the threads of a block share the finishing of its tile: each has a group of columns and
/// every kHigh-th row. Threads left over, as with 160 columns of bf16, are idle.
template <typename View, int N, bool kVector, typename Epilogue>
struct Finishing {
  using D = std::remove_pointer_t<decltype(std::declval<View>().out())>;
  static constexpr int kGroup = 16 / sizeof(D), kAcross = N / kGroup;
  static constexpr int kHigh = Tile<N>::kThreads / kAcross;
  using Sums = ColumnSums<Epilogue, kGroup>;
  using Column = Sums[kHigh * kAcross];
};
template <typename View, int N, bool kVector>
struct Finishing<View, N, kVector, Plain> {
  using Column = char[1];
};

/// The sums go to D as the epilogue says, and the sums of columns to `partial`. `column` may be
/// where the tile is.
template <int N, bool kVector, typename View, typename Epilogue>
__device__ void finish_tile(const View& view, const Epilogue& epilogue, int first_m, int first_n,
                            const Output<N>& tile,
                            typename Finishing<View, N, kVector, Epilogue>::Column& column) {
  using By = Finishing<View, N, kVector, Epilogue>;
  constexpr int kGroup = By::kGroup, kAcross = By::kAcross, kHigh = By::kHigh;
  const int group = static_cast<int>(threadIdx.x) % kAcross;
  const int top = static_cast<int>(threadIdx.x) / kAcross;
  const int n = first_n + group * kGroup, there = view.columns - n;
  const Reader<Epilogue, kGroup, kVector> reader(epilogue, n, view.columns, there);
  typename By::Sums gathered{};
  constexpr int kFew = 4;  // rows at a time, so that what is read for them is on its way together
  for (int m = top; top < kHigh && there > 0 && m < kRows; m += kFew * kHigh) {
    int pixel[kFew];
    Beside<typename By::D, kGroup> beside[kFew];
#pragma unroll
    for (int i = 0; i < kFew; ++i) {
      const int row = m + i * kHigh;
      pixel[i] = row < kRows ? view.pixel(first_m + row) : -1;
      if (pixel[i] >= 0) beside[i] = reader.read(pixel[i]);
    }
#pragma unroll
    for (int i = 0; i < kFew; ++i) {
      if (pixel[i] < 0) continue;
      const auto& sum = *grouped<kGroup>(&tile[m + i * kHigh][group * kGroup]);
      const auto stored = finish(epilogue, sum, beside[i]);
      store_group<kVector>(view.out() + std::int64_t{pixel[i]} * view.columns + n, stored, there);
      gathered.merge(sums_of_row(epilogue, stored, beside[i], reader.mean));
    }
  }
  __syncthreads();  // the tile has been read
  merge_rows(gathered, column + group, top, kHigh, kAcross);
  if (top > 0 || there <= 0) return;
  const unsigned tiles_of_part = static_cast<unsigned>((view.rows + kRows - 1) / kRows);
  gathered.store(epilogue.partial,
                 blockIdx.z * tiles_of_part + static_cast<unsigned>(first_m / kRows),
                 gridDim.z * tiles_of_part, n, view.columns);
}

template <typename View, int N>
struct Stage {
  SliceOf<decltype(View::a), kRows> a;
  SliceOf<decltype(View::b), N> b;
};
template <typename View, int N, bool kVector, typename Epilogue>
union Storage {
  Stage<View, N> stages[kStages];
  Output<N> output;
  typename Finishing<View, N, kVector, Epilogue>::Column column;
};

/// Adds the product of a view to the sums of the block's tile. At the end the stages are free.
template <bool kVector, int N, typename View>
__device__ void add_product(const View& view, int first_m, int first_n,
                            Stage<View, N> (&stages)[kStages], Sums<N>& sums) {
  using A = decltype(View::a);
  using B = decltype(View::b);
  constexpr int kDepth = SliceOf<A, kRows>::kDepth;
  const Courier<A, kRows, Tile<N>::kThreads, kVector> a(view.a, first_m);
  const Courier<B, N, Tile<N>::kThreads, kVector> b(view.b, first_n);
  const int slices = (view.depth_end - view.depth_begin + kDepth - 1) / kDepth;
  // A group of copies for every slice, and empty groups after the last, to keep the count.
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      auto& stage = stages[slice % kStages];
      a.fetch(stage.a, view.depth_begin + slice * kDepth);
      b.fetch(stage.b, view.depth_begin + slice * kDepth);
    }
    commit_copies();
  };

  for (int slice = 0; slice < kStages - 1; ++slice) fetch(slice);
  for (int slice = 0; slice < slices; ++slice) {
    // This thread's copies of the slice are there; after the barrier, all threads' are, and nobody
    // reads the slice before any more, whose stage is filled next.
    wait_for_copies<kStages - 2>();
    __syncthreads();
    fetch(slice + kStages - 1);
    const auto& stage = stages[slice % kStages];
    multiply<A, B>(stage.a, stage.b, sums);
  }
  __syncthreads();
}

/// What D is: the product of a view, plus, perhaps, with an epilogue, that of a second view.
template <typename View, typename Epilogue>
struct Products {
  View first, second;
  bool both;
};
template <typename View>
struct Products<View, Plain> {
  View first;
};

template <typename View, int N, bool kVector, typename Epilogue>
__global__ void __launch_bounds__(Tile<N>::kThreads, Tile<N>::kBlocksPerSm)
    tensor_core_kernel(const Products<View, Epilogue> products, const Epilogue epilogue) {
  wait_for_previous_kernels();
  auto& shared = shared_storage<Storage<View, N, kVector, Epilogue>>();
  const int part = static_cast<int>(blockIdx.z);
  const View view = products.first.part(part);
  const auto [first_m, first_n] = tile_origin(view.columns, kRows, N);
  Sums<N> sums = {};
  add_product<kVector>(view, first_m, first_n, shared.stages, sums);
  if constexpr (!std::is_same_v<Epilogue, Plain>) {
    if (products.both) {
      add_product<kVector>(products.second.part(part), first_m, first_n, shared.stages, sums);
    }
  }
  share_sums(sums, shared.output);
  if constexpr (std::is_same_v<Epilogue, Plain>) {
    store_tile<N, kVector>(view, first_m, first_n, shared.output);
  } else {
    finish_tile<N, kVector>(view, epilogue, first_m, first_n, shared.output, shared.column);
  }
}

template <int N, bool kVector, typename View, typename Epilogue>
void run_tile(const Products<View, Epilogue>& products, const Epilogue& epilogue,
              Context& context) {
  using Shared = Storage<View, N, kVector, Epilogue>;
  static_assert(sizeof(Shared) <= 99 * 1024, "sm_86 and sm_89 have no more");
  launch(WRN_KERNEL(tensor_core_kernel<View, N, kVector, Epilogue>),
         tile_grid(products.first, kRows, N), Tile<N>::kThreads, sizeof(Shared), context, products,
         epilogue);
}

/// Calls f with the Tile that takes the least time for so many columns.
template <typename F>
auto with_tile(int columns, F f) {
  return with_cheapest<Tile<160>, Tile<128>, Tile<64>, Tile<32>, Tile<16>>(columns, f);
}

template <typename View, typename Epilogue>
void run_products(const Products<View, Epilogue>& products, bool vector, const Epilogue& epilogue,
                  Context& context) {
  if (!vector) return run_tile<32, false>(products, epilogue, context);
  with_tile(products.first.columns,
            [&](auto tile) { run_tile<tile.kColumns, true>(products, epilogue, context); });
}

template <typename View>
void run(const View& view, Context& context) {
  run_products(Products<View, Plain>{view}, view.vector, Plain{}, context);
}

/// With an epilogue, which reads `beside`.
template <template <typename> typename View, typename T, typename Epilogue>
void run_with(const View<T>& view, const Projection<T>& projection, T* out,
              const Epilogue& epilogue, const T* beside, Context& context) {
  WRN_CHECK(epilogue.partial != nullptr, "sums without a workspace");
  Products<View<T>, Epilogue> products{view, view, false};
  check_aligned(beside);
  bool vector = view.vector;
  if (projection.image) {
    products.second = View<T>(projection.image, projection.w, out, projection.shape);
    products.both = true;
    vector = vector && products.second.vector;
  }
  run_products(products, vector, epilogue, context);
}

inline int parts(const ConvShape& shape, Context& context) {
  return with_tile(shape.k, [&](auto tile) {
    return wgrad_parts(shape, kRows, tile.kColumns, tile.kBlocksPerSm, context);
  });
}

template <typename T>
void run_wgrad(const T* x, const T* dy, float* dw, const ConvShape& shape, Context& context) {
  const Wgrad view(x, dy, reinterpret_cast<float*>(context.workspace), shape,
                   parts(shape, context));
  run(view, context);
  sum_parts(view.partial, view.parts, view.rows, view.columns, dw, context);
}

}  // namespace wrn::cuda::v4
