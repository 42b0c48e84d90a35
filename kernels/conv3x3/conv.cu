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

/// Whether v5 is to compute a product: it can, and nothing faster has been measured (choices.h).
bool is_for_v5(ConvProduct product, const ConvShape& shape, Context& context) {
  return v5::supports(shape, context) && v5::is_chosen(product, shape, context.runtime().target());
}

/// The same of these tensors: v4 does not mind how they are aligned.
template <typename... T>
bool by_v5(ConvProduct product, const ConvShape& shape, Context& context, const T*... tensors) {
  return is_for_v5(product, shape, context) && (aligned16(tensors) && ...);
}

/// Whether v5 can add it, too.
bool v5_can_add(const Projection<bf16>& p) {
  return !p.image || (v5::takes(p.shape) && aligned16(p.image) && aligned16(p.w));
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
  if (first_layer::takes(shape) && aligned16(y)) return first_layer::fprop(x, w, y, shape, context);
  by_v5(ConvProduct::kFprop, shape, context, x, w, y) ? v5::fprop(x, w, y, shape, context)
                                                      : v4::fprop(x, w, y, shape, context);
}

template <>
void conv_dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape,
                Context& context) {
  in_tf32(context) ? v4::dgrad(dy, w, dx, shape, context) : v3::dgrad(dy, w, dx, shape, context);
}

template <>
void conv_dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape& shape, Context& context) {
  by_v5(ConvProduct::kDgrad, shape, context, dy, w, dx) ? v5::dgrad(dy, w, dx, shape, context)
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
  if (first_layer::takes(shape) && aligned16(dy)) {
    return first_layer::wgrad(x, dy, dw, shape, context);
  }
  by_v5(ConvProduct::kWgrad, shape, context, x, dy, dw) ? v5::wgrad(x, dy, dw, shape, context)
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
    if (first_layer::takes(shape) && !from && !residual && aligned16(y)) {
      first_layer::fprop(x, w, y, shape, epilogue, context);
      tiles = first_layer::fprop_tiles(shape);
    } else if (by_v5(ConvProduct::kFprop, shape, context, x, w, residual, y) &&
               v5_can_add(projection)) {
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
    if (by_v5(ConvProduct::kDgrad, shape, context, dy, w, a.x, a.mask, d) &&
        v5_can_add(projection)) {
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

namespace {
/// Enough for either version, as tensors that are not aligned go to v4.
template <typename OfV5>
std::size_t most_bytes(std::size_t of_v4, OfV5 of_v5, ConvProduct product, const ConvShape& shape,
                       Context& context) {
  const bool may = context.precision() == Precision::kBf16 && is_for_v5(product, shape, context);
  return may ? std::max(of_v4, of_v5()) : of_v4;
}
}  // namespace

std::size_t conv_fprop_statistics_workspace(const ConvShape& shape, Context& context) {
  return most_bytes(
      moments_bytes(v4::fprop_tiles(shape), shape.k),
      [&] { return moments_bytes(v5::fprop_tiles(shape, context), shape.k); }, ConvProduct::kFprop,
      shape, context);
}
std::size_t conv_dgrad_activation_workspace(const ConvShape& shape, Context& context) {
  return most_bytes(
      gradient_sums_bytes(v4::dgrad_tiles(shape), shape.c),
      [&] { return gradient_sums_bytes(v5::dgrad_tiles(shape, context), shape.c); },
      ConvProduct::kDgrad, shape, context);
}

std::size_t conv_fprop_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_dgrad_workspace(const ConvShape&, Context&) { return 0; }
std::size_t conv_wgrad_workspace(const ConvShape& shape, Context& context) {
  if (context.precision() == Precision::kFp32) return v3::wgrad_workspace(shape, context);
  if (first_layer::takes(shape)) {
    return std::max(v4::wgrad_workspace(shape, context),
                    first_layer::wgrad_workspace(shape, context));
  }
  return most_bytes(
      v4::wgrad_workspace(shape, context), [&] { return v5::wgrad_workspace(shape, context); },
      ConvProduct::kWgrad, shape, context);
}

}  // namespace wrn::cuda
