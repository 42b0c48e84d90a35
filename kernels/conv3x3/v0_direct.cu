// v0: one thread for each element of the output, which it sums up as the definition says.
//
// With h = p stride + r - pad and v = q stride + s - pad:
//
//   fprop   y [n,p,q,k] = sum over r,s,c of  x[n,h,v,c] w[k,r,s,c]
//   dgrad   dx[n,h,v,c] = sum over r,s,k of  dy[n,p,q,k] w[k,r,s,c]   where such p and q exist
//   wgrad   dw[k,r,s,c] = sum over n,p,q of  x[n,h,v,c] dy[n,p,q,k]
//
// Neighbouring threads have neighbouring channels. Every multiply-add reads two floats from global
// memory; only caches make up for that.
#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"

namespace wrn::cuda::v0 {
namespace {

constexpr unsigned kThreads = 256;

/// A ConvShape with what is derived from it: its functions are the host's.
struct Shape {
  explicit Shape(const ConvShape& s)
      : n(s.n),
        h(s.h),
        w(s.w),
        c(s.c),
        k(s.k),
        r(s.r),
        stride(s.stride),
        pad(s.pad()),
        p(s.p()),
        q(s.q()) {
    check_shape(s);
  }
  int n, h, w, c, k, r, stride, pad, p, q;
};

__device__ std::int64_t thread_index() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

__global__ void direct_fprop_kernel(const float* x, const float* w, float* y, Shape s) {
  wait_for_previous_kernels();
  std::int64_t i = thread_index();
  if (i >= std::int64_t{s.n} * s.p * s.q * s.k) return;
  float* out = y + i;
  const int k = static_cast<int>(i % s.k);
  const int q = static_cast<int>((i /= s.k) % s.q);
  const int p = static_cast<int>((i /= s.q) % s.p);
  const std::int64_t n = i / s.p;
  float sum = 0;
  for (int r = 0; r < s.r; ++r) {
    const int h = p * s.stride + r - s.pad;
    if (h < 0 || h >= s.h) continue;
    for (int t = 0; t < s.r; ++t) {
      const int v = q * s.stride + t - s.pad;
      if (v < 0 || v >= s.w) continue;
      const float* pixel = x + ((n * s.h + h) * s.w + v) * s.c;
      const float* tap = w + ((std::int64_t{k} * s.r + r) * s.r + t) * s.c;
      for (int c = 0; c < s.c; ++c) sum += pixel[c] * tap[c];
    }
  }
  *out = sum;
}

__global__ void direct_dgrad_kernel(const float* dy, const float* w, float* dx, Shape s) {
  wait_for_previous_kernels();
  std::int64_t i = thread_index();
  if (i >= std::int64_t{s.n} * s.h * s.w * s.c) return;
  float* out = dx + i;
  const int c = static_cast<int>(i % s.c);
  const int v = static_cast<int>((i /= s.c) % s.w);
  const int h = static_cast<int>((i /= s.w) % s.h);
  const std::int64_t n = i / s.h;
  float sum = 0;
  for (int r = 0; r < s.r; ++r) {
    const int p = (h + s.pad - r) / s.stride;
    if (p * s.stride != h + s.pad - r || p < 0 || p >= s.p) continue;
    for (int t = 0; t < s.r; ++t) {
      const int q = (v + s.pad - t) / s.stride;
      if (q * s.stride != v + s.pad - t || q < 0 || q >= s.q) continue;
      const float* pixel = dy + ((n * s.p + p) * s.q + q) * s.k;
      const float* tap = w + (std::int64_t{r} * s.r + t) * s.c + c;
      for (int k = 0; k < s.k; ++k) sum += pixel[k] * tap[std::int64_t{k} * s.r * s.r * s.c];
    }
  }
  *out = sum;
}

__global__ void direct_wgrad_kernel(const float* x, const float* dy, float* dw, Shape s) {
  wait_for_previous_kernels();
  std::int64_t i = thread_index();
  if (i >= std::int64_t{s.k} * s.r * s.r * s.c) return;
  float* out = dw + i;
  const int c = static_cast<int>(i % s.c);
  const int t = static_cast<int>((i /= s.c) % s.r);
  const int r = static_cast<int>((i /= s.r) % s.r);
  const std::int64_t k = i / s.r;
  float sum = 0;
  for (std::int64_t n = 0; n < s.n; ++n) {
    for (int p = 0; p < s.p; ++p) {
      const int h = p * s.stride + r - s.pad;
      if (h < 0 || h >= s.h) continue;
      for (int q = 0; q < s.q; ++q) {
        const int v = q * s.stride + t - s.pad;
        if (v < 0 || v >= s.w) continue;
        sum += x[((n * s.h + h) * s.w + v) * s.c + c] * dy[((n * s.p + p) * s.q + q) * s.k + k];
      }
    }
  }
  *out = sum;
}

unsigned blocks(std::int64_t threads) {
  return static_cast<unsigned>(divide_up(threads, kThreads));
}

}  // namespace

void fprop(const float* x, const float* w, float* y, const ConvShape& shape, Context& context) {
  launch(WRN_KERNEL(direct_fprop_kernel), blocks(shape.y_size()), kThreads, 0, context, x, w, y,
         Shape(shape));
}

void dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape, Context& context) {
  launch(WRN_KERNEL(direct_dgrad_kernel), blocks(shape.x_size()), kThreads, 0, context, dy, w, dx,
         Shape(shape));
}

void wgrad(const float* x, const float* dy, float* dw, const ConvShape& shape, Context& context) {
  launch(WRN_KERNEL(direct_wgrad_kernel), blocks(shape.w_size()), kThreads, 0, context, x, dy, dw,
         Shape(shape));
}

std::size_t wgrad_workspace(const ConvShape&, Context&) { return 0; }

}  // namespace wrn::cuda::v0
