// The host's side of the views.
#include "kernels/conv3x3/implicit_gemm.cuh"

namespace wrn::cuda {

void check_shape(const ConvShape& s) {
  WRN_CHECK(s.is_possible(),
            "no convolution, or one of more than 2^31 pixels, or elements in an image or the "
            "filters: n={} h={} w={} c={} k={} r={} stride={}",
            s.n, s.h, s.w, s.c, s.k, s.r, s.stride);
}

namespace {

template <typename T>
bool vectorisable(const ConvShape& s) {
  constexpr int kGroup = 16 / sizeof(T);
  return s.c % kGroup == 0 && s.k % kGroup == 0;
}

/// The window of a forward convolution over x.
template <typename T>
Window<T> input_window(const T* x, const ConvShape& s) {
  check_shape(s);
  return {x,
          s.h,
          s.w,
          Divisor(s.c),
          s.n * s.p() * s.q(),
          Divisor(s.p()),
          Divisor(s.q()),
          s.stride,
          1,
          -s.pad(),
          -s.pad(),
          s.r,
          s.r};
}

/// Over dy, from a grid of the pixels of one phase of dx; part() fills in the rest.
template <typename T>
Window<T> output_window(const T* dy, const ConvShape& s) {
  check_shape(s);
  const int h = static_cast<int>(divide_up(s.h, s.stride));
  const int w = static_cast<int>(divide_up(s.w, s.stride));
  return {dy, s.p(), s.q(), Divisor(s.k), s.n * h * w, Divisor(h), Divisor(w), 1, -1, 0, 0, 0, 0};
}

}  // namespace

template <typename T>
Fprop<T>::Fprop(const T* x, const T* w, T* y_, const ConvShape& s)
    : a{input_window(x, s)},
      b{w, s.k, s.r * s.r * s.c},
      y(y_),
      rows(a.pixels),
      columns(s.k),
      depth_begin(0),
      depth_end(s.r * s.r * s.c),
      parts(1),
      vector(vectorisable<T>(s)) {
  check_aligned(x, w, y);
}

template <typename T>
Dgrad<T>::Dgrad(const T* dy, const T* w_, T* dx_, const ConvShape& s)
    : a{output_window(dy, s)},
      b{w_, Divisor(s.k), s.c, s.r, s.stride, 0, 0, 0, 0},
      dx(dx_),
      h(s.h),
      w(s.w),
      stride(s.stride),
      pad(s.pad()),
      phase_h(0),
      phase_w(0),
      rows(a.pixels),
      columns(s.c),
      depth_begin(0),
      depth_end(0),
      parts(s.stride * s.stride),
      vector(vectorisable<T>(s)) {
  check_aligned(dy, w_, dx);
}

template <typename T>
Wgrad<T>::Wgrad(const T* x, const T* dy, float* partial_, const ConvShape& s, int parts_)
    : a{input_window(x, s)},
      b{dy, s.k, a.pixels},
      partial(partial_),
      rows(s.r * s.r * s.c),
      columns(s.k),
      depth_begin(0),
      depth_end(a.pixels),
      parts(parts_),
      depth_of_part(0),
      vector(vectorisable<T>(s)) {
  check_aligned(x, dy, partial);
  WRN_CHECK(partial != nullptr, "wgrad without a workspace");
  // Whole slices of a kernel's main loop, so that none reaches into the next part.
  constexpr int kSlice = 32;
  depth_of_part = static_cast<int>(divide_up(divide_up(depth_end, parts), kSlice)) * kSlice;
  parts = static_cast<int>(divide_up(depth_end, depth_of_part));
}

int wgrad_parts(const ConvShape& s, int tile_rows, int tile_columns, int blocks_per_sm,
                Context& context) {
  check_shape(s);
  constexpr std::int64_t kShortest = 512;  // pixels: 64 slices of v3 for one fetch in the open
  const std::int64_t blocks =
      std::int64_t{2} * blocks_per_sm * context.runtime().device.multiProcessorCount;
  const std::int64_t tiles = divide_up(s.r * s.r * s.c, tile_rows) * divide_up(s.k, tile_columns);
  const std::int64_t most = divide_up(std::int64_t{s.n} * s.p() * s.q(), kShortest);
  return static_cast<int>(std::clamp<std::int64_t>(blocks / tiles, 1, most));
}

std::size_t wgrad_partial_bytes(const ConvShape& s, int parts) {
  return static_cast<std::size_t>(s.w_size() * parts) * sizeof(float);
}

template struct Fprop<float>;
template struct Fprop<bf16>;
template struct Dgrad<float>;
template struct Dgrad<bf16>;
template struct Wgrad<float>;
template struct Wgrad<bf16>;

}  // namespace wrn::cuda
