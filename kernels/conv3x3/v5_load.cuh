// What v5's fprop and dgrad multiply, and the producer, which brings it. D[pixels, columns] gathers
// patches of images, seen through taps, and multiplies them by filters. The depth is taps x
// channels, in chunks of one tap's 64, 32 or 16 channels; a slice is 64 deep. A projection
// (fused.h) is a second convolution to the same D: the depth goes on in its images and filters.
// Where A's rows are tall (v5_tiles.h), the three taps above each other share one slice of A.
#pragma once

#include "kernels/conv3x3/v5_hopper.cuh"

namespace wrn::cuda::v5 {

constexpr int kMostParts = 4;
constexpr int kMostSources = 2;

/// A convolution that D sums: its images, filters and shape.
using Convolution = Projection<bf16>;
/// As the kernel knows it.
struct Source {
  PhaseMaps images;
  CUtensorMap filters;
  OperandView a, b;
  int channels, box;              // of the images
  bool tall;                      // a box of them is a slice of A, else each unit's is one
  int a_bytes;                    // of a slice of A
  int direction;                  // image pixel = pixel stride + first + direction tap
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
  int row_tiles, column_tiles, tiles, parts = 0, sources = 0;
  int a_rows = 0;  // the most of a slice
  Part part[kMostParts];
  Source source[kMostSources];

  explicit Gather(const ConvShape& s) : blocks(s) {}
};

/// Which tile number i is. Tiles of the same pixels are neighbours and run at the same time, so
/// that the pixels come into the L2 cache once.
struct TilePlace {
  int part, row, column;
};
__device__ inline TilePlace tile_place(const Gather& g, int i) {
  const int line = i / g.column_tiles;
  return {line / g.row_tiles, line % g.row_tiles, i % g.column_tiles};
}

/// Where in the depth a box begins: at tap (i, j) of those of a part, and a channel. Past the last
/// tap come zeros.
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
      // A tall box begins with the line of the topmost tap, which in dgrad is the last one.
      const int i = source.direction < 0 ? chunk.i + taps.slices.taps - 1 : chunk.i;
      for (int u = 0; u < boxes; ++u) {
        const int3 pixel = first_pixel(g.blocks, first + u);
        load_seen(a.at() + (deep * kRows + source.box * kUnit * u) * 2, source.images, full_a,
                  chunk.channel_in(source, taps), pixel, taps.first_h + source.direction * i,
                  taps.first_w + source.direction * chunk.j);
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
#pragma unroll 1  // registers are few
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
  for (int tile = static_cast<int>(blockIdx.x); tile < g.tiles; tile += gridDim.x) {
    const TilePlace place = tile_place(g, tile);
    for (int i = 0; i < g.sources; ++i) {
      load_slices<N, kAcrossB>(g, g.source[i], g.part[place.part].of[i],
                               place.row * (Tile<N>::kRows / kUnit), place.column * N, a, b);
    }
  }
}

}  // namespace wrn::cuda::v5
