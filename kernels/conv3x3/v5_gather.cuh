// v5's fprop and dgrad: D[pixels, columns] gathers patches of images, seen through taps, and
// multiplies them by filters. The depth is taps x channels, in chunks of one tap's 64, 32 or 16
// channels; a slice is 64 deep. A projection (fused.h) is a second convolution of the same D:
// the depth goes on in its images and filters. Where A's rows are tall (v5_tiles.h), taps above
// each other share a slice of A: a third of the boxes, and of the L2's work half.
//
// An epilogue (epilogue.h) reads an image like D beside the sums. It comes as D leaves, in boxes,
// and to where D's elements will be in shared memory: each thread finds there what stands beside
// its sums, and leaves what is to be stored. The first 64 rows of it are on their way while the
// tile is being multiplied.
#pragma once

#include "kernels/conv3x3/v5_hopper.cuh"

namespace wrn::cuda::v5 {

constexpr int kMostParts = 4;
constexpr int kMostSources = 2;

/// A convolution that D sums: its images, filters and shape.
using Convolution = Projection<bf16>;
/// As the kernel knows it.
struct Source {
  CUtensorMap images, filters;
  OperandView a, b;
  int channels, box;              // of the images
  bool tall;                      // a box of them is a slice of A, else each unit's is one
  int a_bytes;                    // of a slice of A
  int step, direction;            // image pixel = pixel step + first + direction tap
  int filter_down, filter_right;  // from tap (i, j) to (i + 1, j) and to (i, j + 1), in filter taps
};

/// The taps of a source that a part of D meets; none are no slices.
struct Taps {
  int taps_h, taps_w;  // tap (i, j) is seen `direction` (i, j) from (first_h, first_w)
  int first_h, first_w;
  int filter_tap;  // which of the filter's r x r taps is (0, 0)
  Slices slices{};
};

/// One dense product. fprop is one; dgrad is one for each phase of the stride (README.md).
struct Part {
  CUtensorMap out, beside;
  int out_y = 0, out_x = 0;  // D's first pixel
  Taps of[kMostSources];
};

struct Gather {
  PixelBlocks blocks;
  int columns;
  int n, h, w, out_step;  // D, and from one pixel of a part to the next
  int row_tiles, column_tiles, parts = 0, sources = 0;
  int a_rows = 0;  // the most of a slice
  Part part[kMostParts];
  Source source[kMostSources];

  explicit Gather(const ConvShape& s) : blocks(s) {}
  __device__ int tiles() const { return parts * row_tiles * column_tiles; }
};

/// Which tile number i is. Tiles of the same pixels are neighbours, and run at the same time: the
/// L2 cache reads those once.
struct TilePlace {
  int part, row, column;
};
__device__ inline TilePlace tile_place(const Gather& g, int i) {
  const int line = i / g.column_tiles;
  return {line / g.row_tiles, line % g.row_tiles, i % g.column_tiles};
}

/// A tap, number (i, j) of those of a part, and a channel: where a box's depth begins. Behind the
/// last tap come zeros.
struct Position {
  int i = 0, j = 0, channel = 0;

  __device__ int channel_in(const Source& source, const Taps& taps) const {
    return i < taps.taps_h ? channel : source.channels;
  }
  __device__ void next(const Source& source, const Taps& taps) {
    channel += source.box;
    if (channel < source.channels) return;
    channel = 0;
    if (++j < taps.taps_w) return;
    j = 0;
    i += taps.slices.taps;
  }
};

/// Asks for the boxes of all slices of a source, for a tile of the pixels from blocks `first` on
/// and of the columns from `column` on.
template <int N, bool kAcrossB>
__device__ void load_slices(const Gather& g, const Source& source, const Taps& taps, int first,
                            int column, Ring& a, Ring& b) {
  constexpr int kRows = Tile<N>::kRows, kPanel = Tile<N>::kPanel;
  const int boxes = source.tall ? 1 : kRows / kUnit;
  Position at;
  for (int slice = 0; slice < taps.slices.count; ++slice) {
    Barrier& full_a = a.claim(source.a_bytes);
    Position chunk = at;
    for (int deep = 0; deep < kDepth; deep += source.box) {
      // Of a tall box the first line, which is the last tap's where taps go up.
      const int i = source.direction < 0 ? chunk.i + taps.slices.taps - 1 : chunk.i;
      for (int u = 0; u < boxes; ++u) {
        const int3 pixel = first_pixel(g.blocks, first + u);
        load_box(a.at() + (deep * kRows + source.box * kUnit * u) * 2, source.images, full_a,
                 chunk.channel_in(source, taps),
                 pixel.x * source.step + taps.first_w + source.direction * chunk.j,
                 pixel.y * source.step + taps.first_h + source.direction * i, pixel.z);
      }
      chunk.next(source, taps);
    }
    a.next();
    for (int down = 0; down < taps.slices.taps; ++down) {
      Barrier& full_b = b.claim(b.bytes);
      chunk = at;
      for (int deep = 0; deep < kDepth; deep += source.box) {
        const int c = chunk.channel_in(source, taps);
        const int tap =
            taps.filter_tap + (chunk.i + down) * source.filter_down + chunk.j * source.filter_right;
        if constexpr (kAcrossB) {
          for (int p = 0; p < N; p += kPanel) {
            load_box(b.at() + (deep * N + p * source.box) * 2, source.filters, full_b, column + p,
                     tap, c);
          }
        } else {
          load_box(b.at() + deep * N * 2, source.filters, full_b, c, tap, column);
        }
        chunk.next(source, taps);
      }
      b.next();
    }
    at = chunk;
  }
}

/// The producer's thread: asks for the boxes of all slices of all tiles of the block.
template <int N, bool kAcrossB>
__device__ void load_tiles(const Gather& g, Ring a, Ring b) {
  for (int tile = static_cast<int>(blockIdx.x); tile < g.tiles(); tile += gridDim.x) {
    const TilePlace place = tile_place(g, tile);
    for (int i = 0; i < g.sources; ++i) {
      load_slices<N, kAcrossB>(g, g.source[i], g.part[place.part].of[i],
                               place.row * (Tile<N>::kRows / kUnit), place.column * N, a, b);
    }
  }
}

/// What an epilogue reads in boxes, or null.
inline __host__ __device__ const bf16* beside_of(const Plain&) { return nullptr; }
inline __host__ __device__ const bf16* beside_of(const WithMoments<bf16>& e) { return e.addend; }
inline __host__ __device__ const bf16* beside_of(const ThroughRelu<bf16>& e) { return e.x; }

using Pair = Group<bf16, 2>;

/// Two neighbouring elements of it as the epilogue wants them, with the mask's bits from theirs on.
inline __device__ Beside<bf16, 2> make_beside(const WithMoments<bf16>&, const Pair& boxed,
                                              unsigned) {
  return {boxed, {}, 0};
}
inline __device__ Beside<bf16, 2> make_beside(const ThroughRelu<bf16>&, const Pair& boxed,
                                              unsigned passed) {
  return {{}, boxed, passed};
}

/// What an epilogue gathers of V columns over the rows of a tile: the sums of d, which is what is
/// stored, and of d f, where f is d itself or, through a ReLU, batch norm's input x. That is, sums
/// about zero, not about the mean, at two instructions an element, and merging is adding. They may
/// be, as these are bf16: squares of 8 bits have 16, so that those of numbers of one power of two,
/// of as many rows as a tile has, add up in fp32 without rounding; and numbers that differ more
/// than that have a variance that is no small part of the sum. So nothing is lost that
/// finish_sums() has to find. The sum of d x is off by some 2^-24 of mean(x) sum |d|; x itself is,
/// by 2^-9 of its mean.
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

/// As an epilogue's sums are stored: those of `rows` rows of a column about their mean, or of x
/// about its mean. The rounding of the former is put right: it need not be a multiple of what d is.
inline __device__ Moments<1> finish_sums(const WithMoments<bf16>&, const TwoSums<1>& sums,
                                         float rows, float) {
  const float d = sums.d.at[0], mean = rows > 0 ? d / rows : 0;
  const float m2 = fmaf(-mean, fmaf(-mean, rows, d), fmaf(-mean, d, sums.d_f.at[0]));
  return {rows, {mean}, {m2 > 0 ? m2 : 0}};
}
inline __device__ GradientSums<1> finish_sums(const ThroughRelu<bf16>&, const TwoSums<1>& sums,
                                              float, float mean) {
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

/// One consumer's end of a tile: the one place that sees finished sums.
template <int N, typename Epilogue>
class Ending {
  static constexpr int kPanel = Tile<N>::kPanel, kPanelBytes = kPanel * kUnit * 2;
  static constexpr bool kPlain = std::is_same_v<Epilogue, Plain>;
  /// A thread's two columns of each eight.
  struct Gathered {
    TwoSums<N / 4> sums;
    float rows;
  };
  static constexpr bool kThroughRelu = std::is_same_v<Epilogue, ThroughRelu<bf16>>;

 public:
  __device__ Ending(const Gather& g, const Epilogue& epilogue, Shared<N, Epilogue>& shared,
                    int consumer)
      : g_(g), epilogue_(epilogue), shared_(shared), consumer_(consumer) {}

  /// Before a tile's products, which will be added to `sum`.
  __device__ void begin(Sums<N>& sum, const TilePlace& place) {
    if (beside_of(epilogue_)) claim_out(place, 0);
    if constexpr (kThroughRelu) fetch_columns(place);
    clear<N>(sum);
  }

  /// The sums, finished and as bf16, go by way of shared memory to the tensor.
  /// `tiles_before` this one, of the block.
  __device__ void store(Sums<N>& sum, const TilePlace& place, int tiles_before) {
    unsigned char* out = shared_.out[consumer_];
    Gathered gathered{};
    if constexpr (kThroughRelu) {
      wait_for_copies<0>();
      named_barrier(1 + consumer_, kWarpgroup);  // they are there
    }
#pragma unroll
    for (int u = 0; u < Tile<N>::kUnits; ++u) {
      if (u > 0 || !beside_of(epilogue_)) claim_out(place, u);
      wait(shared_.ready[consumer_], static_cast<unsigned>(tiles_before * Tile<N>::kUnits + u) % 2);
      if constexpr (kPlain) {
        const int t = thread_of_warpgroup();
#pragma unroll
        for (int i = 0; i < N / 2; i += 2) {
          const Pair stored = from_floats<bf16>(Floats<2>{sum[u][i], sum[u][i + 1]});
          store_shared(in_out(t, i), __builtin_bit_cast(unsigned, stored));
        }
      } else {
        finish_unit(sum[u], u, place, gathered);
      }
      fence_async_proxy();
      named_barrier(1 + consumer_, kWarpgroup);
      const int block = block_of(place, u);
      if (!issues() || block >= g_.blocks.count) continue;
      const int3 pixel = first_pixel(g_.blocks, block);
      for (int p = 0; p < panels(place); ++p) {
        store_box(g_.part[place.part].out, out + p * kPanelBytes, place.column * N + p * kPanel,
                  pixel.x, pixel.y, pixel.z);
      }
      commit_stores();
    }
    if constexpr (!kPlain) store_sums(gathered, place);
  }

 private:
  __device__ static bool issues() { return threadIdx.x % kWarpgroup == 0; }
  /// Which block of pixels the consumer's unit u of a tile is.
  __device__ int block_of(const TilePlace& place, int u) const {
    return (place.row * kConsumers + consumer_) * Tile<N>::kUnits + u;
  }
  /// How many panels of the tile have columns.
  __device__ int panels(const TilePlace& place) const {
    const int left = (g_.columns - place.column * N + kPanel - 1) / kPanel;
    return left < N / kPanel ? left : N / kPanel;
  }

  /// `out` is to be the consumer's again, with the image that is read beside unit u in it: when
  /// `ready`'s phase is complete.
  __device__ void claim_out(const TilePlace& place, int u) {
    if (!issues()) return;
    wait_for_stores<0>();
    Barrier& ready = shared_.ready[consumer_];
    const int block = block_of(place, u);
    const int boxes = beside_of(epilogue_) ? N / kPanel : 0;  // also where they are all zeros
    arrive_expecting(ready, static_cast<unsigned>(boxes * kPanelBytes));
    const int3 pixel = first_pixel(g_.blocks, block);
    for (int p = 0; p < boxes; ++p) {
      load_box(shared_.out[consumer_] + p * kPanelBytes, g_.part[place.part].beside, ready,
               place.column * N + p * kPanel, pixel.x, pixel.y, pixel.z);
    }
  }

  /// Where in `out` sums i and i + 1 of the thread belong. A row's 16-byte groups change places as
  /// its number says, or some of its bits, which are the same in all the thread's rows.
  __device__ void* in_out(int t, int i) const {
    constexpr int kRowBytes = kPanel * 2, kGroups = kRowBytes / 16;
    const int row = place_of_sum(t, i).y, j = i / 4;
    const int key = t % 32 / 4 * kRowBytes / 128 % kGroups;
    return shared_.out[consumer_] + j / kGroups * kPanelBytes + row * kRowBytes +
           (j % kGroups ^ key) * 16 + t % 4 * 4;
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

  /// The thread's two rows of a unit, from columns to columns: sums that have been stored leave
  /// their registers for what is gathered of them. There are none to spare for what ptxas would
  /// read early; but what is read in shared memory cannot overtake a store there.
  __device__ void finish_unit(float (&sum)[N / 2], int u, const TilePlace& place,
                              Gathered& gathered) {
    const int t = thread_of_warpgroup();
    unsigned inside[2], mask[2] = {};  // of the rows
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = u * kUnit + place_of_sum(t, half * 2).y;
      inside[half] = pixel_of(place, row) >= 0 ? ~0U : 0;
      if (inside[half] != 0) ++gathered.rows;
    }
#pragma unroll
    for (int j = 0; j < N / 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = j * 4 + half * 2, row = u * kUnit + place_of_sum(t, i).y;
        if (kThroughRelu && j % 4 == 0) {
          mask[half] = shared_.columns[consumer_].mask[row][j / 4] >> t % 4 * 2;
        }
        const unsigned boxed = beside_of(epilogue_) ? load_shared(in_out(t, i)) : 0;
        const auto beside =
            make_beside(epilogue_, __builtin_bit_cast(Pair, boxed), mask[half] >> j % 4 * 8);
        const Pair finished = finish(epilogue_, Floats<2>{sum[i], sum[i + 1]}, beside);
        const unsigned stored = __builtin_bit_cast(unsigned, finished) & inside[half];
        store_shared(in_out(t, i), stored);
        const Pair of_d = __builtin_bit_cast(Pair, stored);
        const Floats<2> d = to_floats(of_d), f = kThroughRelu ? to_floats(beside.x) : d;
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          gathered.sums.d.at[2 * j + k] += d.at[k];
          gathered.sums.d_f.at[2 * j + k] += d.at[k] * f.at[k];
        }
      }
    }
  }

  /// The columns' sums over the consumer's rows of the tile.
  __device__ void store_sums(const Gathered& gathered, const TilePlace& place) {
    auto& columns = shared_.columns[consumer_];
    const int thread = thread_of_warpgroup(), warp = thread / 32;
    const auto sums = merge_lanes(gathered.sums);
    float rows = gathered.rows;
    for (const int apart : {16, 8, 4}) rows += __shfl_xor_sync(0xFFFFFFFF, rows, apart);
    if (thread % 32 == 0) columns.rows[warp] = rows;
    constexpr int kLeft = N < 32 ? 1 : N / 32;  // of the thread's columns
    const int part = N < 32 ? thread / 16 % 2 * 2 + thread / 8 % 2
                            : thread / 16 % 2 * 4 + thread / 8 % 2 * 2 + thread / 4 % 2;
    if (N >= 32 || thread / 4 % 2 == 0) {
#pragma unroll
      for (int k = 0; k < kLeft; ++k) {
        const int i = part * kLeft + k, column = i / 2 * 8 + thread % 4 * 2 + i % 2;
        columns.sum[warp][0][column] = sums.d.at[k];
        columns.sum[warp][1][column] = sums.d_f.at[k];
      }
    }
    named_barrier(1 + consumer_, kWarpgroup);
    const int tile = (place.part * g_.row_tiles + place.row) * kConsumers + consumer_;
    for (int c = thread; c < N; c += kWarpgroup) {
      TwoSums<1> all{};
      float of_rows = 0;
      for (int w = 0; w < kWarpgroup / 32; ++w) {
        all.merge({{columns.sum[w][0][c]}, {columns.sum[w][1][c]}});
        of_rows += columns.rows[w];
      }
      finish_sums(epilogue_, all, of_rows, kThroughRelu ? columns.mean[c] : 0)
          .store(epilogue_.partial, static_cast<unsigned>(tile),
                 static_cast<unsigned>(g_.parts * g_.row_tiles * kConsumers), place.column * N + c,
                 g_.columns);
    }
    named_barrier(1 + consumer_, kWarpgroup);  // before the next tile's
  }

  const Gather& g_;
  const Epilogue& epilogue_;
  Shared<N, Epilogue>& shared_;
  int consumer_;
};

template <int N, bool kAcrossB, typename Epilogue>
__global__ void __launch_bounds__(kThreads, 1)
    gather_kernel(const __grid_constant__ Gather g, const __grid_constant__ Epilogue epilogue) {
#if WRN_HOPPER
  auto& shared = shared_storage<Shared<N, Epilogue>>();
  init(shared);  // of shared memory alone
  wait_for_previous_kernels();
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == kConsumers) {
    drop_registers<40>();
    if (threadIdx.x % kWarpgroup == 0) {
      load_tiles<N, kAcrossB>(g, shared.ring_of_a(g.a_rows), shared.ring_of_b());
    }
    return;
  }
  take_registers<232>();
  Ring a = shared.ring_of_a(g.a_rows), b = shared.ring_of_b();
  Ending<N, Epilogue> ending(g, epilogue, shared, warpgroup);
  for (int i = 0; static_cast<int>(blockIdx.x + i * gridDim.x) < g.tiles(); ++i) {
    const TilePlace place = tile_place(g, static_cast<int>(blockIdx.x + i * gridDim.x));
    Sums<N> sum;
    ending.begin(sum, place);
    for (int s = 0; s < g.sources; ++s) {
      const Slices& slices = g.part[place.part].of[s].slices;
      if (slices.count == 0) continue;
      multiply<N, false, kAcrossB>(sum, a, b, slices, g.source[s].a, g.source[s].b, warpgroup);
    }
    ending.store(sum, place, i);
  }
  if (threadIdx.x % kWarpgroup == 0) wait_for_stores<0>();
#endif
}

/// What D sums, checked: a convolution and, if there is one, a projection.
inline std::vector<Convolution> check_sources(const Convolution& own,
                                              const Projection<bf16>& projection, const bf16* out,
                                              Context& context) {
  std::vector<Convolution> all{own};
  if (projection.image) all.push_back(projection);
  for (const auto& [image, filters, shape] : all) check(shape, image, filters, out, context);
  return all;
}

/// Adds a source of images of so many channels, of which D's next pixel sees that `step` further.
inline Source& add_source(Gather& g, int channels, int step) {
  Source& source = g.source[g.sources++];
  source.channels = channels;
  source.box = box_width(channels);
  source.step = step;
  return source;
}

/// Chooses a tile, makes the maps, those of images like `out` by map_image(map, image, part, box of
/// columns), and launches g.
template <bool kAcrossB, typename Epilogue, typename MapImage>
void run(Gather& g, const std::vector<Convolution>& sources, const Epilogue& epilogue,
         const bf16* out, MapImage map_image, Context& context) {
  const Target target = context.runtime().target();
  const bf16* beside = beside_of(epilogue);
  constexpr ConvProduct kProduct = kAcrossB ? ConvProduct::kDgrad : ConvProduct::kFprop;
  constexpr int kWidest = widest_of(kProduct);
  with_tile<kWidest>(gather_columns(kProduct, sources[0].shape, target), [&](auto tile) {
    constexpr int N = tile.kColumns;
    using Memory = Shared<N, Epilogue>;
    static_assert(sizeof(Memory) <= 227 * 1024 && Memory::kPlacesOfB >= 2);
    for (std::size_t i = 0; i < sources.size(); ++i) {
      Source& source = g.source[i];
      const auto& [image, filters, s] = sources[i];
      const ARows rows = a_rows(s, source.channels, tile.kRows);
      source.tall = rows.tall();
      source.a_bytes = rows.count * kRowBytes;
      g.a_rows = std::max(g.a_rows, rows.count);
      for (int part = 0; part < g.parts; ++part) {
        Taps& taps = g.part[part].of[i];
        taps.slices = gather_slices(taps.taps_h, taps.taps_w, source.channels, source.tall);
      }
      const Images images =
          kAcrossB ? Images{image, s.n, s.p(), s.q(), s.k} : Images{image, s.n, s.h, s.w, s.c};
      make_image_map(source.images, images,
                     source.tall ? BoxOfPixels{rows.n, rows.h, g.blocks.w} : box_of(g.blocks),
                     source.box, source.step);
      const int taps = s.r * s.r, across = kAcrossB ? tile.kPanel : N;
      const std::int64_t tap = std::int64_t{s.c} * 2;
      make_tensor_map(source.filters, filters,
                      {{s.c, 2, kAcrossB ? across : source.box},
                       {taps, tap, 1},
                       {s.k, tap * taps, kAcrossB ? source.box : across}});
      source.a = along_depth(source.box, tile.kRows);
      source.a.unit = static_cast<unsigned>(rows.of_unit * source.box * 2);
      source.a.tap = source.direction * rows.of_line * kRowBytes;
      source.a.first_tap = source.direction < 0 ? (1 - s.r) * source.a.tap : 0;
      source.b = kAcrossB ? across_depth(tile.kPanel, source.box, N) : along_depth(source.box, N);
    }
    for (int i = 0; i < g.parts; ++i) {
      map_image(g.part[i].out, out, i, tile.kPanel);
      if (beside) map_image(g.part[i].beside, beside, i, tile.kPanel);
    }
    g.row_tiles = static_cast<int>(divide_up(std::int64_t{g.blocks.count} * kUnit, tile.kRows));
    g.column_tiles = static_cast<int>(divide_up(g.columns, N));
    const int blocks = std::min(g.parts * g.row_tiles * g.column_tiles, target.multiprocessors);
    launch(WRN_KERNEL(gather_kernel<N, kAcrossB, Epilogue>), static_cast<unsigned>(blocks),
           kThreads, sizeof(Memory), context, g, epilogue);
  });
}

}  // namespace wrn::cuda::v5
