// The linear layer: cuBLAS multiplies, our kernels do what concerns the bias.
//
//   y [rows,out] = x [rows,in] w[out,in]^T + b[out]
//   dx [rows,in] = dy [rows,out] w
//   dw [out,in] = dy^T x,  db[out] = sum over rows of dy
//
// It is the one plain matrix product of a residual network, and 128 x 640 x 10 is nothing beside
// the convolutions, so a library does it. All matrices are row-major and all results overwritten.
//
// The bias is written first, and the product added to it.
#include "kernels/device.cuh"
#include "kernels/sum_parts.h"

namespace wrn::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// y[row, :] = b, one thread an element.
__global__ void broadcast_kernel(const float* b, float* y, std::int64_t size, int out) {
  wait_for_previous_kernels();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    y[i] = b[i % out];
  }
}

void check(const LinearShape& s) {
  WRN_CHECK(s.rows > 0 && s.in > 0 && s.out > 0, "linear rows={} in={} out={}", s.rows, s.in,
            s.out);
}

}  // namespace

void linear_forward(const float* x, const float* w, const float* b, float* y,
                    const LinearShape& shape, Context& context) {
  check(shape);
  const std::int64_t size = std::int64_t{shape.rows} * shape.out;
  launch(WRN_KERNEL(broadcast_kernel), grid_stride_blocks(size, kThreads, context), kThreads, 0,
         context, b, y, size, shape.out);
  context.runtime().blas.gemm(false, true, shape.rows, shape.out, shape.in, x, w, 1, y,
                              context.workspace);
}

void linear_backward_data(const float* dy, const float* w, float* dx, const LinearShape& shape,
                          Context& context) {
  check(shape);
  context.runtime().blas.gemm(false, false, shape.rows, shape.in, shape.out, dy, w, 0, dx,
                              context.workspace);
}

void linear_backward_weights(const float* x, const float* dy, float* dw, float* db,
                             const LinearShape& shape, Context& context) {
  check(shape);
  context.runtime().blas.gemm(true, false, shape.out, shape.in, shape.rows, dy, x, 0, dw,
                              context.workspace);
  sum_parts(dy, shape.rows, shape.out, 1, db, context);
}

std::size_t linear_forward_workspace(const LinearShape&, Context&) { return Blas::kWorkspaceBytes; }
std::size_t linear_backward_data_workspace(const LinearShape&, Context&) {
  return Blas::kWorkspaceBytes;
}
std::size_t linear_backward_weights_workspace(const LinearShape&, Context&) {
  return Blas::kWorkspaceBytes;
}

}  // namespace wrn::cuda
