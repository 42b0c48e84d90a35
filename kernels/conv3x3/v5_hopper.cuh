// v5: the products by wgmma, fed by the tensor memory accelerator.
//
// wgmma multiplies tiles of 64 rows by N columns for a warpgroup, straight from shared memory: no
// operand passes through registers. And one thread asks for a whole box of a tensor at a time. So
// no addresses of elements are computed any more, and what is left for a block's threads is to say
// when:
//   - One warpgroup, the producer, asks for boxes; two, the consumers, multiply. Slices of depth 64
//     go around two rings of places in shared memory, one for A and one for B. A place has two
//     barriers: `full`, when its boxes have come, and `empty`, when the consumers have multiplied
//     them.
//   - Images are cut into blocks of 64 pixels, whole rows. What a block sees through tap (r, s) is
//     one box of x, shifted by a pixel; what lies outside of the image comes as zeros, which is the
//     padding; with stride 2 it is a box of one of x's four phases. So the nine taps are nine
//     boxes; or three, where taps above each other are multiplied from the lines of one (ARows).
//   - The grid is one block an SM, and a block takes tile after tile: while its consumers store
//     one, its producer has begun to load the next.
//
// Images: PixelBlocks (v5_tiles.h) says which sizes. Channels: multiples of 8, as a map's strides
// are multiples of 16 bytes. README.md has pictures.
#pragma once

#include "kernels/conv3x3/epilogue.cuh"
#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"
#include "kernels/conv3x3/v5_tiles.h"
#include "kernels/hopper.cuh"
#include "kernels/tensor_map.h"

namespace wrn::cuda::v5 {

constexpr int kThreads = (1 + kConsumers) * kWarpgroup;

/// What a block of N columns is made of. A consumer has kUnits x N / 2 sums in each thread's
/// registers.
template <int N>
struct Tile {
  static constexpr int kColumns = N;
  static constexpr int kUnits = units_of_consumer(N), kRows = rows_of_tile(N);
  /// The width of boxes along the columns, and the bytes of one of a unit's rows.
  static constexpr int kPanel = N % 64 == 0 ? 64 : N % 32 == 0 ? 32 : 16, kPanels = N / kPanel;
  static constexpr int kPanelBytes = kPanel * kUnit * 2;
};
template <int N, int kUnits = Tile<N>::kUnits>
using Sums = float[kUnits][N / 2];

/// A consumer's memory for a tile's epilogue: what each of its warps has gathered (two sums of each
/// column, and of how many rows they are) and, through a ReLU, the columns' means and the mask.
template <int N, typename Epilogue>
struct ColumnsOf {};
template <int N>
struct ColumnsOf<N, WithMoments<bf16>> {
  float sum[kWarpgroup / 32][2][N], rows[kWarpgroup / 32];
};
template <int N>
struct ColumnsOf<N, ThroughRelu<bf16>> {
  float sum[kWarpgroup / 32][2][N], mean[N];
  unsigned mask[Tile<N>::kUnits * kUnit][(N + 31) / 32];
};

/// A ring of places in shared memory, as one thread goes around it.
struct Ring {
  unsigned char* first;
  Barrier *full, *empty;  // of the places
  int places, bytes;      // bytes of a place
  int place = 0;
  unsigned parity = 0;  // of the turn

  __device__ unsigned char* at() const { return first + place * bytes; }
  /// For the producer: waits until the place is empty, and returns the barrier that will say when
  /// so many bytes have come.
  __device__ Barrier& claim(int expected) const {
    wait(empty[place], parity ^ 1);
    arrive_expecting(full[place], static_cast<unsigned>(expected));
    return full[place];
  }
  __device__ void next() {
    if (++place < places) return;
    place = 0;
    parity ^= 1;
  }
};

constexpr int kRowBytes = kDepth * 2;  // of a slice
constexpr int kMostPlaces = 4;         // of a ring; more would not help

/// A block's shared memory. With `void` for an epilogue, sums are stored straight from registers.
template <int N, typename Epilogue>
struct alignas(1024) Shared {
  static constexpr bool kStores = !std::is_void_v<Epilogue>;
  using Out = std::conditional_t<kStores, unsigned char[kUnit * N * 2], unsigned char>;
  using Columns = ColumnsOf<N, std::conditional_t<kStores, Epilogue, Plain>>;
  /// Narrow tiles have room for all units of a consumer on their way out, wide ones for one.
  static constexpr int kOuts = kStores && N <= 64 ? Tile<N>::kUnits : 1;
  static constexpr int kPanelsOfOut = kOuts * Tile<N>::kPanels;
  static constexpr int kRoom =
      227 * 1024 - kConsumers * int{kOuts * sizeof(Out) + sizeof(Columns)} - 1024;
  /// A gets room for three flat places or two of the tallest, and more where B leaves some.
  static constexpr int kRows = Tile<N>::kRows, kBytesOfB = N * kRowBytes;
  static constexpr int kPlacesOfB = std::min(
      kMostPlaces, (kRoom - std::max(3 * kRows, 2 * most_a_rows(kRows)) * kRowBytes) / kBytesOfB);
  static constexpr int kRowsOfA = std::min(kMostPlaces * most_a_rows(kRows),
                                           (kRoom - kPlacesOfB * kBytesOfB) / kRowBytes / 8 * 8);

  unsigned char a[kRowsOfA * kRowBytes], b[kPlacesOfB * kBytesOfB];
  Out out[kConsumers][kOuts];
  Columns columns[kConsumers];
  struct Barriers {
    Barrier full[kMostPlaces], empty[kMostPlaces];
  } of_a, of_b;
  Barrier ready[kConsumers][kPanelsOfOut], done[kConsumers][kPanelsOfOut];

  /// The rings; slices of A have up to so many rows.
  __device__ Ring ring_of_a(int rows) {
    const int places = kRowsOfA / rows;
    return {a, of_a.full, of_a.empty, places < kMostPlaces ? places : kMostPlaces,
            rows * kRowBytes};
  }
  __device__ Ring ring_of_b() { return {b, of_b.full, of_b.empty, kPlacesOfB, kBytesOfB}; }
};

/// The first pixel of block i: x is its column, y its row, z its image.
__device__ inline int3 first_pixel(const PixelBlocks& blocks, int i) {
  const int line = blocks.across.divide(i), image = blocks.down.divide(line);
  return {(i - line * blocks.across.value()) * blocks.w,
          (line - image * blocks.down.value()) * blocks.h, image * blocks.n};
}

/// Images as convolutions of a stride see them, 1 or 2: one map for each phase, which are the
/// pixels whose rows and columns have the same parities. With a stride of 1 there is only the
/// first.
struct PhaseMaps {
  CUtensorMap of[4];
  int stride;
};
/// Asks for the box of pixels that those of D from `pixel` on see through a tap `down` and `right`
/// of them.
__device__ inline void load_seen(void* shared, const PhaseMaps& maps, Barrier& full, int channel,
                                 const int3& pixel, int down, int right) {
  const int rest = maps.stride - 1;  // which is how far to shift, as well
  load_box(shared, maps.of[(down & rest) * 2 + (right & rest)], full, channel,
           pixel.x + (right >> rest), pixel.y + (down >> rest), pixel.z);
}

/// Where in a place wgmma finds an operand: the layout for its descriptor, where each step of the
/// slice begins, and how far the next 64 rows are; for tall rows also where those of the first tap
/// begin, and how far the next tap's are. Of A also how far the second consumer's are. All in 16
/// bytes, as descriptors count.
struct OperandView {
  std::uint64_t layout;
  unsigned step[kSteps], unit;
  int first_tap = 0, tap = 0;
  unsigned consumer = 0;
};
/// Contiguous along the depth: rows of `box` channels, `rows` of them in a box; kDepth / box boxes.
OperandView along_depth(int box, int rows);
/// Contiguous across: boxes of `box` columns that are kDepth deep, or, with `chunk` < kDepth,
/// `chunk` deep: all of a tile's `columns`, kDepth / chunk times after each other.
OperandView across_depth(int box, int chunk, int columns);

template <int N, typename Epilogue>
__device__ void init(Shared<N, Epilogue>& shared) {
  if (threadIdx.x == 0) {
    for (auto* ring : {&shared.of_a, &shared.of_b}) {
      for (int i = 0; i < kMostPlaces; ++i) {
        init_barrier(ring->full[i], 1);
        init_barrier(ring->empty[i], kConsumers * kWarpgroup / 32);
      }
    }
    for (int consumer = 0; consumer < kConsumers; ++consumer) {
      for (Barrier& ready : shared.ready[consumer]) init_barrier(ready, 1);
      for (Barrier& done : shared.done[consumer]) init_barrier(done, kWarpgroup / 32);
    }
    fence_barrier_init();
  }
  __syncthreads();
}

template <int kUnits, int kSums>
__device__ void clear(float (&sum)[kUnits][kSums]) {
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) sum[u][i] = 0;
  }
}

/// A consumer's part in a tile: the products of all slices, one or more, are added to its sums.
template <int N, bool kAcrossA, bool kAcrossB, int kUnits>
__device__ void multiply(float (&sum)[kUnits][N / 2], Ring& ring_a, Ring& ring_b,
                         const Slices& slices, const OperandView& a, const OperandView& b,
                         int consumer) {
  const bool arrives = threadIdx.x % 32 == 0;
  int steps = 0, in_period = 0, tap = 0, before_a = 0, before_b = 0;
  const int count = slices.count * slices.taps;
  int slice = 0;
  do {
    if (tap == 0) {
      steps = ++in_period == slices.period ? slices.last_steps : kSteps;
      if (in_period == slices.period) in_period = 0;
      wait(ring_a.full[ring_a.place], ring_a.parity);
    }
    wait(ring_b.full[ring_b.place], ring_b.parity);
    const std::uint64_t rows = operand(a.layout, ring_a.at()),
                        columns = operand(b.layout, ring_b.at());
    const unsigned first = a.first_tap + tap * a.tap + consumer * a.consumer;
    const auto multiply_step = [&](int step) {
#pragma unroll
      for (int u = 0; u < kUnits; ++u) {
        wgmma<N, kAcrossA, kAcrossB>(sum[u], behind(rows, first + u * a.unit + a.step[step]),
                                     behind(columns, b.step[step]), true);
      }
    };
    // ptxas adds fences unless there is only one path from fence to commit. So the steps of a short
    // slice are a batch each.
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
    // The slice before this one has been multiplied. So B's place of it is free, and A's, if this
    // slice has another.
    wait_for_products<1>(sum);
    if (slice > 0 && arrives) {
      arrive(ring_b.empty[before_b]);
      if (tap == 0) arrive(ring_a.empty[before_a]);
    }
    before_b = ring_b.place;
    ring_b.next();
    before_a = ring_a.place;
    if (++tap == slices.taps) {
      tap = 0;
      ring_a.next();
    }
  } while (++slice < count);
  wait_for_products<0>(sum);
  if (!arrives) return;
  arrive(ring_b.empty[before_b]);
  arrive(ring_a.empty[before_a]);
}

/// Where sum i of a unit is that thread t of the warpgroup has: y its row, x its column.
__device__ inline int2 place_of_sum(int t, int i) {
  return {i / 4 * 8 + t % 4 * 2 + i % 2, t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8};
}

/// Calls f with the Tile of so many columns, one of kWidths up to kWidest.
template <int kWidest, std::size_t i = 0, typename F>
void with_tile(int columns, F f) {
  if constexpr (kWidths[i] < kWidest) {
    if (columns != kWidths[i]) return with_tile<kWidest, i + 1>(columns, f);
  }
  f(Tile<kWidths[i]>{});
}

/// Throws where supports() is false, or a tensor is not aligned.
void check(const ConvShape&, const void* a, const void* b, const void* out, Context&);

/// Images of h x w pixels, of which each is every `stride`th of a row, and every `stride`th row.
struct Images {
  const bf16* at;
  int n, h, w, c, stride = 1;
};
/// Those whose row and column, divided by the stride, leave y and x.
inline Images phase_of(const Images& all, int stride, int y, int x) {
  return {all.at + (std::int64_t{y} * all.w + x) * all.c,
          all.n,
          all.h / stride,
          all.w / stride,
          all.c,
          stride};
}
struct BoxOfPixels {
  int n, h, w;
};
inline BoxOfPixels box_of(const PixelBlocks& blocks) { return {blocks.n, blocks.h, blocks.w}; }
/// Their map, in boxes of `box` channels.
void make_image_map(CUtensorMap& map, const Images&, const BoxOfPixels&, int box);
void make_phase_maps(PhaseMaps& maps, const Images& all, int stride, const BoxOfPixels&, int box);

}  // namespace wrn::cuda::v5
