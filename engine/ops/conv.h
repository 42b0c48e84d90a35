// A convolution on a tape: what the ops around one share.
#pragma once

#include "engine/tape.h"

namespace wrn {

struct Conv {
  std::string layer;
  Tensor x, w, filters;  // filters: w, or its bf16 copy where x is bf16
  ConvShape shape;
};

/// Throws, in the name of `op`, where x and w make no convolution.
Conv check_conv(const char* op, const Tape&, const Tensor& x, const Tensor& w, int stride);
/// The output, [n,p,q,k], for a step to write.
Tensor make_output(Tape&, const Conv&);
/// Adds to the filters' gradient, if they need one.
void record_wgrad(Tape&, const Conv&, const Tensor& dy);
/// Its part of x's gradient, which is not added yet.
Tensor record_dgrad(Tape&, const Conv&, const Tensor& dy);

}  // namespace wrn
