// The table of contents of kernels/: every launcher there is.
//
// Conventions. Tensors are dense, fp32 unless said: images NHWC, filters KRSC (output channel,
// filter row, filter column, input channel), matrices row-major. Outputs are overwritten. No two
// pointers may overlap unless the comment says "in place". A launcher checks what it is given,
// throws wrn::Error, and takes its Context last. Where scratch is needed, X_workspace() returns the
// bytes that Context::workspace must have while X runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/context.h"

namespace wrn {

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
  /// Multiply-adds of one direction, those with the zero padding counted.
  constexpr std::int64_t macs() const { return y_size() * r * r * c; }
};

/// Images [n,h,w,c]; a batch norm sees them as n*h*w rows of c channels.
struct ImageShape {
  int n, h, w, c;
  constexpr std::int64_t rows() const { return std::int64_t{n} * h * w; }
  constexpr std::int64_t size() const { return rows() * c; }
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
  std::uint64_t seed;
  std::uint32_t epoch;  // from 0
  std::uint32_t step;   // since the start of training, from 0
  float learning_rate;
  float momentum;
  float gradient_scale;  // 1 - dampening; 1 in the first step of a cleared momentum buffer
  float weight_decay;
};

/// Running sums over the batches of an epoch, in device memory; added to by softmax_cross_entropy.
struct Metrics {
  double loss_sum;          // of the images' losses
  std::int64_t wrong;       // images whose label is not the class of the largest logit
  std::int64_t images;      // without padding
  std::int64_t not_finite;  // batches whose loss was not finite; sgd_step then changes nothing
};

/// What becomes of a pixel: (value - mean[channel]) / std[channel].
struct Normalisation {
  float mean[3];
  float std[3];
};

namespace cpu {

// --- Convolution ------------------------------------------------------------- cpu/conv.cpp
/// x [n,h,w,c], w [k,r,r,c] -> y [n,p,q,k].
void conv_fprop(const float* x, const float* w, float* y, const ConvShape&, Context&);
/// dy [n,p,q,k], w [k,r,r,c] -> dx [n,h,w,c].
void conv_dgrad(const float* dy, const float* w, float* dx, const ConvShape&, Context&);
/// x [n,h,w,c], dy [n,p,q,k] -> dw [k,r,r,c].
void conv_wgrad(const float* x, const float* dy, float* dw, const ConvShape&, Context&);
std::size_t conv_fprop_workspace(const ConvShape&, Context&);
std::size_t conv_dgrad_workspace(const ConvShape&, Context&);
std::size_t conv_wgrad_workspace(const ConvShape&, Context&);

// --- Batch norm, alone or with the ReLU behind it ---------------------- cpu/batch_norm.cpp
/// y = gamma (x - mean) / sqrt(variance + epsilon) + beta, over the batch's own mean[c] and
/// (biased) variance[c], which it writes. With relu, y = max(y, 0), and `mask`
/// (batch_norm_mask_bytes of opaque bytes) remembers where it was cut; without, mask is null. In
/// place: y may be x.
void batch_norm_forward(const float* x, const float* gamma, const float* beta, float* y,
                        float* mean, float* variance, std::uint8_t* mask, const ImageShape&,
                        float epsilon, bool relu, Context&);
/// The same with given statistics, for evaluation. In place: y may be x.
void batch_norm_inference(const float* x, const float* gamma, const float* beta, const float* mean,
                          const float* variance, float* y, const ImageShape&, float epsilon,
                          bool relu, Context&);
/// dy -> dx, dgamma[c], dbeta[c], through the ReLU when `relu`. In place: dx may be dy.
void batch_norm_backward(const float* x, const float* dy, const float* gamma, const float* mean,
                         const float* variance, const std::uint8_t* mask, float* dx, float* dgamma,
                         float* dbeta, const ImageShape&, float epsilon, bool relu, Context&);
std::size_t batch_norm_mask_bytes(const ImageShape&, Context&);
std::size_t batch_norm_forward_workspace(const ImageShape&, float epsilon, bool relu, Context&);
std::size_t batch_norm_inference_workspace(const ImageShape&, float epsilon, bool relu, Context&);
std::size_t batch_norm_backward_workspace(const ImageShape&, float epsilon, bool relu, Context&);
/// running = (1 - momentum) running + momentum batch, with the unbiased variance (rows/(rows-1)),
/// as PyTorch and Torch do. Changes nothing once a loss was not finite.
void update_running_statistics(const float* mean, const float* variance, float* running_mean,
                               float* running_variance, const ImageShape&, float momentum,
                               const Metrics*, Context&);

// --- Elementwise ------------------------------------------------------- cpu/elementwise.cpp
/// y = max(x, 0). In place: y may be x.
void relu_forward(const float* x, float* y, std::int64_t size, Context&);
/// dx = y > 0 ? dy : 0, from the ReLU's output. In place: dx may be dy.
void relu_backward(const float* y, const float* dy, float* dx, std::int64_t size, Context&);
/// out = a + b. In place: out may be a or b.
void add(const float* a, const float* b, float* out, std::int64_t size, Context&);
/// y = x / (1 - p) where the element is kept, else 0; `layer` numbers the network's dropouts. The
/// mask is a function of (seed, layer, step, row, element), so the backward pass is this same
/// launch on the gradient. x is [rows, row_size]. In place: y may be x.
void dropout(const float* x, float* y, int rows, std::int64_t row_size, float p, int layer,
             const StepState*, Context&);

// --- Pooling ------------------------------------------------------------------ cpu/pool.cpp
void average_pool_forward(const float* x, float* y, const PoolShape&, Context&);
void average_pool_backward(const float* dy, float* dx, const PoolShape&, Context&);
/// `argmax`: max_pool_argmax_bytes of opaque bytes, from the forward to the backward pass.
void max_pool_forward(const float* x, float* y, std::uint8_t* argmax, const PoolShape&, Context&);
void max_pool_backward(const float* dy, const std::uint8_t* argmax, float* dx, const PoolShape&,
                       Context&);
std::size_t max_pool_argmax_bytes(const PoolShape&, Context&);
std::size_t average_pool_forward_workspace(const PoolShape&, Context&);
std::size_t average_pool_backward_workspace(const PoolShape&, Context&);
std::size_t max_pool_forward_workspace(const PoolShape&, Context&);
std::size_t max_pool_backward_workspace(const PoolShape&, Context&);

// --- Linear ----------------------------------------------------------------- cpu/linear.cpp
void linear_forward(const float* x, const float* w, const float* b, float* y, const LinearShape&,
                    Context&);
void linear_backward_data(const float* dy, const float* w, float* dx, const LinearShape&, Context&);
void linear_backward_weights(const float* x, const float* dy, float* dw, float* db,
                             const LinearShape&, Context&);
std::size_t linear_forward_workspace(const LinearShape&, Context&);
std::size_t linear_backward_data_workspace(const LinearShape&, Context&);
std::size_t linear_backward_weights_workspace(const LinearShape&, Context&);

// --- Loss and optimiser ------------------------------------------------- cpu/training.cpp
/// logits [rows, classes], labels [rows] (a negative label is padding: no loss, no gradient) ->
/// loss[1], the mean over the images; dlogits = (softmax - one-hot) / images. Adds to Metrics.
/// dlogits may be null (evaluation). In place: dlogits may be logits.
void softmax_cross_entropy(const float* logits, const std::int32_t* labels, float* loss,
                           float* dlogits, Metrics*, int rows, int classes, Context&);
/// Nesterov's momentum as Torch writes it, over all parameters at once:
///   g = gradient + weight_decay w;  m = momentum m + gradient_scale g;
///   w -= learning_rate (nesterov ? g + momentum m : m)
/// Changes nothing once a loss was not finite.
void sgd_step(float* w, const float* gradient, float* m, std::int64_t size, bool nesterov,
              const StepState*, const Metrics*, Context&);

// --- Input -------------------------------------------------------------------- cpu/input.cpp
/// Row i of x [rows,32,32,3] and labels[i] are image indices[i] of the data set (images
/// [*,32,32,3] uint8), normalised, and with augment flipped with probability 1/2, then padded by 4
/// pixels of reflection and cropped at random, keyed by (seed, epoch, index). A negative index is
/// padding: zeros, label -1.
void load_images(const std::uint8_t* images, const std::uint8_t* image_labels,
                 const std::int32_t* indices, float* x, std::int32_t* labels, int rows,
                 const Normalisation&, bool augment, const StepState*, Context&);

}  // namespace cpu
}  // namespace wrn
