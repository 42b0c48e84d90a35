// v1: one thread for each element of D, whichever of the three products D is.
//
// The three nests of loops become one loop over kk, and the view knows where an element lies. Only
// the code gains by that, not the speed: a multiply-add still reads two floats from global memory,
// and now computes both addresses from kk. But wgrad gains: its depth is split, so that even the
// 432 outputs of the first layer keep a GPU busy.
#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"
#include "kernels/sum_parts.h"

namespace wrn::cuda::v1 {
namespace {

constexpr int kRows = 8, kColumns = 32;  // of D in a block

template <typename View>
__global__ void implicit_gemm_kernel(const View whole) {
  wait_for_previous_kernels();
  const View view = whole.part(static_cast<int>(blockIdx.z));
  const auto [first_m, first_n] = tile_origin(view.columns, kRows, kColumns);
  const int m = first_m + static_cast<int>(threadIdx.y);
  const int n = first_n + static_cast<int>(threadIdx.x);
  float* out = view.row(m);
  if (!out || n >= view.columns) return;

  const Place row = view.a.along(m), column = view.b.along(n);
  float sum = 0;
  for (int kk = view.depth_begin; kk < view.depth_end; ++kk) {
    sum += value(view.a.at(row, view.a.depth(kk))) * value(view.b.at(column, view.b.depth(kk)));
  }
  out[n] = sum;
}

template <typename View>
void run(const View& view, Context& context) {
  launch(WRN_KERNEL(implicit_gemm_kernel<View>), tile_grid(view, kRows, kColumns),
         dim3(kColumns, kRows), 0, context, view);
}

int parts(const ConvShape& shape, Context& context) {
  return wgrad_parts(shape, kRows, kColumns, 8, context);
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

}  // namespace wrn::cuda::v1
