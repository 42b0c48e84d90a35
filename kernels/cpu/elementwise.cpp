// ReLU, addition and dropout. Memory-bound: one pass each.
#include "kernels/error.h"
#include "kernels/kernels.h"
#include "kernels/philox.h"

namespace wrn::cpu {
namespace {

void check_size(std::int64_t size) { WRN_CHECK(size >= 0, "{} elements", size); }

}  // namespace

void relu_forward(const float* x, float* y, std::int64_t size, Context&) {
  check_size(size);
#pragma omp parallel for simd
  for (std::int64_t i = 0; i < size; ++i) y[i] = x[i] < 0 ? 0 : x[i];  // a NaN stays one
}

void relu_backward(const float* y, const float* dy, float* dx, std::int64_t size, Context&) {
  check_size(size);
#pragma omp parallel for simd
  for (std::int64_t i = 0; i < size; ++i) dx[i] = y[i] > 0 ? dy[i] : 0;
}

void add(const float* a, const float* b, float* out, std::int64_t size, Context&) {
  check_size(size);
#pragma omp parallel for simd
  for (std::int64_t i = 0; i < size; ++i) out[i] = a[i] + b[i];
}

void dropout(const float* x, float* y, int rows, std::int64_t row_size, float p, int layer,
             const StepState* state, Context&) {
  WRN_CHECK(p >= 0 && p < 1, "dropout with p = {}", p);
  WRN_CHECK(rows >= 0 && row_size > 0 && row_size <= std::int64_t{4} << 32,
            "dropout of {} rows of {} elements", rows, row_size);
  const float scale = 1 / (1 - p);
  const std::uint32_t least = least_kept(p);
#pragma omp parallel for
  for (int row = 0; row < rows; ++row) {
    const std::int64_t begin = row * row_size;
    for (std::int64_t i = 0; i < row_size; i += 4) {
      const PhiloxWords random =
          dropout_draw(state->seed, state->step, layer, static_cast<std::uint32_t>(row), i);
      for (std::int64_t j = 0; j < 4 && i + j < row_size; ++j) {
        const bool keep = random.word[j] >= least;
        y[begin + i + j] = keep ? x[begin + i + j] * scale : 0;
      }
    }
  }
}

}  // namespace wrn::cpu
