// Sums of what a kernel has left in parts.
#pragma once

#include "kernels/context.h"

namespace wrn::cuda {

/// partial [parts][rows][columns] -> sum [columns][rows], in an order that follows from the number
/// of parts alone. With one column nothing is transposed.
void sum_parts(const float* partial, int parts, int rows, int columns, float* sum, Context&);

}  // namespace wrn::cuda
