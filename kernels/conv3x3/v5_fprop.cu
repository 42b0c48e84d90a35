// v5's fprop: y[pixels, k] gathers x, and filters lie along the depth.
#include "kernels/conv3x3/v5_gather.cuh"

namespace wrn::cuda::v5 {
namespace {

/// A convolution that y sums.
void add_source(Gather& g, const Convolution& of) {
  const auto& [x, w, s] = of;
  const int i = g.sources;
  Source& source = add_source(g, s.c);
  source.direction = 1;
  source.filter_down = s.r;
  source.filter_right = 1;
  g.part[0].of[i] = {s.r, s.r, -s.pad(), -s.pad(), 0};
}

template <typename Epilogue>
void run_fprop(const bf16* x, const bf16* w, const Projection<bf16>& projection, bf16* y,
               const ConvShape& s, const Epilogue& epilogue, Context& context) {
  const std::vector<Convolution> sources = check_sources({x, w, s}, projection, y, context);
  Gather g(s);
  g.columns = s.k;
  g.n = s.n;
  g.h = s.p();
  g.w = s.q();
  g.out_step = 1;
  g.parts = 1;
  for (const Convolution& of : sources) add_source(g, of);
  const auto map_image = [&](CUtensorMap& map, const bf16* image, int, int box) {
    make_image_map(map, {image, s.n, s.p(), s.q(), s.k}, box_of(g.blocks), box);
  };
  run<false>(g, sources, epilogue, y, map_image, context);
}

}  // namespace

void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& s, Context& context) {
  run_fprop(x, w, {}, y, s, Plain{}, context);
}

void fprop(const bf16* x, const bf16* w, const Projection<bf16>& projection, bf16* y,
           const ConvShape& s, const WithMoments<bf16>& epilogue, Context& context) {
  WRN_CHECK(epilogue.partial != nullptr, "sums without a workspace");
  check_aligned(epilogue.addend);
  run_fprop(x, w, projection, y, s, epilogue, context);
}

unsigned fprop_tiles(const ConvShape& s, Context& context) {
  return gather_plan(ConvProduct::kFprop, s, context.runtime().target()).sum_tiles();
}

}  // namespace wrn::cuda::v5
