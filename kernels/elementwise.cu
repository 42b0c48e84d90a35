// ReLU, addition and dropout.
//
//   relu      y = max(x, 0);  dx = y > 0 ? dy : 0
//   add       out = a + b
//   dropout   y = keep ? x / (1 - p) : 0, keep drawn by Philox from (seed, layer, step, row,
//   element)
//
// All are bound by memory: a thread strides over the grid and takes four elements at a time, in one
// 16-byte access, where the pointers and the size allow; the scalar kernel does the same one by
// one. Every element is read before it is written by the thread that writes it, so in place is
// safe. Forward and backward both overwrite their output.
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

/// out[i] = f(in[i]...) for one or two inputs, float by float.
template <typename F, typename... In>
__global__ void elementwise_kernel(F f, float* out, std::int64_t size, const In*... in) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    out[i] = f(in[i]...);
  }
}

/// The same on `size` groups of four.
template <typename F, typename... In>
__global__ void elementwise4_kernel(F f, float4* out, std::int64_t size, const In*... in) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size;
       i += stride) {
    const auto apply = [&](const In&... v) {
      return float4{f(v.x...), f(v.y...), f(v.z...), f(v.w...)};
    };
    out[i] = apply(in[i]...);
  }
}

template <typename F, typename... In>
void launch_elementwise(F f, float* out, std::int64_t size, Context& context, const In*... in) {
  WRN_CHECK(size >= 0, "{} elements", size);
  if (size == 0) return;
  if (size % 4 == 0 && aligned16(out) && (aligned16(in) && ...)) {
    launch(WRN_KERNEL(elementwise4_kernel<F, std::conditional_t<true, float4, In>...>),
           grid_stride_blocks(size / 4, kThreads, context), kThreads, 0, context, f,
           reinterpret_cast<float4*>(out), size / 4, reinterpret_cast<const float4*>(in)...);
  } else {
    launch(WRN_KERNEL(elementwise_kernel<F, In...>), grid_stride_blocks(size, kThreads, context),
           kThreads, 0, context, f, out, size, in...);
  }
}

/// One thread for each group of four elements of a row, which share a draw of Philox. kWhole: all
/// groups have four elements, and are aligned. Blocks stride over groups along x, over rows along
/// y.
template <bool kWhole>
__global__ void dropout_kernel(const float* x, float* y, int rows, std::int64_t row_size, float p,
                               std::uint32_t use, const StepState* state) {
  const float scale = 1 / (1 - p);
  const std::uint64_t seed = state->seed;
  const std::uint32_t step = state->step;
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    for (std::int64_t group = first; group * 4 < row_size; group += stride) {
      const PhiloxWords random = philox(seed, static_cast<std::uint32_t>(group),
                                        static_cast<std::uint32_t>(row), step, use);
      const std::int64_t begin = row * row_size + group * 4;
      if constexpr (kWhole) {
        Floats<4> v = *reinterpret_cast<const Floats<4>*>(x + begin);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          v.at[j] = uniform(random.word[j]) >= p ? v.at[j] * scale : 0;
        }
        *reinterpret_cast<Floats<4>*>(y + begin) = v;
      } else {
        const std::int64_t count = row_size - group * 4;
        for (int j = 0; j < 4 && j < count; ++j) {
          y[begin + j] = uniform(random.word[j]) >= p ? x[begin + j] * scale : 0;
        }
      }
    }
  }
}

}  // namespace

cudaError_t try_device() {
  cudaFuncAttributes attributes{};
  const auto* kernel = reinterpret_cast<const void*>(&dropout_kernel<true>);
  const cudaError_t code = cudaFuncGetAttributes(&attributes, kernel);
  cudaGetLastError();
  return code;
}

void relu_forward(const float* x, float* y, std::int64_t size, Context& context) {
  launch_elementwise(Relu{}, y, size, context, x);
}

void relu_backward(const float* y, const float* dy, float* dx, std::int64_t size,
                   Context& context) {
  launch_elementwise(ReluBackward{}, dx, size, context, y, dy);
}

void add(const float* a, const float* b, float* out, std::int64_t size, Context& context) {
  launch_elementwise(Add{}, out, size, context, a, b);
}

void dropout(const float* x, float* y, int rows, std::int64_t row_size, float p, int layer,
             const StepState* state, Context& context) {
  WRN_CHECK(p >= 0 && p < 1, "dropout with p = {}", p);
  WRN_CHECK(rows >= 0 && row_size > 0 && row_size <= std::int64_t{4} << 32,
            "dropout of {} rows of {} elements", rows, row_size);
  if (rows == 0) return;
  const bool whole = row_size % 4 == 0 && aligned16(x) && aligned16(y);
  const auto kernel = whole ? WRN_KERNEL(dropout_kernel<true>) : WRN_KERNEL(dropout_kernel<false>);
  const dim3 grid{grid_stride_blocks(divide_up(row_size, 4), kThreads, context),
                  static_cast<unsigned>(std::min(rows, 65535))};
  launch(kernel, grid, kThreads, 0, context, x, y, rows, row_size, p,
         static_cast<std::uint32_t>(RandomUse::kDropout) + static_cast<std::uint32_t>(layer),
         state);
}

}  // namespace wrn::cuda
