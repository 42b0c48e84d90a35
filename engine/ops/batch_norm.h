// A batch norm on a tape: what the ops around one share.
#pragma once

#include "engine/ops.h"

namespace wrn {

ImageShape image_shape(const Tensor& x);
/// Throws, in the name of `op`, where x and the norm do not fit.
void check_norm(const char* op, const Tape&, const Tensor& x, const BatchNorm&);
/// Records that the running statistics follow those of the batch, after the backward pass.
void record_running_statistics(Tape&, const BatchNorm&, const Measured& x);

struct Activation {
  Tensor y, mask;
};
/// dropout(relu(batch_norm(x))) of an x with statistics, and its mask (fused.h), in one pass.
Activation record_activation(Tape&, const Measured& x, const BatchNorm&, float dropout = 0,
                             int layer = 0);

}  // namespace wrn
