// Average and max pooling of windows that tile the image: side x side, side pixels apart.
//
//   average   y = sum of the window / side^2;      dx = dy / side^2 in all of the window
//   max       y = the window's largest element;    dx = dy there, 0 in the rest of the window
//
// Layout and ownership. x is [n,h,w,c], y [n,h/side,w/side,c]. A thread has V channels of one
// output: 16 bytes of them, four floats or eight bf16, where c allows, else one; neighbouring
// threads have neighbouring channels. It reads, or in the backward pass writes, the window in
// row-major order. In average pooling, of which a network has one output an image, too few for a
// thread each, threads above each other share a window and merge their sums. As the windows tile
// the image, the backward pass writes every element once: it overwrites.
//
// Of equal elements the first is the maximum, and a NaN is larger than any number, as in PyTorch.
// `argmax` is [n,h/side,w/side,c] of int32: the maximum's index in its window, whatever its side.
#include <algorithm>
#include <bit>

#include "kernels/channel_sums.cuh"
#include "kernels/divisor.h"

namespace wrn::cuda {
namespace {

constexpr unsigned kThreads = 128;
constexpr int kAtOnce = 8;  // pixels that a thread asks for before it adds them

/// A pooling of images whose channels are taken V at a time.
struct Pool {
  int h, w;
  Divisor p, q, side;
  Divisor groups;  // in a pixel
  int outputs;     // groups of y

  /// Where in x the window of output i begins, in groups; the rest of it is offset(0..area()-1) on.
  __device__ std::int64_t begin(int i) const {
    const int pixel = groups.divide(i), line = q.divide(pixel), image = p.divide(line);
    const int row = line - image * p.value(), column = pixel - line * q.value();
    return ((std::int64_t{image} * h + row * side.value()) * w + column * side.value()) *
               groups.value() +
           (i - pixel * groups.value());
  }
  __device__ std::int64_t offset(int index) const {
    const int row = side.divide(index);
    return (std::int64_t{row} * w + index - row * side.value()) * groups.value();
  }
  __device__ int area() const { return side.value() * side.value(); }
};

template <int V>
using Indices = Group<std::int32_t, V>;

__device__ int output_index() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

template <typename Real, int V>
__global__ void average_pool_forward_kernel(const Group<Real, V>* x, Floats<V>* y, Pool pool) {
  wait_for_previous_kernels();
  const int i = output_index(), high = static_cast<int>(blockDim.y);
  x += pool.begin(i);
  PlainSums<V> mine{};
  for (int first = static_cast<int>(threadIdx.y); i < pool.outputs && first < pool.area();
       first += kAtOnce * high) {
    Packed<Real, V> few[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int index = first + j * high;
      few[j] = Packed(x + pool.offset(index), index < pool.area());
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) mine.add(few[j].floats());
  }
  merge_column<kThreads>(mine);
  if (threadIdx.y > 0 || i >= pool.outputs) return;
#pragma unroll
  for (int k = 0; k < V; ++k) mine.sum.at[k] /= static_cast<float>(pool.area());
  y[i] = mine.sum;
}

template <typename Real, int V>
__global__ void average_pool_backward_kernel(const Floats<V>* dy, Group<Real, V>* dx, Pool pool) {
  wait_for_previous_kernels();
  const int i = output_index();
  if (i >= pool.outputs) return;
  dx += pool.begin(i);
  Floats<V> share = dy[i];
#pragma unroll
  for (int k = 0; k < V; ++k) share.at[k] /= static_cast<float>(pool.area());
  const Group<Real, V> rounded = from_floats<Real>(share);
  for (int index = static_cast<int>(threadIdx.y); index < pool.area();
       index += static_cast<int>(blockDim.y)) {
    dx[pool.offset(index)] = rounded;
  }
}

template <typename Real, int V>
__global__ void max_pool_forward_kernel(const Group<Real, V>* x, Group<Real, V>* y,
                                        Indices<V>* argmax, Pool pool) {
  wait_for_previous_kernels();
  const int i = output_index();
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
  const int i = output_index();
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

/// `high` threads share a window.
template <int V, typename K, typename... Arrays>
void launch_pool(const K& kernel, const PoolShape& s, unsigned high, Context& context,
                 Arrays*... arrays) {
  const std::int64_t count = outputs(s) / V;  // which checks the shape
  WRN_CHECK(count <= 0x7FFFFFFF - kThreads, "pooling to {} groups of channels", count);
  const Pool pool{s.h,
                  s.w,
                  Divisor(s.h / s.side),
                  Divisor(s.w / s.side),
                  Divisor(s.side),
                  Divisor(s.c / V),
                  static_cast<int>(count)};
  const unsigned wide = kThreads / high;
  launch(kernel, static_cast<unsigned>(divide_up(count, wide)), dim3{wide, high},
         sizeof(Column<PlainSums<V>, kThreads>), context, arrays..., pool);
}
/// As many as make the window one round of a thread's loads, but with at least 16 groups next to
/// each other.
unsigned average_pool_high(const PoolShape& s) {
  constexpr std::int64_t kMost = kThreads / 16;
  const std::int64_t rounds = divide_up(std::int64_t{s.side} * s.side, kAtOnce);
  return std::bit_ceil(static_cast<unsigned>(std::min(rounds, kMost)));
}

template <int V, typename Real>
void average_forward(const Real* x, float* y, const PoolShape& s, Context& context) {
  launch_pool<V>(WRN_KERNEL(average_pool_forward_kernel<Real, V>), s, average_pool_high(s), context,
                 grouped<V>(x), grouped<V>(y));
}

template <int V, typename Real>
void average_backward(const float* dy, Real* dx, const PoolShape& s, Context& context) {
  launch_pool<V>(WRN_KERNEL(average_pool_backward_kernel<Real, V>), s, average_pool_high(s),
                 context, grouped<V>(dy), grouped<V>(dx));
}

template <int V, typename Real>
void max_forward(const Real* x, Real* y, std::uint8_t* argmax, const PoolShape& s,
                 Context& context) {
  launch_pool<V>(WRN_KERNEL(max_pool_forward_kernel<Real, V>), s, 1, context, grouped<V>(x),
                 grouped<V>(y), reinterpret_cast<Indices<V>*>(argmax));
}

template <int V, typename Real>
void max_backward(const Real* dy, const std::uint8_t* argmax, Real* dx, const PoolShape& s,
                  Context& context) {
  launch_pool<V>(WRN_KERNEL(max_pool_backward_kernel<Real, V>), s, 1, context, grouped<V>(dy),
                 reinterpret_cast<const Indices<V>*>(argmax), grouped<V>(dx));
}

}  // namespace

template <typename Real>
void average_pool_forward(const Real* x, float* y, const PoolShape& shape, Context& context) {
  check_aligned(x, y);
  shape.c % kWide<Real> == 0 ? average_forward<kWide<Real>>(x, y, shape, context)
                             : average_forward<1>(x, y, shape, context);
}

template <typename Real>
void average_pool_backward(const float* dy, Real* dx, const PoolShape& shape, Context& context) {
  check_aligned(dy, dx);
  shape.c % kWide<Real> == 0 ? average_backward<kWide<Real>>(dy, dx, shape, context)
                             : average_backward<1>(dy, dx, shape, context);
}

template <typename Real>
void max_pool_forward(const Real* x, Real* y, std::uint8_t* argmax, const PoolShape& shape,
                      Context& context) {
  check_aligned(x, y, argmax);
  shape.c % kWide<Real> == 0 ? max_forward<kWide<Real>>(x, y, argmax, shape, context)
                             : max_forward<1>(x, y, argmax, shape, context);
}

template <typename Real>
void max_pool_backward(const Real* dy, const std::uint8_t* argmax, Real* dx, const PoolShape& shape,
                       Context& context) {
  check_aligned(dy, argmax, dx);
  shape.c % kWide<Real> == 0 ? max_backward<kWide<Real>>(dy, argmax, dx, shape, context)
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
