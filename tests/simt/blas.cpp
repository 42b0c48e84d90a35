// The stand-in for cuBLAS, behind kernels/blas.h: plain loops.
#include "kernels/blas.h"

#include <cstring>

#include "kernels/runtime.h"
#include "simt/internal.h"

namespace wrn::cuda {

struct Blas::Handle {
  cudaStream_t stream;
};

Blas::Blas(cudaStream_t stream) : handle_(new Handle{stream}) {}
Blas::~Blas() = default;

std::string Blas::version() const { return "emulated"; }

void Blas::gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a,
                const float* b, float beta, float* c, std::byte* workspace) {
  WRN_CHECK(workspace != nullptr, "a gemm without a workspace");
  const auto multiply = [=] {
    std::memset(workspace, 0xFF, kWorkspaceBytes);  // all of it is cuBLAS' to overwrite
    const auto at = [](std::int64_t row, std::int64_t columns, std::int64_t column) {
      return row * columns + column;
    };
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        float sum = 0;
        for (int l = 0; l < k; ++l) {
          sum += a[transpose_a ? at(l, m, i) : at(i, k, l)] *
                 b[transpose_b ? at(j, k, l) : at(l, n, j)];
        }
        float& out = c[at(i, n, j)];
        out = beta == 0 ? sum : sum + beta * out;  // as in BLAS, 0 overwrites even a NaN
      }
    }
  };
  WRN_CUDA_CALL(simt::enqueue(handle_->stream, multiply), "m {}, n {}, k {}", m, n, k);
}

}  // namespace wrn::cuda
