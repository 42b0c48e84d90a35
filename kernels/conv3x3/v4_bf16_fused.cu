// v4 with epilogues, for tensors of bf16.
#include "kernels/conv3x3/v4_tensor_core.cuh"

namespace wrn::cuda::v4 {

void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& shape,
           const WithMoments<bf16>& epilogue, Context& context) {
  run_with(Fprop(x, w, y, shape), epilogue, context, epilogue.addend);
}

void dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& shape,
           const ThroughRelu<bf16>& epilogue, Context& context) {
  run_with(Dgrad(dy, w, dx, shape), epilogue, context, epilogue.addend, epilogue.x);
}

}  // namespace wrn::cuda::v4
