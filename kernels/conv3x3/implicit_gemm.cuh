// A convolution's three directions as views of one matrix product,
//
//   D[m, n] = sum over kk of A[m, kk] B[kk, n],
//
//          m (rows)          n (columns)   kk (depth)      A gathers from   B reads
//   fprop  pixels n,p,q      filters k     taps r,s,c      x                w
//   dgrad  pixels n,h,w      channels c    taps r,s,k      dy               w
//   wgrad  taps r,s,c        filters k     pixels n,p,q    x                dy
//
// No matrix is ever built: a view says where an element of A, B or D lies, and a kernel of the
// ladder is written once, for any view. README.md derives all three.
//
// The arithmetic of an address is split so that little of it is left for the main loop. Each of an
// element's two coordinates has a Place, a part of the offset, and the address is the sum of the
// two. One of the coordinates is fixed for a thread, whose Place is computed once. Only the test
// for the image's border needs both.
#pragma once

#include "kernels/bf16.h"
#include "kernels/device.cuh"
#include "kernels/divisor.h"

namespace wrn::cuda {

/// What one coordinate adds to an element's address: elements, and pixels in an image.
struct Place {
  std::int64_t offset;
  int h, w;
};
/// The Place of a coordinate past the end: whatever the other one is, the sum is outside.
__device__ inline Place nowhere() { return {0, -(1 << 29), 0}; }

/// Where the element lies in a tensor of h x w images, or null where it is a zero of the padding.
template <typename T>
__device__ const T* address(const T* tensor, int h, int w, const Place& a, const Place& b) {
  const bool inside = static_cast<unsigned>(a.h + b.h) < static_cast<unsigned>(h) &&
                      static_cast<unsigned>(a.w + b.w) < static_cast<unsigned>(w);
  return inside ? tensor + (a.offset + b.offset) : nullptr;
}
template <typename T>
__device__ T value(const T* element) {
  return element ? *element : T{};
}

// An operand, A or B: along() places m or n, depth() places kk, at() puts the two together; `data`
// is where its tensor begins. kDepthContiguous: neighbours in memory are neighbours in kk, else in
// m or n.

/// A dense matrix.
template <typename T, bool kDepthContiguous_>
struct Matrix {
  using Element = T;
  static constexpr bool kDepthContiguous = kDepthContiguous_;
  const T* data;
  int extent, depth_extent;

  __device__ Place along(int i) const {
    if (i >= extent) return nowhere();
    return {kDepthContiguous ? std::int64_t{i} * depth_extent : i, 0, 0};
  }
  __device__ Place depth(int kk) const {
    if (kk >= depth_extent) return nowhere();
    return {kDepthContiguous ? kk : std::int64_t{kk} * extent, 0, 0};
  }
  __device__ const T* at(const Place& a, const Place& b) const { return address(data, 1, 1, a, b); }
};

/// Which tap is number t of a window of `columns` <= 3 columns and at most 3 rows.
__device__ inline int2 tap_row_column(int t, int columns) {
  const int row = (t >= columns) + (t >= 2 * columns);
  return {row, t - row * columns};
}

/// The patches of images [.,h,w,c] under a window that visits a grid of pixels:
///   pixel (i, j) and tap (r, s) meet at row     i step + first_h + direction r,
///                                       column  j step + first_w + direction s.
template <typename T>
struct Window {
  using Element = T;
  const T* data;
  int h, w;
  Divisor c;
  int pixels;  // of the grid, in all images
  Divisor grid_h, grid_w;
  int step, direction;
  int first_h, first_w;
  int taps_h, taps_w;

  __device__ Place pixel(int i) const {
    if (i >= pixels) return nowhere();
    const int line = grid_w.divide(i), n = grid_h.divide(line);
    const int row = (line - n * grid_h.value()) * step + first_h;
    const int column = (i - line * grid_w.value()) * step + first_w;
    return {std::int64_t{n} * (h * w * c.value()) + (row * w + column) * c.value(), row, column};
  }
  __device__ Place tap(int i) const {
    const int t = c.divide(i), channel = i - t * c.value();
    if (t >= taps_h * taps_w) return nowhere();
    const auto [r, s] = tap_row_column(t, taps_w);
    const int row = direction * r, column = direction * s;
    return {(row * w + column) * c.value() + channel, row, column};
  }
  __device__ const T* at(const Place& a, const Place& b) const { return address(data, h, w, a, b); }
};

/// A[pixel, tap], for fprop and dgrad.
template <typename T>
struct PatchRows : Window<T> {
  static constexpr bool kDepthContiguous = true;
  __device__ Place along(int m) const { return this->pixel(m); }
  __device__ Place depth(int kk) const { return this->tap(kk); }
};

/// A[tap, pixel], its transpose, for wgrad.
template <typename T>
struct PatchColumns : Window<T> {
  static constexpr bool kDepthContiguous = false;
  __device__ Place along(int m) const { return this->tap(m); }
  __device__ Place depth(int kk) const { return this->pixel(kk); }
};

/// dgrad's B[(i,j,k), c] = w[k, first_r + stride i, first_s + stride j, c].
template <typename T>
struct FilterTaps {
  using Element = T;
  static constexpr bool kDepthContiguous = false;
  const T* data;
  Divisor k;
  int c, r, stride;
  int first_r, first_s, taps_h, taps_w;

  __device__ Place along(int n) const { return n < c ? Place{n, 0, 0} : nowhere(); }
  __device__ Place depth(int kk) const {
    const int t = k.divide(kk), filter = kk - t * k.value();
    if (t >= taps_h * taps_w) return nowhere();
    const auto [i, j] = tap_row_column(t, taps_w);
    const int tap = (first_r + stride * i) * r + first_s + stride * j;
    return {std::int64_t{filter * r * r + tap} * c, 0, 0};
  }
  __device__ const T* at(const Place& a, const Place& b) const { return address(data, 1, 1, a, b); }
};

// A view has operands a and b, the extents of the product, and row(m), where row m of D begins, or
// null where there is none. Where D is an image, out() and pixel(m) say the same: row m is the
// channels of that pixel, and -1 is none. A view comes in `parts`, independent products, one for
// each blockIdx.z: a kernel takes its own by part(). `vector`: groups of 16 bytes along the
// contiguous axes of A, B and D are aligned, because channel counts are multiples of that. T is
// what the tensors hold: float or, for tensor cores, bf16.

/// Throws where `shape` is no convolution, or too large for the views' arithmetic: pixels of all
/// images, elements of one image and of all filters are counted in 31 bits.
void check_shape(const ConvShape& shape);

template <typename T>
struct Fprop {
  PatchRows<T> a;
  Matrix<T, true> b;
  T* y;
  int rows, columns, depth_begin, depth_end, parts;
  bool vector;

  Fprop(const T* x, const T* w, T* y, const ConvShape& shape);
  __device__ Fprop part(int) const { return *this; }
  __device__ int pixel(int m) const { return m < rows ? m : -1; }
  __device__ T* out() const { return y; }
  __device__ T* row(int m) const { return m < rows ? y + std::int64_t{m} * columns : nullptr; }
};

/// dx[n,h,w,c] is the sum of dy[n,p,q,k] w[k,r,s,c] where p stride + r - pad is h, and likewise w.
/// With stride 2 a row h meets only every other r. So the pixels of dx are split by (h % stride,
/// w % stride) into phases, each a dense product over the taps it meets: a part each.
template <typename T>
struct Dgrad {
  PatchRows<T> a;
  FilterTaps<T> b;
  T* dx;
  int h, w, stride, pad;
  int phase_h, phase_w;
  int rows, columns, depth_begin, depth_end, parts;
  bool vector;

  Dgrad(const T* dy, const T* w, T* dx, const ConvShape& shape);

  __device__ Dgrad part(int z) const {
    Dgrad d = *this;
    const int phase = parts - 1 - z;  // the one with the most taps first, so that none is left late
    d.phase_h = phase / stride;
    d.phase_w = phase % stride;
    // Row h meets tap r where h + pad - r is a multiple of the stride: every stride from first_r.
    d.b.first_r = (d.phase_h + pad) % stride;
    d.b.first_s = (d.phase_w + pad) % stride;
    d.a.first_h = (d.phase_h + pad - d.b.first_r) / stride;
    d.a.first_w = (d.phase_w + pad - d.b.first_s) / stride;
    d.a.taps_h = d.b.taps_h = (b.r - d.b.first_r + stride - 1) / stride;
    d.a.taps_w = d.b.taps_w = (b.r - d.b.first_s + stride - 1) / stride;
    d.depth_end = d.a.taps_h * d.a.taps_w * b.k.value();  // 0 in three phases of a 1x1, stride 2
    return d;
  }
  /// With an odd height or width the later phases have a row or column less.
  __device__ int pixel(int m) const {
    if (m >= rows) return -1;
    const int line = a.grid_w.divide(m), n = a.grid_h.divide(line);
    const int i = (line - n * a.grid_h.value()) * stride + phase_h;
    const int j = (m - line * a.grid_w.value()) * stride + phase_w;
    return i < h && j < w ? (n * h + i) * w + j : -1;
  }
  __device__ T* out() const { return dx; }
  __device__ T* row(int m) const {
    const int i = pixel(m);
    return i >= 0 ? dx + std::int64_t{i} * columns : nullptr;
  }
};

/// D is dw transposed, [(r,s,c), k]: narrow networks have few filters, and the kernels' tiles adapt
/// to few columns. D is small and the depth long, all pixels, so it is split into parts that run
/// side by side. `partial` is [parts,(r,s,c),k]; sum_parts() makes dw of it.
template <typename T>
struct Wgrad {
  PatchColumns<T> a;
  Matrix<T, false> b;
  float* partial;
  int rows, columns, depth_begin, depth_end, parts;
  int depth_of_part;
  bool vector;

  Wgrad(const T* x, const T* dy, float* partial, const ConvShape& shape, int parts);

  __device__ Wgrad part(int z) const {
    Wgrad d = *this;
    d.partial += std::int64_t{z} * rows * columns;
    d.depth_begin = z * depth_of_part;
    d.depth_end =
        depth_end - d.depth_begin > depth_of_part ? d.depth_begin + depth_of_part : depth_end;
    return d;
  }
  __device__ float* row(int m) const {
    return m < rows ? partial + std::int64_t{m} * columns : nullptr;
  }
};

/// Into how many parts wgrad is split, for a kernel with tiles of `tile_rows` x `tile_columns` of
/// which an SM holds `blocks_per_sm`: as many as fill the device twice, if no part gets too short.
int wgrad_parts(const ConvShape&, int tile_rows, int tile_columns, int blocks_per_sm, Context&);
std::size_t wgrad_partial_bytes(const ConvShape&, int parts);

/// Calls f with the one of the Tiles that takes the least time for so many columns: each has
/// kColumns and costs kCost.
template <typename First, typename... Rest, typename F>
auto with_cheapest(int columns, F f) {
  const auto cost = [&](auto tile) { return divide_up(columns, tile.kColumns) * tile.kCost; };
  if constexpr (sizeof...(Rest) > 0) {
    if (((cost(First{}) > cost(Rest{})) || ...)) return with_cheapest<Rest...>(columns, f);
  }
  return f(First{});
}

/// The grid for tiles of D. Tiles of the same rows are neighbours: they gather the same pixels.
template <typename View>
dim3 tile_grid(const View& view, int tile_rows, int tile_columns) {
  return dim3(static_cast<unsigned>(divide_up(view.rows, tile_rows) *
                                    divide_up(view.columns, tile_columns)),
              1, static_cast<unsigned>(view.parts));
}
/// The block's tile: its first row (x) and its first column (y).
__device__ inline int2 tile_origin(int columns, int tile_rows, int tile_columns) {
  const int tiles = (columns + tile_columns - 1) / tile_columns;
  const int i = static_cast<int>(blockIdx.x);
  return {i / tiles * tile_rows, i % tiles * tile_columns};
}

}  // namespace wrn::cuda
