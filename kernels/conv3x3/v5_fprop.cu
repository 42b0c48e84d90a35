// v5's fprop: y[pixels, k] gathers x, and filters lie along the depth.
#include "kernels/conv3x3/v5_gather.cuh"

namespace wrn::cuda::v5 {
namespace {

template <typename Epilogue>
void run_fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& s, const Epilogue& epilogue,
               Context& context) {
  check(s, x, w, y, context);
  Gather g(s);
  g.channels = s.c;
  g.box = box_width(s.c);
  g.columns = s.k;
  make_image_map(g.images, x, s.n, s.h, s.w, s.c, g.blocks, g.box, s.stride);
  g.step = s.stride;
  g.direction = 1;
  g.filter_down = s.r;
  g.filter_right = 1;
  g.parts = 1;
  g.part[0] = {{}, {}, s.r, s.r, -s.pad(), -s.pad(), 0, 0, 0, gather_slices(s.r * s.r, s.c)};
  g.n = s.n;
  g.h = s.p();
  g.w = s.q();
  g.out_step = 1;
  const auto map_filters = [&](CUtensorMap& map, int box) {
    const std::int64_t tap = std::int64_t{s.c} * 2;
    make_tensor_map(map, w, {{s.c, 2, g.box}, {s.r * s.r, tap, 1}, {s.k, tap * s.r * s.r, box}});
  };
  const auto map_image = [&](CUtensorMap& map, const bf16* image, int, int box) {
    make_image_map(map, image, s.n, s.p(), s.q(), s.k, g.blocks, box, 1);
  };
  run<false>(g, s, epilogue, y, map_filters, map_image, context);
}

}  // namespace

void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& s, Context& context) {
  run_fprop(x, w, y, s, Plain{}, context);
}

void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& s,
           const WithMoments<bf16>& epilogue, Context& context) {
  check_epilogue(epilogue.partial, {epilogue.addend});
  run_fprop(x, w, y, s, epilogue, context);
}

unsigned fprop_tiles(const ConvShape& s, Context& context) {
  return sum_tiles(ConvProduct::kFprop, s, context.runtime().device.multiProcessorCount);
}

}  // namespace wrn::cuda::v5
