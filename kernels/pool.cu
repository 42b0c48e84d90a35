// Average and max pooling of windows that tile the image: side x side, side pixels apart.
//
//   average   y = sum of the window / side^2;      dx = dy / side^2 in all of the window
//   max       y = the window's largest element;    dx = dy there, 0 in the rest of the window
//
// Layout and ownership. x is [n,h,w,c], y [n,h/side,w/side,c]. A thread owns V channels of one
// output: 16 bytes of them, four floats or eight bf16, where c and the pointers allow, else one. It
// reads, or in the backward pass writes, the whole window in row-major order; neighbouring threads
// have neighbouring channels. As the windows tile the image, the backward pass writes every element
// once: it overwrites.
//
// Of equal elements the first is the maximum, and a NaN is larger than any number, as in PyTorch.
// `argmax` is [n,h/side,w/side,c] of int32: the maximum's index in its window, whatever its side.
#include "kernels/device.cuh"

namespace wrn::cuda {
namespace {

constexpr unsigned kThreads = 128;

/// A pooling of images whose channels are taken V at a time.
struct Pool {
  int h, w, p, q, side;
  std::int64_t groups;   // in a pixel
  std::int64_t outputs;  // groups of y

  /// Where in x the window of output i begins, in groups; the rest of it is offset(0..area()-1) on.
  __device__ std::int64_t begin(std::int64_t i) const {
    const std::int64_t group = i % groups, pixel = i / groups;
    const std::int64_t column = pixel % q, row = pixel / q % p, image = pixel / q / p;
    return ((image * h + row * side) * w + column * side) * groups + group;
  }
  __device__ std::int64_t offset(int index) const {
    return (std::int64_t{index / side} * w + index % side) * groups;
  }
  __device__ int area() const { return side * side; }
};

template <int V>
using Indices = Group<std::int32_t, V>;

__device__ std::int64_t thread_index() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}

template <typename Real, int V>
__global__ void average_pool_forward_kernel(const Group<Real, V>* x, Floats<V>* y, Pool pool) {
  wait_for_previous_kernels();
  const std::int64_t i = thread_index();
  if (i >= pool.outputs) return;
  x += pool.begin(i);
  Floats<V> sum{};
#pragma unroll 16  // so many loads on their way
  for (int index = 0; index < pool.area(); ++index) {
    const Floats<V> v = to_floats(x[pool.offset(index)]);
#pragma unroll
    for (int k = 0; k < V; ++k) sum.at[k] += v.at[k];
  }
#pragma unroll
  for (int k = 0; k < V; ++k) sum.at[k] /= static_cast<float>(pool.area());
  y[i] = sum;
}

template <typename Real, int V>
__global__ void average_pool_backward_kernel(const Floats<V>* dy, Group<Real, V>* dx, Pool pool) {
  wait_for_previous_kernels();
  const std::int64_t i = thread_index();
  if (i >= pool.outputs) return;
  dx += pool.begin(i);
  Floats<V> share = dy[i];
#pragma unroll
  for (int k = 0; k < V; ++k) share.at[k] /= static_cast<float>(pool.area());
  const Group<Real, V> rounded = from_floats<Real>(share);
  for (int index = 0; index < pool.area(); ++index) dx[pool.offset(index)] = rounded;
}

template <typename Real, int V>
__global__ void max_pool_forward_kernel(const Group<Real, V>* x, Group<Real, V>* y,
                                        Indices<V>* argmax, Pool pool) {
  wait_for_previous_kernels();
  const std::int64_t i = thread_index();
  if (i >= pool.outputs) return;
  x += pool.begin(i);
  Floats<V> largest = to_floats(x[0]);
  Indices<V> where{};
#pragma unroll 4
  for (int index = 1; index < pool.area(); ++index) {
    const Floats<V> v = to_floats(x[pool.offset(index)]);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const bool larger = v.at[k] > largest.at[k] || v.at[k] != v.at[k];
      largest.at[k] = larger ? v.at[k] : largest.at[k];
      where.at[k] = larger ? index : where.at[k];
    }
  }
  y[i] = from_floats<Real>(largest);
  argmax[i] = where;
}

template <typename Real, int V>
__global__ void max_pool_backward_kernel(const Group<Real, V>* dy, const Indices<V>* argmax,
                                         Group<Real, V>* dx, Pool pool) {
  wait_for_previous_kernels();
  const std::int64_t i = thread_index();
  if (i >= pool.outputs) return;
  dx += pool.begin(i);
  const Group<Real, V> d = dy[i];
  const Indices<V> where = argmax[i];
  for (int index = 0; index < pool.area(); ++index) {
    Group<Real, V> v;
#pragma unroll
    for (int k = 0; k < V; ++k) v.at[k] = index == where.at[k] ? d.at[k] : Real{};
    dx[pool.offset(index)] = v;
  }
}

// The launches, for V channels a thread.

std::int64_t outputs(const PoolShape& s) {
  constexpr int kLargestSide = 32768;  // so that an index in a window is an int32
  WRN_CHECK(s.n > 0 && s.c > 0 && s.side > 0 && s.side <= kLargestSide && s.h >= s.side &&
                s.w >= s.side && s.h % s.side == 0 && s.w % s.side == 0,
            "pooling n={} h={} w={} c={} side={}", s.n, s.h, s.w, s.c, s.side);
  return std::int64_t{s.n} * (s.h / s.side) * (s.w / s.side) * s.c;
}

template <int V, typename K, typename... Arrays>
void launch_pool(const K& kernel, const PoolShape& s, Context& context, Arrays*... arrays) {
  const std::int64_t count = outputs(s) / V;  // which checks the shape
  const Pool pool{s.h, s.w, s.h / s.side, s.w / s.side, s.side, s.c / V, count};
  launch(kernel, static_cast<unsigned>(divide_up(pool.outputs, kThreads)), kThreads, 0, context,
         arrays..., pool);
}

/// Whether all of a thread's 16 bytes of channels are there, and aligned.
template <typename Real, typename... T>
bool wide(const PoolShape& s, const T*... arrays) {
  return s.c % kWide<Real> == 0 && (aligned16(arrays) && ...);
}

template <int V, typename Real>
void average_forward(const Real* x, float* y, const PoolShape& s, Context& context) {
  launch_pool<V>(WRN_KERNEL(average_pool_forward_kernel<Real, V>), s, context, grouped<V>(x),
                 grouped<V>(y));
}

template <int V, typename Real>
void average_backward(const float* dy, Real* dx, const PoolShape& s, Context& context) {
  launch_pool<V>(WRN_KERNEL(average_pool_backward_kernel<Real, V>), s, context, grouped<V>(dy),
                 grouped<V>(dx));
}

template <int V, typename Real>
void max_forward(const Real* x, Real* y, std::uint8_t* argmax, const PoolShape& s,
                 Context& context) {
  launch_pool<V>(WRN_KERNEL(max_pool_forward_kernel<Real, V>), s, context, grouped<V>(x),
                 grouped<V>(y), reinterpret_cast<Indices<V>*>(argmax));
}

template <int V, typename Real>
void max_backward(const Real* dy, const std::uint8_t* argmax, Real* dx, const PoolShape& s,
                  Context& context) {
  launch_pool<V>(WRN_KERNEL(max_pool_backward_kernel<Real, V>), s, context, grouped<V>(dy),
                 reinterpret_cast<const Indices<V>*>(argmax), grouped<V>(dx));
}

}  // namespace

template <typename Real>
void average_pool_forward(const Real* x, float* y, const PoolShape& shape, Context& context) {
  wide<Real>(shape, x, y) ? average_forward<kWide<Real>>(x, y, shape, context)
                          : average_forward<1>(x, y, shape, context);
}

template <typename Real>
void average_pool_backward(const float* dy, Real* dx, const PoolShape& shape, Context& context) {
  wide<Real>(shape, dy, dx) ? average_backward<kWide<Real>>(dy, dx, shape, context)
                            : average_backward<1>(dy, dx, shape, context);
}

template <typename Real>
void max_pool_forward(const Real* x, Real* y, std::uint8_t* argmax, const PoolShape& shape,
                      Context& context) {
  wide<Real>(shape, x, y, argmax) ? max_forward<kWide<Real>>(x, y, argmax, shape, context)
                                  : max_forward<1>(x, y, argmax, shape, context);
}

template <typename Real>
void max_pool_backward(const Real* dy, const std::uint8_t* argmax, Real* dx, const PoolShape& shape,
                       Context& context) {
  wide<Real>(shape, dy, argmax, dx) ? max_backward<kWide<Real>>(dy, argmax, dx, shape, context)
                                    : max_backward<1>(dy, argmax, dx, shape, context);
}

#define WRN_FOR(Real)                                                                            \
  template void average_pool_forward(const Real*, float*, const PoolShape&, Context&);           \
  template void average_pool_backward(const float*, Real*, const PoolShape&, Context&);          \
  template void max_pool_forward(const Real*, Real*, std::uint8_t*, const PoolShape&, Context&); \
  template void max_pool_backward(const Real*, const std::uint8_t*, Real*, const PoolShape&,     \
                                  Context&);
WRN_FOR(float)
WRN_FOR(bf16)

std::size_t max_pool_argmax_bytes(const PoolShape& shape, Context&) {
  return sizeof(std::int32_t) * static_cast<std::size_t>(outputs(shape));
}

std::size_t average_pool_forward_workspace(const PoolShape&, Context&) { return 0; }
std::size_t average_pool_backward_workspace(const PoolShape&, Context&) { return 0; }
std::size_t max_pool_forward_workspace(const PoolShape&, Context&) { return 0; }
std::size_t max_pool_backward_workspace(const PoolShape&, Context&) { return 0; }

}  // namespace wrn::cuda
