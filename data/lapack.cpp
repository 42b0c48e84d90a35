#include "data/lapack.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <type_traits>

#include "kernels/error.h"

namespace wrn {

// In Fortran's conventions: every argument by its address, matrices column-major. So a row-major
// matrix is seen as its transpose, and its lower triangle as the upper.
struct Functions {
  void (*set_threads)(int);
  void (*dsyrk)(const char* uplo, const char* trans, const int* n, const int* k,
                const double* alpha, const double* a, const int* lda, const double* beta, double* c,
                const int* ldc);
  void (*dsyevd)(const char* jobz, const char* uplo, const int* n, double* a, const int* lda,
                 double* w, double* work, const int* lwork, int* iwork, const int* liwork,
                 int* info);
  void (*sgemm)(const char* transa, const char* transb, const int* m, const int* n, const int* k,
                const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
                const float* beta, float* c, const int* ldc);
};

namespace {

Functions load() {
  const char* given = std::getenv("WRN_OPENBLAS");
  const std::string name = given != nullptr && *given != '\0' ? given : "libopenblas.so.0";
  // Never closed again: it may have started threads.
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    fail(
        "--preprocess zca needs OpenBLAS, which was not found ({}): apt install "
        "libopenblas0-openmp",
        dlerror());
  }
  Functions functions{};
  const auto find = [&](auto& function, const char* symbol) {
    function =
        reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, symbol));
    if (function == nullptr) fail("{} is no OpenBLAS with LAPACK: {}", name, dlerror());
  };
  find(functions.set_threads, "openblas_set_num_threads");
  find(functions.dsyrk, "dsyrk_");
  find(functions.dsyevd, "dsyevd_");
  find(functions.sgemm, "sgemm_");
  return functions;
}

const Functions& loaded() {
  static const Functions functions = load();
  return functions;
}

}  // namespace

Lapack::Lapack(int threads) : f_(loaded()) { f_.set_threads(threads); }

void Lapack::add_gram(int n, int rows, double scale, const double* a, double* c) const {
  const double add = 1;
  f_.dsyrk("U", "N", &n, &rows, &scale, a, &n, &add, c, &n);
}

std::vector<double> Lapack::decompose(int n, double* c) const {
  const std::int64_t size = n, least = 1 + 6 * size + 2 * size * size;
  WRN_CHECK(n > 0 && least <= std::numeric_limits<int>::max(), "a matrix of {} rows", n);
  const int work_size = static_cast<int>(least), integers = 3 + 5 * n;
  std::vector<double> eigenvalues(static_cast<std::size_t>(n)),
      work(static_cast<std::size_t>(work_size));
  std::vector<int> integer_work(static_cast<std::size_t>(integers));
  int info = 0;
  f_.dsyevd("V", "U", &n, c, &n, eigenvalues.data(), work.data(), &work_size, integer_work.data(),
            &integers, &info);
  WRN_CHECK(info == 0, "no eigenvalues were found: dsyevd returned {}", info);
  return eigenvalues;
}

void Lapack::multiply(int rows, int n, int k, const float* a, const float* b, float* c) const {
  const float one = 1, zero = 0;
  f_.sgemm("N", "N", &n, &rows, &k, &one, b, &n, a, &k, &zero, c, &n);
}

}  // namespace wrn
