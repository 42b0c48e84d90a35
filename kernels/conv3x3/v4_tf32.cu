// v4 for tensors of fp32, multiplied as tf32.
#include "kernels/conv3x3/v4_tensor_core.cuh"

namespace wrn::cuda::v4 {

void fprop(const float* x, const float* w, float* y, const ConvShape& shape, Context& context) {
  run(Fprop(x, w, y, shape), context);
}

void dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape, Context& context) {
  run(Dgrad(dy, w, dx, shape), context);
}

void wgrad(const float* x, const float* dy, float* dw, const ConvShape& shape, Context& context) {
  run_wgrad(x, dy, dw, shape, context);
}

std::size_t wgrad_workspace(const ConvShape& shape, Context& context) {
  return wgrad_partial_bytes(shape, parts(shape, context));
}

}  // namespace wrn::cuda::v4
