// v5's fprop and dgrad: D[pixels, columns] gathers patches of images, seen through taps, and
// multiplies them by filters. The depth is taps x channels, in chunks of one tap's 64, 32 or 16
// channels; a slice is 64 deep.
#pragma once

#include "kernels/conv3x3/v5_hopper.cuh"

namespace wrn::cuda::v5 {

constexpr int kMostParts = 4;

/// One dense product. fprop is one; dgrad is one for each phase of the stride (README.md).
struct Part {
  CUtensorMap out;
  int taps_h, taps_w;  // tap (i, j) is seen `direction` (i, j) from (first_h, first_w)
  int first_h, first_w;
  int filter_tap;  // which of the filter's r x r taps is (0, 0)
  Slices slices;
};

struct Gather {
  CUtensorMap images, filters;
  PixelBlocks blocks;
  OperandView a, b;
  int channels, box;  // of the images
  int columns;
  int step, direction;            // image pixel = pixel step + first + direction tap
  int filter_down, filter_right;  // from tap (i, j) to (i + 1, j) and to (i, j + 1), in filter taps
  int row_tiles, column_tiles, parts;
  Part part[kMostParts];

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

/// The producer's thread: asks for the boxes of all slices of all tiles of the block.
template <int N, bool kAcrossB>
__device__ void load_tiles(const Gather& g, Shared<N>& shared) {
  constexpr int kRows = Tile<N>::kRows, kPanel = Tile<N>::kPanel;
  Turn<N> turn;
  for (int tile = static_cast<int>(blockIdx.x); tile < g.tiles(); tile += gridDim.x) {
    const TilePlace place = tile_place(g, tile);
    const Part& part = g.part[place.part];
    int3 pixel[kRows / kUnit];
#pragma unroll
    for (int u = 0; u < kRows / kUnit; ++u) {
      pixel[u] = first_pixel(g.blocks, place.row * (kRows / kUnit) + u);
    }
    int i = 0, j = 0, channel = 0;
    for (int slice = 0; slice < part.slices.count; ++slice) {
      auto& stage = shared.stage[turn.stage];
      Barrier& full = shared.full[turn.stage];
      wait(shared.empty[turn.stage], turn.parity ^ 1);
      arrive_expecting(full, sizeof stage);
      for (int chunk = 0; chunk < kDepth; chunk += g.box) {
        const int c = i < part.taps_h ? channel : g.channels;  // behind the last tap: zeros
#pragma unroll
        for (int u = 0; u < kRows / kUnit; ++u) {
          load_box(stage.a + (chunk * kRows + g.box * kUnit * u) * 2, g.images, full, c,
                   pixel[u].x * g.step + part.first_w + g.direction * j,
                   pixel[u].y * g.step + part.first_h + g.direction * i, pixel[u].z);
        }
        const int tap = part.filter_tap + i * g.filter_down + j * g.filter_right;
        if constexpr (kAcrossB) {
          for (int p = 0; p < N; p += kPanel) {
            load_box(stage.b + (chunk * N + p * g.box) * 2, g.filters, full, place.column * N + p,
                     tap, c);
          }
        } else {
          load_box(stage.b + chunk * N * 2, g.filters, full, c, tap, place.column * N);
        }
        channel += g.box;
        if (channel >= g.channels) {
          channel = 0;
          if (++j == part.taps_w) {
            j = 0;
            ++i;
          }
        }
      }
      turn.next();
    }
  }
}

/// A consumer's sums, as bf16, by way of shared memory to the tensor: the one place that sees a
/// finished tile. `out`: the consumer's own 64 rows of shared memory, in panels as boxes want them.
template <int N>
__device__ void store_tile(const Sums<N>& sum, const Gather& g, const TilePlace& place,
                           unsigned char* out, int consumer) {
  constexpr int kPanel = Tile<N>::kPanel, kRowBytes = kPanel * 2;
  const bool issues = threadIdx.x % kWarpgroup == 0;
#pragma unroll
  for (int u = 0; u < Tile<N>::kUnits; ++u) {
    if (issues) wait_for_stores<0>();
    named_barrier(1 + consumer, kWarpgroup);
#pragma unroll
    for (int i = 0; i < N / 2; i += 2) {
      const auto [column, row] = place_of_sum(i);
      const int byte = (column / kPanel * kUnit + row) * kRowBytes + column % kPanel * 2;
      const int swizzled = byte ^ ((byte >> 7 & (kRowBytes / 16 - 1)) << 4);
      store_shared(out + swizzled,
                   to_bf16(sum[u][i]).bits | unsigned{to_bf16(sum[u][i + 1]).bits} << 16);
    }
    fence_async_proxy();
    named_barrier(1 + consumer, kWarpgroup);
    const int block = (place.row * kConsumers + consumer) * Tile<N>::kUnits + u;
    if (!issues || block >= g.blocks.count) continue;
    const int3 pixel = first_pixel(g.blocks, block);
    for (int p = 0; p < N && place.column * N + p < g.columns; p += kPanel) {
      store_box(g.part[place.part].out, out + p * kUnit * 2, place.column * N + p, pixel.x, pixel.y,
                pixel.z);
    }
    commit_stores();
  }
}

template <int N, bool kAcrossB>
__global__ void __launch_bounds__(kThreads, 1) gather_kernel(const __grid_constant__ Gather g) {
#if WRN_HOPPER
  auto& shared = shared_storage<Shared<N>>();
  init(shared);
  const int warpgroup = static_cast<int>(threadIdx.x) / kWarpgroup;
  if (warpgroup == kConsumers) {
    drop_registers<40>();
    if (threadIdx.x % kWarpgroup == 0) load_tiles<N, kAcrossB>(g, shared);
    return;
  }
  take_registers<232>();
  Turn<N> turn;
  for (int tile = static_cast<int>(blockIdx.x); tile < g.tiles(); tile += gridDim.x) {
    const TilePlace place = tile_place(g, tile);
    Sums<N> sum;
    multiply<N, false, kAcrossB>(sum, shared, turn, g.part[place.part].slices, g.a, g.b, warpgroup);
    store_tile<N>(sum, g, place, shared.out[warpgroup], warpgroup);
  }
  if (threadIdx.x % kWarpgroup == 0) wait_for_stores<0>();
#endif
}

/// Chooses a tile, maps what depends on it by map_filters(map, box of columns) and map_out(map,
/// part, box of columns), and launches g.
template <bool kAcrossB, typename MapFilters, typename MapOut>
void run(Gather& g, MapFilters map_filters, MapOut map_out, Context& context) {
  const int multiprocessors = context.runtime().device.multiProcessorCount;
  const std::int64_t units = std::int64_t{g.blocks.count} * g.parts;
  with_tile(tile_columns(units, g.columns, multiprocessors), [&](auto tile) {
    constexpr int N = tile.kColumns;
    map_filters(g.filters, kAcrossB ? tile.kPanel : N);
    for (int i = 0; i < g.parts; ++i) map_out(g.part[i].out, i, tile.kPanel);
    g.a = along_depth(g.box, tile.kRows);
    g.b = kAcrossB ? across_depth(tile.kPanel, g.box, N) : along_depth(g.box, N);
    g.row_tiles = static_cast<int>(divide_up(std::int64_t{g.blocks.count} * kUnit, tile.kRows));
    g.column_tiles = static_cast<int>(divide_up(g.columns, N));
    const int blocks = std::min(g.parts * g.row_tiles * g.column_tiles, multiprocessors);
    launch(WRN_KERNEL(gather_kernel<N, kAcrossB>), static_cast<unsigned>(blocks), kThreads,
           sizeof(Shared<N>), context, g);
  });
}

}  // namespace wrn::cuda::v5
