// The convolutions of the program: which version of the ladder computes what.
//
//   fp32   v3, register tiles
//   tf32   v4, tensor cores, of fp32 images
//   bf16   of bf16 images: first_layer, where it takes the shape, of few channels, which only a
//          network's images have; v5, Hopper, where the GPU is one, the shape is for it
//          (v5::supports: channels in multiples of 8, rows that blocks of 64 pixels cut) and v4 has
//          not been measured to be faster (choices.h); else v4
//
// The same holds with batch norm in their epilogues (fused.h), which v3 does not have.
#include <algorithm>

#include "kernels/channel_sums.h"
#include "kernels/conv3x3/ladder.h"
#include "kernels/conv3x3/v5_tiles.h"
#include "kernels/device.cuh"
#include "kernels/fused.h"

namespace wrn::cuda {
namespace {

/// Whether the tensor cores multiply fp32 images, rounded to tf32.
bool in_tf32(const Context& context) { return context.precision() == Precision::kTf32; }

/// Whether v5 is to compute a product of bf16 images: it can, and nothing faster has been measured.
bool by_v5(ConvProduct product, const ConvShape& shape, Context& context) {
  return v5::supports(shape, context) && v5::is_chosen(product, shape, context.runtime().target());
}

/// The same with a projection, if there is one.
bool by_v5(ConvProduct product, const ConvShape& shape, const Projection<bf16>& projection,
           Context& context) {
  return by_v5(product, shape, context) && (!projection.image || v5::takes(projection.shape));
}

/// The precision of the Contexts in which fused convolutions are of these Reals.
template <typename Real>
constexpr Precision kPrecision = std::is_same_v<Real, bf16> ? Precision::kBf16 : Precision::kTf32;

}  // namespace

template <>
void conv_fprop(const float* x, const float* w, float* y, const ConvShape& shape,
                Context& context) {
  in_tf32(context) ? v4::fprop(x, w, y, shape, context) : v3::fprop(x, w, y, shape, context);
}

template <>
void conv_fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& shape, Context& context) {
  if (first_layer::takes(shape)) return first_layer::fprop(x, w, y, shape, context);
  by_v5(ConvProduct::kFprop, shape, context) ? v5::fprop(x, w, y, shape, context)
                                             : v4::fprop(x, w, y, shape, context);
}

template <>
void conv_dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape,
                Context& context) {
  in_tf32(context) ? v4::dgrad(dy, w, dx, shape, context) : v3::dgrad(dy, w, dx, shape, context);
}

template <>
void conv_dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& shape, Context& context) {
  by_v5(ConvProduct::kDgrad, shape, context) ? v5::dgrad(dy, w, dx, shape, context)
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
  WRN_CHECK(context.precision() == Precision::kBf16, "wgrad of bf16, and a workspace for f32's");
  if (first_layer::takes(shape)) return first_layer::wgrad(x, dy, dw, shape, context);
  by_v5(ConvProduct::kWgrad, shape, context) ? v5::wgrad(x, dy, dw, shape, context)
                                             : v4::wgrad(x, dy, dw, shape, context);
}

template <typename Real>
void conv_fprop_statistics(const Real* x, const Real* w, const Projection<Real>& projection,
                           const Real* residual, Real* y, float* mean, float* variance,
                           const ConvShape& shape, Context& context) {
  WRN_CHECK(context.precision() == kPrecision<Real>, "a fused convolution in another precision");
  const auto& [from, filters, s] = projection;
  WRN_CHECK(!from || (s.n == shape.n && s.p() == shape.p() && s.q() == shape.q() && s.k == shape.k),
            "a projection to {} x {} x {} x {} beside {} x {} x {} x {}", s.n, s.p(), s.q(), s.k,
            shape.n, shape.p(), shape.q(), shape.k);
  float* partial = reinterpret_cast<float*>(context.workspace);
  const WithMoments<Real> epilogue{residual, partial};
  unsigned tiles = 0;
  if constexpr (std::is_same_v<Real, bf16>) {
    if (first_layer::takes(shape) && !from && !residual) {
      first_layer::fprop(x, w, y, shape, epilogue, context);
      tiles = first_layer::fprop_tiles(shape);
    } else if (by_v5(ConvProduct::kFprop, shape, projection, context)) {
      v5::fprop(x, w, projection, y, shape, epilogue, context);
      tiles = v5::fprop_tiles(shape, context);
    }
  }
  if (tiles == 0) {
    v4::fprop(x, w, projection, y, shape, epilogue, context);
    tiles = v4::fprop_tiles(shape);
  }
  merge_moments(partial, tiles, shape.k, mean, variance, context);
}

template <typename Real>
void conv_dgrad_activation(const Real* dy, const Real* w, const Projection<Real>& projection,
                           const ActivationOf<Real>& a, Real* d, float* dgamma, float* dbeta,
                           const ConvShape& shape, Context& context) {
  WRN_CHECK(context.precision() == kPrecision<Real>, "a fused convolution in another precision");
  const auto& [from, filters, s] = projection;
  WRN_CHECK(!from || (s.n == shape.n && s.h == shape.h && s.w == shape.w && s.c == shape.c &&
                      s.stride == shape.stride),
            "a projection of {} x {} x {} x {} with stride {} beside {} x {} x {} x {} with {}",
            s.n, s.h, s.w, s.c, s.stride, shape.n, shape.h, shape.w, shape.c, shape.stride);
  WRN_CHECK(a.epsilon > 0 && a.dropout >= 0 && a.dropout < 1, "epsilon {}, dropout with p = {}",
            a.epsilon, a.dropout);
  float* partial = reinterpret_cast<float*>(context.workspace);
  const ThroughRelu<Real> epilogue{a.mask, 1 / (1 - a.dropout), a.x, a.mean, partial};
  unsigned tiles = 0;
  if constexpr (std::is_same_v<Real, bf16>) {
    if (by_v5(ConvProduct::kDgrad, shape, projection, context)) {
      v5::dgrad(dy, w, projection, d, shape, epilogue, context);
      tiles = v5::dgrad_tiles(shape, context);
    }
  }
  if (tiles == 0) {
    v4::dgrad(dy, w, projection, d, shape, epilogue, context);
    tiles = v4::dgrad_tiles(shape);
  }
  merge_gradient_sums(partial, tiles, shape.c, a.variance, a.epsilon, dgamma, dbeta, context);
}

#define WRN_FOR(Real)                                                                       \
  template void conv_fprop_statistics(const Real*, const Real*, const Projection<Real>&,    \
                                      const Real*, Real*, float*, float*, const ConvShape&, \
                                      Context&);                                            \
  template void conv_dgrad_activation(const Real*, const Real*, const Projection<Real>&,    \
                                      const ActivationOf<Real>&, Real*, float*, float*,     \
                                      const ConvShape&, Context&);
WRN_FOR(float)
WRN_FOR(bf16)

// Enough for v4, too, which takes what a projection or residual keeps from the others.
std::size_t conv_fprop_statistics_workspace(const ConvShape& shape, Context& context) {
  unsigned tiles = v4::fprop_tiles(shape);
  if (context.precision() == Precision::kBf16 && by_v5(ConvProduct::kFprop, shape, context)) {
    tiles = std::max(tiles, v5::fprop_tiles(shape, context));
  }
  return moments_bytes(tiles, shape.k);
}
std::size_t conv_dgrad_activation_workspace(const ConvShape& shape, Context& context) {
  unsigned tiles = v4::dgrad_tiles(shape);
  if (context.precision() == Precision::kBf16 && by_v5(ConvProduct::kDgrad, shape, context)) {
    tiles = std::max(tiles, v5::dgrad_tiles(shape, context));
  }
  return gradient_sums_bytes(tiles, shape.c);
}

std::size_t conv_fprop_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_dgrad_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_wgrad_workspace(const ConvShape& shape, Context& context) {
  switch (context.precision()) {
    case Precision::kFp32:
      return v3::wgrad_workspace(shape, context);
    case Precision::kTf32:
      return v4::wgrad_workspace(shape, context);
    case Precision::kBf16:
      break;
  }
  if (first_layer::takes(shape)) return first_layer::wgrad_workspace(shape, context);
  return by_v5(ConvProduct::kWgrad, shape, context) ? v5::wgrad_workspace(shape, context)
                                                    : v4::wgrad_workspace(shape, context);
}

}  // namespace wrn::cuda
