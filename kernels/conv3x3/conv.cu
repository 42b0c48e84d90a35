// The convolutions of the program: the version of the ladder that it uses.
#include "kernels/conv3x3/ladder.h"

namespace wrn::cuda {

void conv_fprop(const float* x, const float* w, float* y, const ConvShape& shape,
                Context& context) {
  v3::fprop(x, w, y, shape, context);
}

void conv_dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape,
                Context& context) {
  v3::dgrad(dy, w, dx, shape, context);
}

void conv_wgrad(const float* x, const float* dy, float* dw, const ConvShape& shape,
                Context& context) {
  v3::wgrad(x, dy, dw, shape, context);
}

std::size_t conv_fprop_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_dgrad_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_wgrad_workspace(const ConvShape& shape, Context& context) {
  return v3::wgrad_workspace(shape, context);
}

}  // namespace wrn::cuda
