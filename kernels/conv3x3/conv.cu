// The convolutions of the program: which version of the ladder computes what.
//
//   fp32   v3, register tiles
//   tf32   v4, tensor cores, of fp32 images
//   bf16   of bf16 images v5, Hopper, where the GPU is one and the shape is for it (v5::supports:
//          channels in multiples of 8, rows that blocks of 64 pixels cut); else v4
#include <algorithm>

#include "kernels/conv3x3/ladder.h"
#include "kernels/device.cuh"
#include "kernels/error.h"

namespace wrn::cuda {
namespace {

/// Whether the tensor cores multiply fp32 images, rounded to tf32.
bool in_tf32(const Context& context) { return context.precision() == Precision::kTf32; }

/// Whether v5 can take a product of these tensors: v4 does not mind how they are aligned.
bool by_v5(const void* a, const void* b, const void* out, const ConvShape& shape,
           Context& context) {
  return v5::supports(shape, context) && aligned16(a) && aligned16(b) && aligned16(out);
}

}  // namespace

template <>
void conv_fprop(const float* x, const float* w, float* y, const ConvShape& shape,
                Context& context) {
  in_tf32(context) ? v4::fprop(x, w, y, shape, context) : v3::fprop(x, w, y, shape, context);
}

template <>
void conv_fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& shape, Context& context) {
  by_v5(x, w, y, shape, context) ? v5::fprop(x, w, y, shape, context)
                                 : v4::fprop(x, w, y, shape, context);
}

template <>
void conv_dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape,
                Context& context) {
  in_tf32(context) ? v4::dgrad(dy, w, dx, shape, context) : v3::dgrad(dy, w, dx, shape, context);
}

template <>
void conv_dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& shape, Context& context) {
  by_v5(dy, w, dx, shape, context) ? v5::dgrad(dy, w, dx, shape, context)
                                   : v4::dgrad(dy, w, dx, shape, context);
}

template <>
void conv_wgrad(const float* x, const float* dy, float* dw, const ConvShape& shape,
                Context& context) {
  WRN_CHECK(context.precision() != Precision::kBf16, "wgrad of f32, and a workspace for bf16's");
  in_tf32(context) ? v4::wgrad(x, dy, dw, shape, context) : v3::wgrad(x, dy, dw, shape, context);
}

template <>
void conv_wgrad(const bf16* x, const bf16* dy, float* dw, const ConvShape& shape,
                Context& context) {
  WRN_CHECK(context.precision() != Precision::kFp32, "wgrad of bf16, and a workspace for fp32's");
  by_v5(x, dy, dw, shape, context) ? v5::wgrad(x, dy, dw, shape, context)
                                   : v4::wgrad(x, dy, dw, shape, context);
}

std::size_t conv_fprop_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_dgrad_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_wgrad_workspace(const ConvShape& shape, Context& context) {
  if (context.precision() == Precision::kFp32) return v3::wgrad_workspace(shape, context);
  const std::size_t of_v4 = v4::wgrad_workspace(shape, context);
  // Enough for either, as tensors that are not aligned go to v4.
  return context.precision() == Precision::kBf16 && v5::supports(shape, context)
             ? std::max(of_v4, v5::wgrad_workspace(shape, context))
             : of_v4;
}

}  // namespace wrn::cuda
