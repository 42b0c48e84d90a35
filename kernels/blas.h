// cuBLAS, as little of it as the linear layer needs, behind one small interface: blas.cpp finds and
// calls cuBLAS, and the emulation of tests/simt has a stand-in.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>

namespace wrn::cuda {

class Blas {
 public:
  /// Work goes to `stream`. Throws an Error that says where cuBLAS was looked for.
  explicit Blas(cudaStream_t stream);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  /// "cuBLAS 13.1.0"
  std::string version() const;
  static constexpr std::size_t kWorkspaceBytes = std::size_t{4} << 20;
  /// Row-major c[m,n] = op(a) op(b) + beta c in fp32, where op(a) is [m,k] and op(b) is [k,n]; a
  /// transposed operand is stored as [k,m] or [n,k]. All dense. `workspace` is kWorkspaceBytes of
  /// device memory.
  void gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a, const float* b,
            float beta, float* c, std::byte* workspace);

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
};

}  // namespace wrn::cuda
