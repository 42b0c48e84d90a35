// The shapes and structs that launchers take, and every launcher. The list itself is launchers.h;
// it holds for the CPU (wrn::cpu, over oneDNN) and for CUDA (wrn::cuda, our own kernels) alike. A
// launcher of Reals is a function of floats on the CPU, and on CUDA a template for float and bf16.
// fused.h lists what only CUDA has.
#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/context.h"

namespace wrn {

/// ceil(a / b)
constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// A square convolution: y[n,p,q,k] = sum over r,s,c of x[n, p*stride+r-pad, q*stride+s-pad, c] *
/// w[k,r,s,c], reading zero outside of x. pad = r/2: a 3x3 filter keeps the size, a 1x1 needs none.
struct ConvShape {
  int n, h, w, c, k, r, stride;
  constexpr int pad() const { return r / 2; }
  constexpr int p() const { return (h + 2 * pad() - r) / stride + 1; }
  constexpr int q() const { return (w + 2 * pad() - r) / stride + 1; }
  constexpr std::int64_t x_size() const { return std::int64_t{n} * h * w * c; }
  constexpr std::int64_t y_size() const { return std::int64_t{n} * p() * q() * k; }
  constexpr std::int64_t w_size() const { return std::int64_t{k} * r * r * c; }
  /// Whether there is such a convolution, and indices of its pixels, of an image's elements and of
  /// the filters' fit 31 bits. A window reaches two pixels past an image, a tile a little past the
  /// last pixel.
  constexpr bool is_possible() const {
    constexpr std::int64_t kMost = std::numeric_limits<int>::max() - 65536;
    if (std::min({n, h, w, c, k}) < 1 || (r != 1 && r != 3) || (stride != 1 && stride != 2)) {
      return false;
    }
    const std::int64_t window = (std::int64_t{h} + 4) * (std::int64_t{w} + 4);
    return window <= kMost / std::max(c, k) && window * n <= kMost && w_size() <= kMost;
  }
  /// Multiply-adds of one direction, those with the zero padding counted.
  constexpr std::int64_t macs() const { return y_size() * r * r * c; }
  auto operator<=>(const ConvShape&) const = default;
};

/// What a convolution computes of x, w and y: y, the gradient of x, or that of w.
enum class ConvProduct { kFprop, kDgrad, kWgrad };
constexpr const char* name_of(ConvProduct product) {
  return product == ConvProduct::kFprop   ? "fprop"
         : product == ConvProduct::kDgrad ? "dgrad"
                                          : "wgrad";
}

/// Images [n,h,w,c]; a batch norm sees them as n*h*w rows of c channels.
struct ImageShape {
  int n, h, w, c;
  constexpr std::int64_t rows() const { return std::int64_t{n} * h * w; }
  constexpr std::int64_t size() const { return rows() * c; }
};

/// The statistics of a batch norm, [channels] each: those of a batch of `rows` rows, and the
/// running ones, which follow them.
struct RunningStatistics {
  const float *mean, *variance;
  float *running_mean, *running_variance;
  int channels;
  std::int64_t rows;
  float momentum;
};

/// Windows of side x side, side pixels apart, no padding: [n,h,w,c] -> [n,h/side,w/side,c].
struct PoolShape {
  int n, h, w, c, side;
};

struct LinearShape {
  int rows, in, out;  // y[rows,out] = x[rows,in] w[out,in]^T + b[out]
};

/// What changes from step to step. It lies in device memory, so that a captured graph reads it.
struct StepState {
  std::uint64_t seed = 0;
  std::uint32_t epoch = 0;  // from 0
  std::uint32_t step = 0;   // since the start of training, from 0
  std::int64_t first = 0;   // where the batch begins in the order of the images
  float learning_rate = 0;
  float momentum = 0;
  float weight_decay = 0;
};

/// Running sums over the batches of an epoch, in device memory; added to by softmax_cross_entropy.
struct Metrics {
  double loss_sum;          // of the images' losses
  std::int64_t wrong;       // images whose label is not the first class of the largest logit
  std::int64_t wrong_top5;  // nor among those of the five largest
  std::int64_t images;      // without padding
  std::int64_t not_finite;  // batches whose loss was not finite; sgd_step then changes nothing
};

/// What becomes of a pixel: (value - mean[channel]) / std[channel].
struct Normalisation {
  float mean[3];
  float std[3];
};

constexpr std::size_t kUploadBytes = 256;

namespace cpu {
using Real = float;
#define WRN_OF_REAL
#include "kernels/launchers.h"
#undef WRN_OF_REAL
}  // namespace cpu

namespace cuda {
#define WRN_OF_REAL template <typename Real>
#include "kernels/launchers.h"
#undef WRN_OF_REAL
}  // namespace cuda

}  // namespace wrn

/// Calls the launcher of the context's device, as in WRN_ON(context, synchronise(context)). In a
/// build without CUDA nothing is left of the choice. WRN_ON_REAL in engine/tape.h also chooses the
/// type of the elements.
#define WRN_ON(context, ...)                                                           \
  ([&]() -> decltype(auto) {                                                           \
    if constexpr (::wrn::kHasCuda) {                                                   \
      if ((context).device() == ::wrn::Device::kCuda) return ::wrn::cuda::__VA_ARGS__; \
    }                                                                                  \
    return ::wrn::cpu::__VA_ARGS__;                                                    \
  }())
