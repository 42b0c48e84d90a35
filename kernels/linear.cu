// The linear layer: cuBLAS multiplies, our kernels do what concerns the bias.
//
//   y [rows,out] = x [rows,in] w[out,in]^T + b[out]
//   dx [rows,in] = dy [rows,out] w
//   dw [out,in] = dy^T x,  db[out] = sum over rows of dy
//
// It is the one plain matrix product of a residual network, and 128 x 640 x 10 is nothing beside
// the convolutions, so a library does it. All matrices are row-major and all results overwritten.
//
// The bias is written first, and the product added to it. In the sum over rows, a thread has one
// column of one slice of the rows; the slices are added in order.
#include "kernels/device.cuh"

namespace wrn::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr unsigned kColumns = 32, kSlices = kThreads / kColumns;

/// y[row, :] = b, one thread an element.
__global__ void broadcast_kernel(const float* b, float* y, std::int64_t size, int out) {
  wait_for_previous_kernels();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    y[i] = b[i % out];
  }
}

struct Slices {
  float sum[kSlices][kColumns];
};

/// db[k] = sum over rows of dy[row, k], for a block of columns k.
__global__ void sum_rows_kernel(const float* dy, float* db, int rows, int out) {
  wait_for_previous_kernels();
  const std::int64_t k = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  Slices& shared = shared_storage<Slices>();
  float sum = 0;
  for (std::int64_t row = threadIdx.y; k < out && row < rows; row += kSlices) {
    sum += dy[row * out + k];
  }
  shared.sum[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || k >= out) return;
  for (unsigned slice = 1; slice < kSlices; ++slice) sum += shared.sum[slice][threadIdx.x];
  db[k] = sum;
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
  context.runtime().blas.gemm(false, true, shape.rows, shape.out, shape.in, x, w, 1, y);
}

void linear_backward_data(const float* dy, const float* w, float* dx, const LinearShape& shape,
                          Context& context) {
  check(shape);
  context.runtime().blas.gemm(false, false, shape.rows, shape.in, shape.out, dy, w, 0, dx);
}

void linear_backward_weights(const float* x, const float* dy, float* dw, float* db,
                             const LinearShape& shape, Context& context) {
  check(shape);
  context.runtime().blas.gemm(true, false, shape.out, shape.in, shape.rows, dy, x, 0, dw);
  launch(WRN_KERNEL(sum_rows_kernel), static_cast<unsigned>(divide_up(shape.out, kColumns)),
         dim3{kColumns, kSlices}, sizeof(Slices), context, dy, db, shape.rows, shape.out);
}

// cuBLAS has its own.
std::size_t linear_forward_workspace(const LinearShape&, Context&) { return 0; }
std::size_t linear_backward_data_workspace(const LinearShape&, Context&) { return 0; }
std::size_t linear_backward_weights_workspace(const LinearShape&, Context&) { return 0; }

}  // namespace wrn::cuda
