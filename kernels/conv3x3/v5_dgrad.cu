// v5's dgrad: dx[pixels, c] gathers dy, and filters lie across the depth, k. With stride 2, dx is
// four phases by the parities of its rows and columns: four products over the taps that each meets,
// and four maps of dx of twice the strides.
#include "kernels/conv3x3/v5_gather.cuh"

namespace wrn::cuda::v5 {
namespace {

void make_phase_map(CUtensorMap& map, const bf16* dx, const ConvShape& s, const PixelBlocks& blocks,
                    const Phase& phase, int box) {
  const std::int64_t pixel = std::int64_t{s.c} * 2, row = pixel * s.w, image = row * s.h;
  make_tensor_map(map, dx + (std::int64_t{phase.h} * s.w + phase.w) * s.c,
                  {{s.c, 2, box},
                   {divide_up(s.w - phase.w, s.stride), pixel * s.stride, blocks.w},
                   {divide_up(s.h - phase.h, s.stride), row * s.stride, blocks.h},
                   {s.n, image, blocks.n}});
}

template <typename Epilogue>
void run_dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& s,
               const Epilogue& epilogue, Context& context) {
  check(s, dy, w, dx, context);
  Gather g(s);
  g.channels = s.k;
  g.box = box_width(s.k);
  g.columns = s.c;
  make_image_map(g.images, dy, s.n, s.p(), s.q(), s.k, g.blocks, g.box, 1);
  g.step = 1;
  g.direction = -1;
  g.filter_down = s.stride * s.r;
  g.filter_right = s.stride;
  g.n = s.n;
  g.h = s.h;
  g.w = s.w;
  g.out_step = s.stride;
  g.parts = 0;
  const std::vector<Phase> all = phases(s);
  for (const auto& [y, x, down, right] : all) {
    g.part[g.parts++] = {{},
                         {},
                         right.count > 0 ? down.count : 0,
                         right.count,
                         down.offset,
                         right.offset,
                         down.first * s.r + right.first,
                         y,
                         x,
                         gather_slices(down.count * right.count, s.k)};
  }
  const auto map_filters = [&](CUtensorMap& map, int box) {
    const std::int64_t tap = std::int64_t{s.c} * 2;
    make_tensor_map(map, w, {{s.c, 2, box}, {s.r * s.r, tap, 1}, {s.k, tap * s.r * s.r, g.box}});
  };
  const auto map_image = [&](CUtensorMap& map, const bf16* image, int i, int box) {
    make_phase_map(map, image, s, g.blocks, all[static_cast<std::size_t>(i)], box);
  };
  run<true>(g, s, epilogue, dx, map_filters, map_image, context);
}

}  // namespace

void dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& s, Context& context) {
  run_dgrad(dy, w, dx, s, Plain{}, context);
}

void dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& s,
           const ThroughRelu<bf16>& epilogue, Context& context) {
  check_epilogue(epilogue.partial, {epilogue.addend, epilogue.x, epilogue.mask});
  run_dgrad(dy, w, dx, s, epilogue, context);
}

unsigned dgrad_tiles(const ConvShape& s, Context& context) {
  return sum_tiles(ConvProduct::kDgrad, s, context.runtime().device.multiProcessorCount);
}

}  // namespace wrn::cuda::v5
