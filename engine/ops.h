// The table of contents of engine/ops/: what a model can be made of.
//
// Each op checks its arguments, records its forward step on the tape, and leaves the closure that
// records its backward steps; both stand in one file. Images are [n,h,w,c], filters [k,r,r,c].
//
// Images and their gradients are f32, or bf16 where the tape's Context has that precision, from the
// network's input to its average pool; parameters are f32 throughout. An op takes each tensor's
// dtype as it finds it (WRN_ON_REAL), once the check is passed that it is the right one.
#pragma once

#include "engine/parameters.h"
#include "engine/tape.h"

namespace wrn {

/// x [n,h,w,c], w [k,r,r,c] with r = 1 or 3 -> [n,p,q,k]; padding r/2. ops/conv.cpp
Tensor conv2d(Tape&, const Tensor& x, const Tensor& w, int stride);

/// The parameters and running statistics of a batch norm, each [c].
struct BatchNorm {
  Tensor gamma, beta, running_mean, running_variance;
  float epsilon = 1e-5F, momentum = 0.1F;
};
/// Over n, h, w; by the batch's statistics in training (the running ones follow after the backward
/// pass), by the running ones in inference. ops/batch_norm.cpp
Tensor batch_norm(Tape&, const Tensor& x, const BatchNorm&);
/// An image, and the mean and variance [c] of its channels where the op that made it has them.
struct Measured {
  Tensor image, mean = {}, variance = {};
  Measured(const Tensor& image) : image(image) {}
  Measured(const Tensor& image, const Tensor& mean, const Tensor& variance)
      : image(image), mean(mean), variance(variance) {}
};
/// relu(batch_norm(x)). With x's statistics it reads x once, else twice.
Tensor batch_norm_relu(Tape&, const Measured& x, const BatchNorm&);

/// These two do what relu, dropout, batch_norm and conv2d do with fewer passes over memory, for
/// training on CUDA in tf32 or bf16: convolutions hand on the statistics of what they write.
/// ops/preact_conv.cpp
Measured conv2d_measured(Tape&, const Tensor& x, const Tensor& w, int stride);
struct PreactConv {
  BatchNorm norm;
  Tensor filters;  // [k,r,r,c]
  int stride = 1;
  float dropout = 0;
  int dropout_layer = 0;
  Tensor projection = {};  // [k',1,1,c], of the same stride, or none
  bool adds_shortcut = false;
};
struct Conv;  // ops/conv.h
/// What a block's last convolution adds: an image or, where there is a projection, its output. That
/// is a part of the convolution's products and never stored: `image` only stands for it, so that it
/// can have a gradient.
struct Shortcut {
  Tensor image;
  std::shared_ptr<const Conv> projection = {};
};
/// Returns conv2d(a, filters) of a = dropout(relu(batch_norm(x))), plus the shortcut if
/// `adds_shortcut`. With a projection, the shortcut becomes conv2d(a, projection) first.
Measured preact_conv(Tape&, const Measured& x, Shortcut& shortcut, const PreactConv&);

/// ops/elementwise.cpp
Tensor relu(Tape&, const Tensor& x);
Tensor add(Tape&, const Tensor& a, const Tensor& b);
/// Nothing in inference, or with p = 0. `layer` numbers the network's dropouts from 0.
Tensor dropout(Tape&, const Tensor& x, float p, int layer);

/// Windows of side x side, side apart: [n,h,w,c] -> [n,h/side,w/side,c]; the average is f32.
/// ops/pool.cpp
Tensor average_pool(Tape&, const Tensor& x, int side);
Tensor max_pool(Tape&, const Tensor& x, int side);

/// x [rows,...] seen as [rows,in], w [out,in], b [out] -> [rows,out]. ops/linear.cpp
Tensor linear(Tape&, const Tensor& x, const Tensor& w, const Tensor& b);

/// logits [rows,classes], labels i32 [rows] -> the mean loss [1] over the rows whose label is not
/// negative. Adds to the run's Metrics. The end of a tape: no op takes a loss. ops/loss.cpp
Tensor softmax_cross_entropy(Tape&, const Tensor& logits, const Tensor& labels);

/// The optimiser's step on all parameters, which also brings their bf16 copies up to date, if there
/// are any. ops/sgd.cpp
void sgd(Tape&, const Parameters&);

}  // namespace wrn
