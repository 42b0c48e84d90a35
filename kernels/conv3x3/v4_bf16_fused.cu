// v4 with epilogues, for tensors of bf16.
#include "kernels/conv3x3/v4_tensor_core.cuh"

namespace wrn::cuda::v4 {

void fprop(const bf16* x, const bf16* w, const Projection<bf16>& projection, bf16* y,
           const ConvShape& shape, const WithMoments<bf16>& epilogue, Context& context) {
  run_with(Fprop(x, w, y, shape), projection, y, epilogue, epilogue.addend, context);
}

void dgrad(const bf16* dy, const bf16* w, const Projection<bf16>& projection, bf16* dx,
           const ConvShape& shape, const ThroughRelu<bf16>& epilogue, Context& context) {
  run_with(Dgrad(dy, w, dx, shape), projection, dx, epilogue, epilogue.x, context);
}

}  // namespace wrn::cuda::v4
