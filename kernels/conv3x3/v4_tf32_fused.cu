// v4 with epilogues, for tensors of fp32, multiplied as tf32.
#include "kernels/conv3x3/v4_tensor_core.cuh"

namespace wrn::cuda::v4 {

void fprop(const float* x, const float* w, const Projection<float>& projection, float* y,
           const ConvShape& shape, const WithMoments<float>& epilogue, Context& context) {
  run_with(Fprop(x, w, y, shape), projection, y, epilogue, epilogue.addend, context);
}

void dgrad(const float* dy, const float* w, const Projection<float>& projection, float* dx,
           const ConvShape& shape, const ThroughRelu<float>& epilogue, Context& context) {
  run_with(Dgrad(dy, w, dx, shape), projection, dx, epilogue, epilogue.x, context);
}

unsigned fprop_tiles(const ConvShape& shape) {
  check_shape(shape);
  return static_cast<unsigned>(divide_up(shape.n * shape.p() * shape.q(), kRows));
}

unsigned dgrad_tiles(const ConvShape& shape) {
  check_shape(shape);
  const std::int64_t h = divide_up(shape.h, shape.stride), w = divide_up(shape.w, shape.stride);
  return static_cast<unsigned>(shape.stride * shape.stride * divide_up(shape.n * h * w, kRows));
}

}  // namespace wrn::cuda::v4
