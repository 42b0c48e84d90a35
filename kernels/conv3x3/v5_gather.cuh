// v5's fprop and dgrad: the kernel, whose parts are v5_load.cuh and v5_ending.cuh, and its launch.
#pragma once

#include "kernels/conv3x3/v5_ending.cuh"

namespace wrn::cuda::v5 {

template <int N, bool kAcrossB, typename Epilogue>
__global__ void __launch_bounds__(kThreads, 1)
    gather_kernel(const __grid_constant__ Gather g, const __grid_constant__ Epilogue epilogue) {
#if WRN_HOPPER
  auto& shared = shared_storage<Shared<N, Epilogue>>();
  init(shared);  // of shared memory alone
  wait_for_previous_kernels();
  const int warpgroup = warpgroup_of_block();
  if (warpgroup == kConsumers) {
    drop_registers<40>();
    const int warp = static_cast<int>(threadIdx.x) % kWarpgroup / 32;
    if (threadIdx.x % 32 > 0 || warp > kConsumers) return;
    fence_async_proxy_of_global();
    if (warp == kConsumers) {
      load_tiles<N, kAcrossB>(g, shared.ring_of_a(g.a_rows), shared.ring_of_b());
    } else {
      carry_panels(g, epilogue, shared, warp);
    }
    return;
  }
  take_registers<232>();
  Ring a = shared.ring_of_a(g.a_rows), b = shared.ring_of_b();
  Ending<N, Epilogue> ending(g, epilogue, shared, warpgroup);
  for (int i = 0; static_cast<int>(blockIdx.x + i * gridDim.x) < g.tiles; ++i) {
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

/// Adds a source: images of `channels` channels.
inline Source& add_source(Gather& g, int channels) {
  Source& source = g.source[g.sources++];
  source.channels = channels;
  source.box = box_width(channels);
  return source;
}

/// Chooses a tile, makes the maps (for images of out's shape by map_image(map, image, part, box of
/// columns)), and launches g.
template <bool kAcrossB, typename Epilogue, typename MapImage>
void run(Gather& g, const std::vector<Convolution>& sources, const Epilogue& epilogue,
         const bf16* out, MapImage map_image, Context& context) {
  const Target target = context.runtime().target();
  const bf16* beside = beside_of(epilogue);
  constexpr ConvProduct kProduct = kAcrossB ? ConvProduct::kDgrad : ConvProduct::kFprop;
  constexpr int kWidest = widest_of(kProduct);
  const GatherPlan plan = gather_plan(kProduct, sources[0].shape, target);
  g.row_tiles = plan.row_tiles;
  g.column_tiles = plan.column_tiles;
  g.tiles = plan.tiles();
  with_tile<kWidest>(plan.columns, [&](auto tile) {
    constexpr int N = tile.kColumns;
    using Memory = Shared<N, Epilogue>;
    static_assert(sizeof(Memory) <= 227 * 1024 && Memory::kPlacesOfB >= 2 &&
                  Memory::kRowsOfA >= 2 * most_a_rows(tile.kRows));
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
      make_phase_maps(source.images, images, kAcrossB ? 1 : s.stride,
                      source.tall ? BoxOfPixels{rows.n, rows.h, g.blocks.w} : box_of(g.blocks),
                      source.box);
      const int taps = s.r * s.r, across = kAcrossB ? tile.kPanel : N;
      const std::int64_t tap = std::int64_t{s.c} * 2;
      make_tensor_map(source.filters, filters,
                      {{s.c, 2, kAcrossB ? across : source.box},
                       {taps, tap, 1},
                       {s.k, tap * taps, kAcrossB ? source.box : across}});
      source.a = along_depth(source.box, tile.kRows);
      source.a.unit = static_cast<unsigned>(rows.of_unit * source.box * 2 / 16);
      source.a.consumer = tile.kUnits * source.a.unit;
      source.a.tap = source.direction * rows.of_line * kRowBytes / 16;
      source.a.first_tap = source.direction < 0 ? (1 - s.r) * source.a.tap : 0;
      source.b = kAcrossB ? across_depth(tile.kPanel, source.box, N) : along_depth(source.box, N);
    }
    for (int i = 0; i < g.parts; ++i) {
      map_image(g.part[i].out, out, i, tile.kPanel);
      if (beside) map_image(g.part[i].beside, beside, i, tile.kPanel);
    }
    const int grid = std::min(plan.tiles(), target.multiprocessors);
    launch(WRN_KERNEL(gather_kernel<N, kAcrossB, Epilogue>), static_cast<unsigned>(grid), kThreads,
           sizeof(Memory), context, g, epilogue);
  });
}

}  // namespace wrn::cuda::v5
