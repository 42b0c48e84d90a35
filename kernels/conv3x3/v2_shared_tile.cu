// v2: a block computes 32 x 32 of D, and reads every float of global memory once for all of them.
//
// In a tile of 32 x 32, each element of A and of B is needed 32 times. So the block copies a slice
// of both, 32 deep, to shared memory, each thread one element of each, and all threads read it
// there. Global memory is read, and addresses are computed, 1/32 as often as in v1. When a slice is
// loaded, the threads of a warp run along the axis that is contiguous in memory.
#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"
#include "kernels/sum_parts.h"

namespace wrn::cuda::v2 {
namespace {

constexpr int kTile = 32;  // rows, columns and depth

/// [m or n][kk]. The padding puts the elements of a column in different banks.
using Slice = float[kTile][kTile + 1];
struct Slices {
  Slice a, b;
};

template <typename Operand>
__device__ void load(const Operand& operand, int first, int depth, Slice& slice) {
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int i = Operand::kDepthContiguous ? y : x, kk = Operand::kDepthContiguous ? x : y;
  slice[i][kk] = value(operand.at(operand.along(first + i), operand.depth(depth + kk)));
}

template <typename View>
__global__ void shared_tile_kernel(const View whole) {
  wait_for_previous_kernels();
  auto& slices = shared_storage<Slices>();
  const View view = whole.part(static_cast<int>(blockIdx.z));
  const auto [first_m, first_n] = tile_origin(view.columns, kTile, kTile);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);

  float sum = 0;
  for (int depth = view.depth_begin; depth < view.depth_end; depth += kTile) {
    load(view.a, first_m, depth, slices.a);
    load(view.b, first_n, depth, slices.b);
    __syncthreads();
    for (int kk = 0; kk < kTile; ++kk) sum += slices.a[y][kk] * slices.b[x][kk];
    __syncthreads();
  }
  float* out = view.row(first_m + y);
  if (out && first_n + x < view.columns) out[first_n + x] = sum;
}

template <typename View>
void run(const View& view, Context& context) {
  launch(WRN_KERNEL(shared_tile_kernel<View>), tile_grid(view, kTile, kTile), dim3(kTile, kTile),
         sizeof(Slices), context, view);
}

int parts(const ConvShape& shape, Context& context) {
  return wgrad_parts(shape, kTile, kTile, 2, context);
}

}  // namespace

void fprop(const float* x, const float* w, float* y, const ConvShape& shape, Context& context) {
  run(Fprop(x, w, y, shape), context);
}

void dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape, Context& context) {
  run(Dgrad(dy, w, dx, shape), context);
}

void wgrad(const float* x, const float* dy, float* dw, const ConvShape& shape, Context& context) {
  const Wgrad view(x, dy, reinterpret_cast<float*>(context.workspace), shape,
                   parts(shape, context));
  run(view, context);
  sum_parts(view.partial, view.parts, view.rows, view.columns, dw, context);
}

std::size_t wgrad_workspace(const ConvShape& shape, Context& context) {
  return wgrad_partial_bytes(shape, parts(shape, context));
}

}  // namespace wrn::cuda::v2
