// Launchers that only CUDA has: batch norm merged into the convolutions around it. The conventions
// are those of launchers.h.
//
// An activation is relu(batch_norm(x)), perhaps followed by dropout, which a convolution reads. On
// its own, batch norm reads x twice forward and x and dy twice backward: once for its sums, once to
// apply them. Here the sums are a by-product of the convolutions that write x and dy:
//
//   forward    conv_fprop_statistics writes x, mean, variance;  batch_norm_activation reads them
//   backward   conv_dgrad_activation writes d, dgamma, dbeta;   batch_norm_dx reads them
//
// d is the gradient of batch norm's own output, which is the activation's taken through dropout and
// ReLU. The mask, one bit an element in [rows][ceil(c / 8)] bytes as batch_norm_forward has it, is
// set where an element passed both.
#pragma once

#include "kernels/kernels.h"

namespace wrn::cuda {

// --- conv3x3/conv.cu; in fp32 there are none: Reals of fp32 are for a Context in tf32 ------------
/// Another convolution, whose result is added as if its taps were more taps of the first one, and
/// never stored. In fprop it has the same y, in dgrad the same dx and stride. Without an image
/// there is none.
template <typename Real>
struct Projection {
  const Real* image = nullptr;  // its x, or in dgrad its dy
  const Real* w = nullptr;
  ConvShape shape = {};
};
/// y = conv(x, w) [+ projection] [+ residual], each element rounded once, and the mean[k] and
/// (biased) variance[k] of the y that is stored. `residual`, like y, or null. In place: y may be
/// residual.
template <typename Real>
void conv_fprop_statistics(const Real* x, const Real* w, const Projection<Real>&,
                           const Real* residual, Real* y, float* mean, float* variance,
                           const ConvShape&, Context&);
std::size_t conv_fprop_statistics_workspace(const ConvShape&, Context&);

/// What made the activation a [n,h,w,c] that a convolution reads.
template <typename Real>
struct ActivationOf {
  const Real* x;  // like a
  const float *mean, *variance;
  float epsilon;
  const std::uint8_t* mask;
  float dropout;  // its p, or 0
};
/// d = mask ? (conv's dx [+ projection's]) / (1 - p) : 0, each element rounded once, dbeta = sum of
/// d and dgamma = sum of d (x - mean) / sqrt(variance + epsilon), over the d that is stored. The
/// projection reads a, too.
template <typename Real>
void conv_dgrad_activation(const Real* dy, const Real* w, const Projection<Real>&,
                           const ActivationOf<Real>&, Real* d, float* dgamma, float* dbeta,
                           const ConvShape&, Context&);
std::size_t conv_dgrad_activation_workspace(const ConvShape&, Context&);

// --- batch_norm.cu -------------------------------------------------------------------------------
/// p = 0 means none, and the rest is not looked at.
struct Dropout {
  float p = 0;
  int layer = 0;
  const StepState* state = nullptr;
};
/// y = dropout(relu(gamma (x - mean) / sqrt(variance + epsilon) + beta)) and its mask, from given
/// statistics. Dropout draws as dropout() does, where rows are images. In place: y may be x.
template <typename Real>
void batch_norm_activation(const Real* x, const float* gamma, const float* beta, const float* mean,
                           const float* variance, Real* y, std::uint8_t* mask, const ImageShape&,
                           float epsilon, const Dropout&, Context&);
/// dx = gamma r (d - dbeta / rows - (x - mean) r dgamma / rows) [+ skip], r = 1 / sqrt(variance +
/// epsilon), rounded once. `skip`, like dx, or null: the gradient that reaches x by another way. In
/// place: dx may be d or skip.
template <typename Real>
void batch_norm_dx(const Real* x, const Real* d, const float* gamma, const float* mean,
                   const float* variance, const float* dgamma, const float* dbeta, const Real* skip,
                   Real* dx, const ImageShape&, float epsilon, Context&);

}  // namespace wrn::cuda
