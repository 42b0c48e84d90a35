// What v5's directions share on the host: which shapes it takes, and how tensors and tiles are
// seen.
#include "kernels/conv3x3/v5_hopper.cuh"

namespace wrn::cuda::v5 {

bool supports(const ConvShape& s, Context& context) {
  check_shape(s);
  return context.runtime().is_hopper() && takes(s);
}

void check(const ConvShape& s, const void* a, const void* b, const void* out, Context& context) {
  const cudaDeviceProp& device = context.runtime().device;
  WRN_CHECK(device.major == 9 && device.minor == 0,
            "v5 of the convolutions is for compute capability 9.0, and the {} has {}.{}",
            device.name, device.major, device.minor);
  WRN_CHECK(
      supports(s, context),
      "v5 takes channels in multiples of 8, sides in multiples of the stride, images that "
      "blocks of 64 pixels cut into whole rows, and a build for 90a: c={} k={} h={} w={} p={} "
      "q={}",
      s.c, s.k, s.h, s.w, s.p(), s.q());
  check_aligned(a, b, out);
}

void make_image_map(CUtensorMap& map, const Images& images, const BoxOfPixels& pixels, int box) {
  const auto& [at, n, h, w, c, stride] = images;
  const std::int64_t pixel = std::int64_t{c} * stride * 2, row = pixel * w * stride;
  make_tensor_map(map, at,
                  {{c, 2, box}, {w, pixel, pixels.w}, {h, row, pixels.h}, {n, row * h, pixels.n}});
}

void make_phase_maps(PhaseMaps& maps, const Images& all, int stride, const BoxOfPixels& pixels,
                     int box) {
  maps.stride = stride;
  for (int y = 0; y < stride; ++y) {
    for (int x = 0; x < stride; ++x) {
      make_image_map(maps.of[y * 2 + x], phase_of(all, stride, y, x), pixels, box);
    }
  }
}

namespace {
Row row_of(int box) { return static_cast<Row>(box * 2); }
}  // namespace

OperandView along_depth(int box, int rows) {
  const auto row = static_cast<unsigned>(box) * 2, extent = static_cast<unsigned>(rows);
  OperandView view{operand_layout(row_of(box), 8 * row, 16), {}, kUnit * row / 16};
  for (unsigned t = 0; t < kSteps; ++t) {
    const unsigned begin = t * 32;  // bytes, were all of a slice in one row
    view.step[t] = (begin / row * row * extent + begin % row) / 16;
  }
  return view;
}

OperandView across_depth(int box, int chunk, int columns) {
  const auto row = static_cast<unsigned>(box) * 2, deep = static_cast<unsigned>(chunk);
  OperandView view{operand_layout(row_of(box), 8 * row, deep * row), {}, kUnit * deep * 2 / 16};
  for (unsigned t = 0; t < kSteps; ++t) {
    const unsigned begin = t * (kDepth / kSteps);
    view.step[t] =
        (begin / deep * deep * static_cast<unsigned>(columns) * 2 + begin % deep * row) / 16;
  }
  return view;
}

}  // namespace wrn::cuda::v5
