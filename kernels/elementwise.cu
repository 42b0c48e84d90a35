// ReLU, addition and dropout.
//
//   relu      y = max(x, 0);  dx = y > 0 ? dy : 0
//   add       out = a + b
//   dropout   y = keep ? x / (1 - p) : 0; Philox draws keep from (seed, layer, step, row, element)
//
// All are bound by memory: a thread strides over the grid and takes 16 bytes at a time, four floats
// or eight bf16, where the size allows, else one element. Every element is read before it is
// written by the thread that writes it, so in place is safe. Forward and backward both overwrite
// their output.
#include "kernels/device.cuh"

namespace wrn::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct Relu {
  // A NaN stays one, as on the CPU: the comparison is false for it.
  __device__ float operator()(float x) const { return x < 0 ? 0 : x; }
};
struct ReluBackward {
  __device__ float operator()(float y, float dy) const { return y > 0 ? dy : 0; }
};
struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};

/// out[i] = f(in[i]...) for one or two inputs, on `size` groups of V elements.
template <typename F, typename Real, int V, typename... In>
__global__ void elementwise_kernel(F f, Group<Real, V>* out, std::int64_t size, const In*... in) {
  wait_for_previous_kernels();
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    const auto apply = [&](const auto&... v) {
      Floats<V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) result.at[k] = f(v.at[k]...);
      return from_floats<Real>(result);
    };
    out[i] = apply(to_floats(in[i])...);
  }
}

template <int V, typename F, typename Real, typename... In>
void launch_groups(F f, Real* out, std::int64_t size, Context& context, const In*... in) {
  launch(WRN_KERNEL(elementwise_kernel<F, Real, V, Group<In, V>...>),
         grid_stride_blocks(size / V, kThreads, context), kThreads, 0, context, f, grouped<V>(out),
         size / V, grouped<V>(in)...);
}

template <typename F, typename Real, typename... In>
void launch_elementwise(F f, Real* out, std::int64_t size, Context& context, const In*... in) {
  WRN_CHECK(size >= 0, "{} elements", size);
  if (size == 0) return;
  check_aligned(out, in...);
  size % kWide<Real> == 0 ? launch_groups<kWide<Real>>(f, out, size, context, in...)
                          : launch_groups<1>(f, out, size, context, in...);
}

/// Every four elements of a row share a draw of Philox. kWhole: a thread takes 16 bytes, which are
/// all the elements of one draw or two; else up to four elements, one by one, as the row may end
/// before. Blocks stride over a row along x, over rows along y.
template <typename Real, bool kWhole>
__global__ void dropout_kernel(const Real* x, Real* y, int rows, std::int64_t row_size,
                               std::uint32_t least, float scale, int layer,
                               const StepState* state) {
  wait_for_previous_kernels();
  constexpr int kDraw = 4;
  constexpr int kElements = kWhole ? kWide<Real> : kDraw;
  const std::uint64_t seed = state->seed;
  const std::uint32_t step = state->step;
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (std::int64_t i = first * kElements; i < row_size; i += stride * kElements) {
      const auto draw = [&](int from) {
        return dropout_draw(seed, step, layer, static_cast<std::uint32_t>(row), i + from);
      };
      const std::int64_t begin = row * row_size + i;
      if constexpr (kWhole) {
        Floats<kElements> v = to_floats(*grouped<kElements>(x + begin));
#pragma unroll
        for (int k = 0; k < kElements; k += kDraw) {
          const PhiloxWords random = draw(k);
#pragma unroll
          for (int j = 0; j < kDraw; ++j) {
            v.at[k + j] = random.word[j] >= least ? v.at[k + j] * scale : 0;
          }
        }
        *grouped<kElements>(y + begin) = from_floats<Real>(v);
      } else {
        const PhiloxWords random = draw(0);
        for (int j = 0; j < kDraw && j < row_size - i; ++j) {
          const bool keep = random.word[j] >= least;
          y[begin + j] = from_float<Real>(keep ? to_float(x[begin + j]) * scale : 0);
        }
      }
    }
  }
}

}  // namespace

cudaError_t try_device() {
  cudaFuncAttributes attributes{};
  const auto* kernel = reinterpret_cast<const void*>(&dropout_kernel<float, true>);
  const cudaError_t code = cudaFuncGetAttributes(&attributes, kernel);
  cudaGetLastError();
  return code;
}

template <typename Real>
void relu_forward(const Real* x, Real* y, std::int64_t size, Context& context) {
  launch_elementwise(Relu{}, y, size, context, x);
}

template <typename Real>
void relu_backward(const Real* y, const Real* dy, Real* dx, std::int64_t size, Context& context) {
  launch_elementwise(ReluBackward{}, dx, size, context, y, dy);
}

template <typename Real>
void add(const Real* a, const Real* b, Real* out, std::int64_t size, Context& context) {
  launch_elementwise(Add{}, out, size, context, a, b);
}

template <typename Real>
void dropout(const Real* x, Real* y, int rows, std::int64_t row_size, float p, int layer,
             const StepState* state, Context& context) {
  WRN_CHECK(p >= 0 && p < 1, "dropout with p = {}", p);
  WRN_CHECK(rows >= 0 && row_size > 0 && row_size <= std::int64_t{4} << 32,
            "dropout of {} rows of {} elements", rows, row_size);
  if (rows == 0) return;
  check_aligned(x, y);
  const bool whole = row_size % kWide<Real> == 0;
  const auto kernel =
      whole ? WRN_KERNEL(dropout_kernel<Real, true>) : WRN_KERNEL(dropout_kernel<Real, false>);
  const std::int64_t threads = divide_up(row_size, whole ? kWide<Real> : 4);
  const dim3 grid{grid_stride_blocks(threads, kThreads, context),
                  static_cast<unsigned>(std::min(rows, 65535))};
  launch(kernel, grid, kThreads, 0, context, x, y, rows, row_size, least_kept(p), 1 / (1 - p),
         layer, state);
}

#define WRN_FOR(Real)                                                                        \
  template void relu_forward(const Real*, Real*, std::int64_t, Context&);                    \
  template void relu_backward(const Real*, const Real*, Real*, std::int64_t, Context&);      \
  template void add(const Real*, const Real*, Real*, std::int64_t, Context&);                \
  template void dropout(const Real*, Real*, int, std::int64_t, float, int, const StepState*, \
                        Context&);
WRN_FOR(float)
WRN_FOR(bf16)

}  // namespace wrn::cuda
