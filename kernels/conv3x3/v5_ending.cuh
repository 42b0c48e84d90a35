// The end of a tile of v5's fprop and dgrad: how sums go from registers to D, through an epilogue
// (epilogue.h). An epilogue reads an image of D's shape. It comes in boxes as D leaves, a panel of
// 64 rows and at most 64 columns after the other, to the place in shared memory where D's elements
// will be. There each thread finds the elements that belong to its sums, and leaves what is to be
// stored. For each consumer, one thread of the producer's warpgroup, its courier, carries the
// panels: as soon as one has been stored, it asks for the same panel of the next unit's image.
#pragma once

#include "kernels/conv3x3/v5_load.cuh"

namespace wrn::cuda::v5 {

/// What an epilogue reads in boxes, or null.
inline __host__ __device__ const bf16* beside_of(const Plain&) { return nullptr; }
inline __host__ __device__ const bf16* beside_of(const WithMoments<bf16>& e) { return e.addend; }
inline __host__ __device__ const bf16* beside_of(const ThroughRelu<bf16>& e) { return e.x; }

using Pair = Group<bf16, 2>;

/// Two neighbouring elements of it in the epilogue's form, with the mask's bits from theirs on.
inline __device__ Beside<bf16, 2> make_beside(const WithMoments<bf16>&, const Pair& boxed,
                                              unsigned) {
  return {boxed, {}, 0};
}
inline __device__ Beside<bf16, 2> make_beside(const ThroughRelu<bf16>&, const Pair& boxed,
                                              unsigned passed) {
  return {{}, boxed, passed};
}

/// What an epilogue gathers of V columns over the rows of a tile: the sums of d, which is what is
/// stored, and of d f, where f is d itself or, through a ReLU, batch norm's input x. These are sums
/// about zero, not about the mean: two instructions an element, and merging is adding. For bf16
/// that is exact enough. Squares of 8 bits have 16, so that squares of numbers within one power of
/// two add up in fp32 without rounding over 256 rows, and a thread gathers no more (kMostGathered);
/// and numbers that differ by more have a variance that is no small part of the sum. Either way
/// moments_of() finds the variance. Where a consumer has gathered more than 256 rows, merging its
/// threads rounds a few times: a variance is then off by some 2^-24 of the mean's square, while x
/// itself was rounded by 2^-9 of its mean. (Adding on would round each time, and over a thousand
/// rows that can be all of a small variance.) The sum of d x is off by some 2^-24 of mean(x)
/// sum |d|.
template <int V>
struct TwoSums {
  Floats<V> d, d_f;

  __device__ void merge(const TwoSums& b) {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      d.at[i] += b.d.at[i];
      d_f.at[i] += b.d_f.at[i];
    }
  }
  /// Of half of the columns, the first or the last.
  __device__ TwoSums<V / 2> half(bool last) const {
    TwoSums<V / 2> half;
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      half.d.at[i] = last ? d.at[V / 2 + i] : d.at[i];
      half.d_f.at[i] = last ? d_f.at[V / 2 + i] : d_f.at[i];
    }
    return half;
  }
  /// Those of the lane `apart` from this one, all of the warp's lanes calling.
  __device__ TwoSums of_lane(int apart) const {
    TwoSums other;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      other.d.at[i] = __shfl_xor_sync(0xFFFFFFFF, d.at[i], apart);
      other.d_f.at[i] = __shfl_xor_sync(0xFFFFFFFF, d_f.at[i], apart);
    }
    return other;
  }
};

/// Merges what the eight lanes of a warp that have the same columns hold, by exchanging halves,
/// quarters and eighths: lane bits 4, 3 and 2 say with which part of them each is left. Of four
/// columns bit 2 says nothing, and both lanes have the result.
template <int kApart = 16, int V>
__device__ auto merge_lanes(const TwoSums<V>& mine) {
  if constexpr (kApart < 4) {
    return mine;
  } else if constexpr (V > 1) {
    const bool last = (threadIdx.x & kApart) != 0;
    TwoSums<V / 2> half = mine.half(last);
    half.merge(mine.half(!last).of_lane(kApart));
    return merge_lanes<kApart / 2>(half);
  } else {
    TwoSums<V> both = mine;
    both.merge(mine.of_lane(kApart));
    return merge_lanes<kApart / 2>(both);
  }
}

/// As an epilogue's sums of a column are stored: about the mean of its `rows` rows, or x about its
/// mean. A mean that had to be rounded is not quite d's: the rest of d, times the mean, is taken
/// off as well.
inline __device__ Moments<1> moments_of(const TwoSums<1>& sums, float rows) {
  const float d = sums.d.at[0], mean = rows > 0 ? d / rows : 0;
  const float m2 = fmaf(-mean, fmaf(-mean, rows, d), fmaf(-mean, d, sums.d_f.at[0]));
  return {rows, {mean}, {m2 < 0 ? 0 : m2}};
}
inline __device__ GradientSums<1> gradient_sums_of(const TwoSums<1>& sums, float mean) {
  return {sums.d, {fmaf(-mean, sums.d.at[0], sums.d_f.at[0])}};
}

/// A pixel of D, given by its block's first and its number in the block; -1 outside.
__device__ inline int out_pixel(const Gather& g, const Part& part, const int3& first, int row) {
  const int line = g.blocks.by_w.divide(row), image = g.blocks.by_h.divide(line);
  const int x = (first.x + row - line * g.blocks.w) * g.out_step + part.out_x;
  const int y = (first.y + line - image * g.blocks.h) * g.out_step + part.out_y;
  const int n = first.z + image;
  return x < g.w && y < g.h && n < g.n ? (n * g.h + y) * g.w + x : -1;
}

/// Unit number i of those that a consumer has of the block's tiles.
struct UnitPlace {
  bool exists;
  int part, column;  // of D the first
  int block;
};
template <int N>
__device__ UnitPlace unit_place(const Gather& g, int consumer, int i) {
  constexpr int kUnits = Tile<N>::kUnits;
  const int tile = static_cast<int>(blockIdx.x + i / kUnits * gridDim.x);
  const TilePlace place = tile_place(g, tile);
  return {tile < g.tiles, place.part, place.column * N,
          (place.row * kConsumers + consumer) * kUnits + i % kUnits};
}

/// The courier's thread, for one consumer, whose units take turns in the places of `out`. `ready`
/// says that a panel there is the consumer's, with what is beside its unit in it if there is
/// something; `done`, that it is to be stored.
template <int N, typename Epilogue>
__device__ void carry_panels(const Gather& g, const Epilogue& epilogue, Shared<N, Epilogue>& shared,
                             int consumer) {
  constexpr int kPanel = Tile<N>::kPanel, kPanelBytes = Tile<N>::kPanelBytes;
  constexpr int kOuts = Shared<N, Epilogue>::kOuts, kPanels = Tile<N>::kPanels;
  const auto panel_of = [&](int i, int p) {
    return shared.out[consumer][i % kOuts] + p * kPanelBytes;
  };
  const auto hand_over = [&](int i, const UnitPlace& unit, int p) {
    Barrier& ready = shared.ready[consumer][i % kOuts * kPanels + p];
    const bool comes = beside_of(epilogue) != nullptr;  // zeros where it has no such pixels
    arrive_expecting(ready, comes ? kPanelBytes : 0);
    if (!comes) return;
    const int3 pixel = first_pixel(g.blocks, unit.block);
    load_box(panel_of(i, p), g.part[unit.part].beside, ready, unit.column + p * kPanel, pixel.x,
             pixel.y, pixel.z);
  };
#pragma unroll 1
  for (int i = 0; i < kOuts; ++i) {  // a tile has that many units, and a block has a tile
    for (int p = 0; p < kPanels; ++p) hand_over(i, unit_place<N>(g, consumer, i), p);
  }
#pragma unroll 1
  for (int i = 0;; ++i) {
    const UnitPlace unit = unit_place<N>(g, consumer, i);
    if (!unit.exists) break;
    const UnitPlace next = unit_place<N>(g, consumer, i + kOuts);
#pragma unroll 1
    for (int p = 0; p < kPanels; ++p) {
      wait(shared.done[consumer][i % kOuts * kPanels + p], static_cast<unsigned>(i / kOuts) % 2);
      if (unit.block < g.blocks.count && unit.column + p * kPanel < g.columns) {
        const int3 pixel = first_pixel(g.blocks, unit.block);
        store_box(g.part[unit.part].out, panel_of(i, p), unit.column + p * kPanel, pixel.x, pixel.y,
                  pixel.z);
        commit_stores();
      }
      if (!next.exists) continue;
      wait_for_stores<0>();
      hand_over(i + kOuts, next, p);
    }
  }
  wait_for_stores<0>();
}

/// One consumer's end of a tile: the one place that sees finished sums.
template <int N, typename Epilogue>
class Ending {
  static constexpr int kPanel = Tile<N>::kPanel, kPanelBytes = Tile<N>::kPanelBytes;
  static constexpr int kOuts = Shared<N, Epilogue>::kOuts;
  static constexpr bool kPlain = std::is_same_v<Epilogue, Plain>;
  static constexpr bool kThroughRelu = std::is_same_v<Epilogue, ThroughRelu<bf16>>;
  /// A thread's two columns of each eight.
  struct Gathered {
    TwoSums<N / 4> sums;
    float rows;
  };
  static constexpr bool kStays = !kPlain && gathered_stays(N);

 public:
  __device__ Ending(const Gather& g, const Epilogue& epilogue, Shared<N, Epilogue>& shared,
                    int consumer)
      : g_(g), epilogue_(epilogue), shared_(shared), consumer_(consumer) {}

  /// Before a tile's products, which will be added to `sum`.
  __device__ void begin(Sums<N>& sum, const TilePlace& place) {
    if constexpr (kThroughRelu) fetch_columns(place);
    clear(sum);
  }

  /// The sums, finished and as bf16, go by way of shared memory to the tensor.
  /// `tiles_before` this one, of the block.
  __device__ void store(Sums<N>& sum, const TilePlace& place, int tiles_before) {
    if (!kStays) gathered_ = {};
    if constexpr (kThroughRelu) {
      wait_for_copies<0>();
      named_barrier(1 + consumer_, kWarpgroup);  // they are there
    }
#pragma unroll
    for (int u = 0; u < Tile<N>::kUnits; ++u) {
      const int turn = (tiles_before * Tile<N>::kUnits + u) / kOuts;
      // For each of the thread's two rows all bits, or none if it is outside. Through a ReLU the
      // mask is clear there anyway.
      unsigned inside[2] = {~0U, ~0U};
      if constexpr (!kPlain && !kThroughRelu) {
        if (!is_whole(place, u)) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int row = u * kUnit + place_of_sum(thread_of_warpgroup(), half * 2).y;
            if (pixel_of(place, row) < 0) inside[half] = 0;
          }
        }
        gathered_.rows += static_cast<float>((inside[0] & 1) + (inside[1] & 1));
      }
#pragma unroll
      for (int p = 0; p < Tile<N>::kPanels; ++p) {
        const int panel = u % kOuts * Tile<N>::kPanels + p;
        wait(shared_.ready[consumer_][panel], static_cast<unsigned>(turn) % 2);
        if constexpr (kPlain) {
          store_panel(sum[u], u, p);
        } else {
          finish_panel(sum[u], u, p, inside);
        }
        fence_async_proxy();
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive(shared_.done[consumer_][panel]);
      }
    }
    if constexpr (kStays) {
      const bool same_columns = g_.columns <= N && g_.parts == 1;
      const bool last = static_cast<int>(blockIdx.x + (tiles_before + 1) * gridDim.x) >= g_.tiles;
      const bool full = (tiles_before + 1) % kMostGathered == 0;
      if (same_columns && !last && !full) return store_none(place);
    }
    if constexpr (!kPlain) store_sums(place);
    if constexpr (kStays) gathered_ = {};
  }

 private:
  /// Where in `out` sums i and i + 1 of unit u of the thread belong. A row's 16-byte groups change
  /// places as its number says, or some of its bits, which are the same in all the thread's rows.
  __device__ void* in_out(int u, int t, int i) const {
    constexpr int kLine = kPanel * 2, kGroups = kLine / 16;  // bytes, and groups, of a row
    const int row = place_of_sum(t, i).y, j = i / 4;
    const int key = t % 32 / 4 * kLine / 128 % kGroups;
    return shared_.out[consumer_][u % kOuts] + j / kGroups * kPanelBytes + row * kLine +
           (j % kGroups ^ key) * 16 + t % 4 * 4;
  }

  /// Which block of pixels the consumer's unit u of a tile is.
  __device__ int block_of(const TilePlace& place, int u) const {
    return (place.row * kConsumers + consumer_) * Tile<N>::kUnits + u;
  }
  /// Whether D has all pixels of the unit, as is so for most units. Only for a D of one part.
  __device__ bool is_whole(const TilePlace& place, int u) const {
    const int3 first = first_pixel(g_.blocks, block_of(place, u));
    return first.y + g_.blocks.h <= g_.h && first.z + g_.blocks.n <= g_.n;
  }
  /// Where in D row `row` of the consumer's part of a tile is; -1 outside.
  __device__ int pixel_of(const TilePlace& place, int row) const {
    const int block = block_of(place, row / kUnit);
    return block < g_.blocks.count
               ? out_pixel(g_, g_.part[place.part], first_pixel(g_.blocks, block), row % kUnit)
               : -1;
  }

  /// Begins to bring the means and the mask's bits; zeros for what is outside.
  __device__ void fetch_columns(const TilePlace& place) const {
    auto& columns = shared_.columns[consumer_];
    const int thread = thread_of_warpgroup(), first = place.column * N;
    for (int c = thread; c < N; c += kWarpgroup) {
      const bool there = first + c < g_.columns;
      copy_async<4>(&columns.mean[c], epilogue_.mean + (there ? first + c : 0), there ? 4 : 0);
    }
    if (thread < Tile<N>::kUnits * kUnit) {
      const int pixel = pixel_of(place, thread);
      const std::uint8_t* from = epilogue_.mask + (std::int64_t{pixel} * g_.columns + first) / 8;
      const int bytes = pixel >= 0 ? (g_.columns - first) / 8 : 0;
      unsigned* to = columns.mask[thread];
      if (N % 32 == 0 && g_.columns % 32 == 0) {
        for (int i = 0; i < N / 32; ++i) {
          const bool there = i * 4 < bytes;
          copy_async<4>(to + i, there ? from + i * 4 : epilogue_.mask, there ? 4 : 0);
        }
      } else {
        for (int i = 0; i < N / 8; ++i) {
          if (i % 4 == 0) to[i / 4] = 0;
          if (i < bytes) to[i / 4] |= unsigned{from[i]} << i % 4 * 8;
        }
      }
    }
    commit_copies();
  }

  __device__ void store_panel(const float (&sum)[N / 2], int u, int p) {
    const int t = thread_of_warpgroup();
#pragma unroll
    for (int pair = 0; pair < kPanel / 4; ++pair) {
      const int i = p * kPanel / 2 + 2 * pair;
      const Pair stored = from_floats<bf16>(Floats<2>{sum[i], sum[i + 1]});
      store_shared(in_out(u, t, i), __builtin_bit_cast(unsigned, stored));
    }
  }

  /// The thread's two rows of a unit, column by column, so that sums that have been stored leave
  /// their registers to what is gathered of them. None are to spare for what ptxas would read early
  /// from global memory; but reads of shared memory cannot overtake stores there.
  __device__ void finish_panel(const float (&sum)[N / 2], int u, int p,
                               const unsigned (&inside)[2]) {
    const int t = thread_of_warpgroup();
    unsigned mask[2] = {};
#pragma unroll
    for (int eight = 0; eight < kPanel / 8; ++eight) {
      const int j = p * kPanel / 8 + eight;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = j * 4 + half * 2, row = u * kUnit + place_of_sum(t, i).y;
        if constexpr (kThroughRelu) {
          if (eight % 4 == 0) mask[half] = shared_.columns[consumer_].mask[row][j / 4] >> t % 4 * 2;
        }
        const unsigned boxed = beside_of(epilogue_) ? load_shared(in_out(u, t, i)) : 0;
        const auto beside =
            make_beside(epilogue_, __builtin_bit_cast(Pair, boxed), mask[half] >> j % 4 * 8);
        const Pair finished = finish(epilogue_, Floats<2>{sum[i], sum[i + 1]}, beside);
        const unsigned stored = __builtin_bit_cast(unsigned, finished) & inside[half];
        store_shared(in_out(u, t, i), stored);
        const Floats<2> d = to_floats(__builtin_bit_cast(Pair, stored)),
                        f = kThroughRelu ? to_floats(beside.x) : d;
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          gathered_.sums.d.at[2 * j + k] += d.at[k];
          gathered_.sums.d_f.at[2 * j + k] += d.at[k] * f.at[k];
        }
      }
    }
  }

  /// Where in Columns::sum a column's are: such that those of a warp's lanes, N / 8 columns apart,
  /// are in different banks. (160 columns are, as they stand.)
  static __device__ int place_of_column(int column) {
    if constexpr (N == 192) return column ^ column / 96;
    if constexpr ((N & (N - 1)) != 0) return column;
    const int line = column / 32;
    return column ^ (line % 2 | line / 2 % 2 * 8 | line / 4 * 16);
  }

  using Finished = std::conditional_t<kThroughRelu, GradientSums<1>, Moments<1>>;
  /// A column's sums, to the place of the consumer's rows of a tile.
  __device__ void store_column(const Finished& sums, const TilePlace& place, int c) const {
    const int tile = (place.part * g_.row_tiles + place.row) * kConsumers + consumer_;
    sums.store(epilogue_.partial, static_cast<unsigned>(tile),
               static_cast<unsigned>(g_.parts * g_.row_tiles * kConsumers), place.column * N + c,
               g_.columns);
  }
  /// Of a tile whose sums a later one will store with its own.
  __device__ void store_none(const TilePlace& place) const {
    for (int c = thread_of_warpgroup(); c < N; c += kWarpgroup) store_column({}, place, c);
    if (kThroughRelu) named_barrier(1 + consumer_, kWarpgroup);  // all have read means and mask
  }
  /// What the consumer's threads have gathered.
  __device__ void store_sums(const TilePlace& place) {
    auto& columns = shared_.columns[consumer_];
    const int thread = thread_of_warpgroup(), warp = thread / 32;
    const auto sums = merge_lanes(gathered_.sums);
    if constexpr (!kThroughRelu) {
      float rows = gathered_.rows;
      for (const int apart : {16, 8, 4}) rows += __shfl_xor_sync(0xFFFFFFFF, rows, apart);
      if (thread % 32 == 0) columns.rows[warp] = rows;
    }
    constexpr int kLeft = N < 32 ? 1 : N / 32;  // of the thread's columns
    const int part = N < 32 ? thread / 16 % 2 * 2 + thread / 8 % 2
                            : thread / 16 % 2 * 4 + thread / 8 % 2 * 2 + thread / 4 % 2;
    if (N >= 32 || thread / 4 % 2 == 0) {
#pragma unroll
      for (int k = 0; k < kLeft; ++k) {
        const int i = part * kLeft + k, at = place_of_column(i / 2 * 8 + thread % 4 * 2 + i % 2);
        columns.sum[warp][0][at] = sums.d.at[k];
        columns.sum[warp][1][at] = sums.d_f.at[k];
      }
    }
    named_barrier(1 + consumer_, kWarpgroup);
    for (int c = thread; c < N; c += kWarpgroup) {
      TwoSums<1> sums_of_column{};
      for (const auto& of_warp : columns.sum) {
        const int at = place_of_column(c);
        sums_of_column.merge({{of_warp[0][at]}, {of_warp[1][at]}});
      }
      const auto finished = [&]() -> Finished {
        if constexpr (kThroughRelu) {
          return gradient_sums_of(sums_of_column, columns.mean[c]);
        } else {
          float rows = 0;
          for (const float of_warp : columns.rows) rows += of_warp;
          return moments_of(sums_of_column, rows);
        }
      };
      store_column(finished(), place, c);
    }
    named_barrier(1 + consumer_, kWarpgroup);  // before the next tile's
  }

  const Gather& g_;
  const Epilogue& epilogue_;
  Shared<N, Epilogue>& shared_;
  int consumer_;
  Gathered gathered_{};
};

}  // namespace wrn::cuda::v5
