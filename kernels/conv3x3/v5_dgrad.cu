// v5's dgrad: dx[pixels, c] gathers dy, and filters lie across the depth, k. With stride 2, dx is
// four phases by the parities of its rows and columns: four products over the taps that each meets,
// and four maps.
#include "kernels/conv3x3/v5_gather.cuh"

namespace wrn::cuda::v5 {
namespace {

/// A convolution whose gradients dx sums.
void add_source(Gather& g, const Convolution& of) {
  const auto& [dy, w, s] = of;
  const int i = g.sources;
  Source& source = add_source(g, s.k);
  source.direction = -1;
  source.filter_down = s.stride * s.r;
  source.filter_right = s.stride;
  Part* part = g.part;
  for (const auto& [y, x, down, right] : phases(s)) {
    (part++)->of[i] = {down.count, right.count, down.offset, right.offset,
                       down.first * s.r + right.first};
  }
}

template <typename Epilogue>
void run_dgrad(const bf16* dy, const bf16* w, const Projection<bf16>& projection, bf16* dx,
               const ConvShape& s, const Epilogue& epilogue, Context& context) {
  const std::vector<Convolution> sources = check_sources({dy, w, s}, projection, dx, context);
  Gather g(s);
  g.columns = s.c;
  g.n = s.n;
  g.h = s.h;
  g.w = s.w;
  g.out_step = s.stride;
  const std::vector<Phase> all = phases(s);
  for (const Phase& phase : all) {
    g.part[g.parts].out_y = phase.h;
    g.part[g.parts++].out_x = phase.w;
  }
  for (const Convolution& of : sources) add_source(g, of);
  const auto map_image = [&](CUtensorMap& map, const bf16* image, int i, int box) {
    const Phase& phase = all[static_cast<std::size_t>(i)];
    make_image_map(map, phase_of({image, s.n, s.h, s.w, s.c}, s.stride, phase.h, phase.w),
                   box_of(g.blocks), box);
  };
  run<true>(g, sources, epilogue, dx, map_image, context);
}

}  // namespace

void dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& s, Context& context) {
  run_dgrad(dy, w, {}, dx, s, Plain{}, context);
}

void dgrad(const bf16* dy, const bf16* w, const Projection<bf16>& projection, bf16* dx,
           const ConvShape& s, const ThroughRelu<bf16>& epilogue, Context& context) {
  WRN_CHECK(epilogue.partial != nullptr, "sums without a workspace");
  check_aligned(epilogue.x, epilogue.mask);
  run_dgrad(dy, w, projection, dx, s, epilogue, context);
}

unsigned dgrad_tiles(const ConvShape& s, Context& context) {
  return gather_plan(ConvProduct::kDgrad, s, context.runtime().target()).sum_tiles();
}

}  // namespace wrn::cuda::v5
