// v5's wgrad: D[(tap, c), k] = x, seen through its taps, times dy. The depth is the pixels, in
// slices of a block of 64, and both operands are contiguous across it. Rows come in chunks of one
// tap's 64, 32 or 16 channels. Flat, each chunk is a box of x. Tall, one box, with a line above and
// one below, has the chunks of three taps above each other: a tap's begins a line further than the
// last one's. A consumer has such three. So a tile of 384 rows loads, in lines of 8, 16 or 32
// pixels, no more than a flat one of 160, 192 or 256, and of 64 channels' 576 rows two tiles waste
// half of the second. The pixels are split into as many parts as keep the device busy, whose sums
// sum_parts() adds up.
#include "kernels/conv3x3/v5_hopper.cuh"
#include "kernels/sum_parts.h"

namespace wrn::cuda::v5 {
namespace {

struct Wgrad {
  PhaseMaps x;
  CUtensorMap dy;
  PixelBlocks blocks;
  OperandView a, b;
  int c, k, r;
  int box, chunks_of_tap;
  int a_rows;                          // of a slice of A
  int row_tiles, column_tiles, tiles;  // of a part, of a part, of all parts
  int blocks_of_part;
  float* out;  // [parts, k, r r c]
};

/// Tile number i, and its slices. Tiles of the same pixels are neighbours and run at the same time.
struct TilePlace {
  int part, row, column, slices;
};
[[maybe_unused]] __device__ TilePlace tile_place(const Wgrad& g, int i) {
  const int line = i / g.column_tiles, part = line / g.row_tiles;
  const int left = g.blocks.count - part * g.blocks_of_part;
  return {part, line % g.row_tiles, i % g.column_tiles,
          left < g.blocks_of_part ? left : g.blocks_of_part};
}

/// The taps and channels of chunk number i: flat in the order of D's rows, tall by the column of
/// the taps first, and for the upper of the three.
struct Chunk {
  int down, right, channel;
};
template <bool kTall>
[[maybe_unused]] __device__ Chunk chunk(const Wgrad& g, int i) {
  const int tap = i / g.chunks_of_tap, channel = (i - tap * g.chunks_of_tap) * g.box;
  if (kTall) return {0, tap, channel};
  return {tap / g.r, tap % g.r, channel};
}

template <int N, bool kTall>
__device__ void load_tiles(const Wgrad& g, Ring a, Ring b) {
  constexpr int kPanel = Tile<N>::kPanel;
  // Boxes of a slice of A, and their taps.
  const int boxes = kTall ? kConsumers : g.a_rows / g.box;
  const int rows = kTall ? g.a_rows / kConsumers : g.box, taps = kTall ? g.r : g.r * g.r;
  for (int tile = static_cast<int>(blockIdx.x); tile < g.tiles; tile += gridDim.x) {
    const TilePlace place = tile_place(g, tile);
    for (int slice = 0; slice < place.slices; ++slice) {
      const int3 pixel = first_pixel(g.blocks, place.part * g.blocks_of_part + slice);
      Barrier& full_a = a.claim(a.bytes);
      Chunk at = chunk<kTall>(g, place.row * boxes);
      for (int i = 0; i < boxes; ++i) {
        const bool there = kTall ? at.right < taps : at.down * g.r + at.right < taps;
        load_seen(a.at() + i * rows * kRowBytes, g.x, full_a, there ? at.channel : g.c,  // or zeros
                  pixel, at.down - g.r / 2, at.right - g.r / 2);
        at.channel += g.box;
        if (at.channel < g.c) continue;
        at.channel = 0;
        ++at.right;
        if (!kTall && at.right == g.r) at = {at.down + 1, 0, 0};
      }
      Barrier& full_b = b.claim(b.bytes);
      for (int p = 0; p < N; p += kPanel) {
        load_box(b.at() + p * kRowBytes, g.dy, full_b, place.column * N + p, pixel.x, pixel.y,
                 pixel.z);
      }
      a.next();
      b.next();
    }
  }
}

/// Straight from the registers, across: eight lanes of a warp have eight neighbouring rows of D,
/// which are 32 bytes of dw.
template <int N, bool kTall, int kUnits>
__device__ void store_tile(const Sums<N, kUnits>& sum, const Wgrad& g, const TilePlace& place,
                           int consumer) {
  const int t = static_cast<int>(threadIdx.x) % kWarpgroup;
  const std::int64_t rows = g.r * g.r * g.c;
  const int first = place.column * N, left = g.k - first;  // in eights
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int unit = (place.row * kConsumers + consumer) * kUnits + u;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto [column, row] = place_of_sum(t, half * 2);
      Chunk at = chunk<kTall>(g, kTall ? unit / kUnits : (unit * kUnit + row) / g.box);
      if (kTall) at.down = u;
      const int channel = at.channel + row % g.box;
      if (at.down >= g.r || at.right >= g.r || channel >= g.c) continue;
      float* out = g.out + (std::int64_t{place.part} * g.k + first + column) * rows +
                   (at.down * g.r + at.right) * g.c + channel;
#pragma unroll
      for (int eight = 0; eight < N / 8; ++eight, out += 8 * rows) {
        if (eight * 8 >= left) break;
        out[0] = sum[u][eight * 4 + half * 2];
        out[rows] = sum[u][eight * 4 + half * 2 + 1];
      }
    }
  }
}

template <int N, bool kTall>
__global__ void __launch_bounds__(kThreads, 1) wgrad_kernel(const __grid_constant__ Wgrad g) {
#if WRN_HOPPER
  auto& shared = shared_storage<Shared<N, void>>();
  init(shared);  // of shared memory alone
  wait_for_previous_kernels();
  const int warpgroup = warpgroup_of_block();
  if (warpgroup == kConsumers) {
    drop_registers<40>();
    if (threadIdx.x % kWarpgroup == 0) {
      fence_async_proxy_of_global();
      load_tiles<N, kTall>(g, shared.ring_of_a(g.a_rows), shared.ring_of_b());
    }
    return;
  }
  take_registers<232>();
  constexpr int kUnits = kTall ? 3 : Tile<N>::kUnits;
  Ring a = shared.ring_of_a(g.a_rows), b = shared.ring_of_b();
  for (int tile = static_cast<int>(blockIdx.x); tile < g.tiles; tile += gridDim.x) {
    const TilePlace place = tile_place(g, tile);
    Sums<N, kUnits> sum;
    clear(sum);
    multiply<N, true, true>(sum, a, b, {place.slices, place.slices, kSteps}, g.a, g.b, warpgroup);
    store_tile<N, kTall, kUnits>(sum, g, place, warpgroup);
  }
#endif
}

}  // namespace

void wgrad(const bf16* x, const bf16* dy, float* dw, const ConvShape& s, Context& context) {
  check(s, x, dy, dw, context);
  const Target target = context.runtime().target();
  const WgradPlan plan = wgrad_plan(s, target);
  WRN_CHECK(plan.parts == 1 || context.workspace != nullptr, "wgrad without a workspace");
  const PixelBlocks blocks(s);
  auto* partial = reinterpret_cast<float*>(context.workspace);
  with_tile<kWidths.back()>(plan.columns, [&](auto tile) {
    constexpr int N = tile.kColumns;
    Wgrad g{{},
            {},
            blocks,
            across_depth(plan.box, kDepth, tile.kRows),
            across_depth(tile.kPanel, kDepth, N),
            s.c,
            s.k,
            s.r,
            plan.box,
            plan.chunks_of_tap,
            plan.loaded_rows(),
            plan.row_tiles,
            plan.column_tiles,
            plan.tiles(),
            plan.blocks_of_part,
            plan.parts > 1 ? partial : dw};
    if (plan.tall()) g.a.unit = static_cast<unsigned>(blocks.w * kRowBytes / 16);  // a line
    g.a.consumer = static_cast<unsigned>(plan.tall() ? plan.tall_rows * kRowBytes / 16
                                                     : plan.units() * g.a.unit);
    BoxOfPixels box = box_of(blocks);
    if (plan.tall()) box.h += 2;
    make_phase_maps(g.x, {x, s.n, s.h, s.w, s.c}, s.stride, box, plan.box);
    make_image_map(g.dy, {dy, s.n, s.p(), s.q(), s.k}, box_of(blocks), tile.kPanel);
    const auto run = [&](const auto& kernel) {
      const int grid = std::min(plan.tiles(), target.multiprocessors);
      launch(kernel, static_cast<unsigned>(grid), kThreads, sizeof(Shared<N, void>), context, g);
    };
    if constexpr (N == 64 || N == 128) {
      // Two places at least, of boxes of a line of 64 pixels, one above and one below.
      static_assert(Shared<N, void>::kRowsOfA >= 2 * kConsumers * 3 * kUnit);
      if (plan.tall()) return run(WRN_KERNEL(wgrad_kernel<N, true>));
    }
    run(WRN_KERNEL(wgrad_kernel<N, false>));
  });
  if (plan.parts == 1) return;
  sum_parts(partial, plan.parts, static_cast<int>(s.w_size()), 1, dw, context);
}

std::size_t wgrad_workspace(const ConvShape& s, Context& context) {
  const int parts = wgrad_plan(s, context.runtime().target()).parts;
  return parts > 1 ? wgrad_partial_bytes(s, parts) : 0;
}

}  // namespace wrn::cuda::v5
