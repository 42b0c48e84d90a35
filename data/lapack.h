// OpenBLAS, as little of it as the whitening needs, loaded when it is first used: nothing else
// wants it, and it has 36 MB and threads of its own. Matrices are row-major here, as everywhere
// else.
#pragma once

#include <vector>

namespace wrn {

class Lapack {
 public:
  /// Its calls use that many threads. Throws an Error that names the package where there is none;
  /// WRN_OPENBLAS in the environment names another library.
  explicit Lapack(int threads);

  /// c[n,n] += scale a^T a in the lower triangle, for a [rows,n].
  void add_gram(int n, int rows, double scale, const double* a, double* c) const;
  /// Replaces the symmetric c[n,n], of which the lower triangle is read, by its eigenvectors, one a
  /// row, and returns their eigenvalues, the smallest first.
  std::vector<double> decompose(int n, double* c) const;
  /// c[rows,n] = a[rows,k] b[k,n]
  void multiply(int rows, int n, int k, const float* a, const float* b, float* c) const;

 private:
  const struct Functions& f_;
};

}  // namespace wrn
