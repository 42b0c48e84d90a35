// v4 for tensors of bf16; dw is fp32.
#include "kernels/conv3x3/v4_tensor_core.cuh"

namespace wrn::cuda::v4 {

void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& shape, Context& context) {
  run(Fprop(x, w, y, shape), context);
}

void dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& shape, Context& context) {
  run(Dgrad(dy, w, dx, shape), context);
}

void wgrad(const bf16* x, const bf16* dy, float* dw, const ConvShape& shape, Context& context) {
  run_wgrad(x, dy, dw, shape, context);
}

}  // namespace wrn::cuda::v4
