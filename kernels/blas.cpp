// cuBLAS, loaded at run time: a program built with CUDA so runs, on the CPU, where there is none,
// and does not care whether it meets version 12 or 13.
#include "kernels/blas.h"

#include <cublas_v2.h>
#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "kernels/error.h"

namespace wrn::cuda {
namespace {

constexpr std::array<const char*, 2> kNames = {"libcublas.so.13", "libcublas.so.12"};

/// Where cuBLAS may be, the likeliest first. A bare name is looked up by the loader, in
/// LD_LIBRARY_PATH and where the system keeps libraries.
std::vector<std::string> candidates() {
  std::vector<std::string> paths;
  const auto add_folder = [&](const std::filesystem::path& folder) {
    for (const char* name : kNames) paths.push_back((folder / name).string());
  };
  // The wheel of Python, which lies where only its user knows.
  if (const char* own = std::getenv("WRN_CUBLAS"); own != nullptr && *own != '\0') {
    if (std::filesystem::is_directory(own)) {
      add_folder(own);
    } else {
      paths.emplace_back(own);
    }
    return paths;  // who names one does not want another
  }
  paths.insert(paths.end(), kNames.begin(), kNames.end());
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    const char* root = std::getenv(variable);
    if (root != nullptr && *root != '\0') add_folder(std::filesystem::path(root) / "lib64");
  }
  add_folder("/usr/local/cuda/lib64");
  add_folder("/usr/lib/x86_64-linux-gnu");
  add_folder("/usr/lib/aarch64-linux-gnu");
  return paths;
}

/// Never closed again: a library that has started threads and registered kernels is not unloaded
/// safely.
void* open_library() {
  const std::vector<std::string> paths = candidates();
  std::string reasons;
  for (const std::string& path : paths) {
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    // The loader's own words where the file is there, and something else is wrong.
    reasons += fmt::format("{}{}", reasons.empty() ? "" : ", ", path);
    const char* why = dlerror();
    if (why != nullptr && !std::string_view(why).starts_with(path + ": cannot open")) {
      reasons += fmt::format(" ({})", why);
    }
  }
  fail("cuBLAS was not found: looked for {}; install libcublas, or set WRN_CUBLAS to its folder",
       reasons);
}

}  // namespace

struct Blas::Handle {
  decltype(&cublasCreate) create;
  decltype(&cublasDestroy) destroy;
  decltype(&cublasGetProperty) get_property;
  decltype(&cublasGetStatusName) status_name;
  decltype(&cublasSetStream) set_stream;
  decltype(&cublasSetWorkspace) set_workspace;
  decltype(&cublasSetMathMode) set_math_mode;
  decltype(&cublasSgemm) sgemm;
  cublasHandle_t cublas = nullptr;

  Handle() {
    void* library = open_library();
    const auto load = [&](auto& function, const char* name) {
      function =
          reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr) fail("cuBLAS has no {}: {}", name, dlerror());
    };
    load(create, "cublasCreate_v2");
    load(destroy, "cublasDestroy_v2");
    load(get_property, "cublasGetProperty");
    load(status_name, "cublasGetStatusName");
    load(set_stream, "cublasSetStream_v2");
    load(set_workspace, "cublasSetWorkspace_v2");
    load(set_math_mode, "cublasSetMathMode");
    load(sgemm, "cublasSgemm_v2");
  }
  ~Handle() {
    if (cublas != nullptr) destroy(cublas);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  void check(cublasStatus_t status, const std::string& call) const {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw Error(fmt::format("{}: {}", call, status_name(status)),
                status == CUBLAS_STATUS_ALLOC_FAILED ? Status::kOutOfMemory : Status::kRuntime);
  }
};

Blas::Blas(cudaStream_t stream) : handle_(std::make_unique<Handle>()) {
  Handle& h = *handle_;
  h.check(h.create(&h.cublas), "cublasCreate");
  h.check(h.set_stream(h.cublas, stream), "cublasSetStream");
  // Plain fp32: neither TF32 nor emulation by narrower types, whatever the environment asks for.
  h.check(h.set_math_mode(h.cublas, CUBLAS_PEDANTIC_MATH), "cublasSetMathMode");
}

Blas::~Blas() = default;

std::string Blas::version() const {
  const auto property = [&](libraryPropertyType_t type) {
    int value = 0;
    handle_->check(handle_->get_property(type, &value), "cublasGetProperty");
    return value;
  };
  return fmt::format("cuBLAS {}.{}.{}", property(MAJOR_VERSION), property(MINOR_VERSION),
                     property(PATCH_LEVEL));
}

void Blas::gemm(bool transpose_a, bool transpose_b, int m, int n, int k, const float* a,
                const float* b, float beta, float* c, std::byte* workspace) {
  WRN_CHECK(workspace != nullptr, "a gemm without a workspace");
  // Our own, so that a gemm allocates nothing, also while a graph is captured, and so that cuBLAS
  // promises the same bits every time.
  handle_->check(handle_->set_workspace(handle_->cublas, workspace, kWorkspaceBytes),
                 "cublasSetWorkspace");
  // cuBLAS is column-major, and reads a row-major matrix as its transpose. So it computes
  // c^T = op(b)^T op(a)^T: the operands change places, and keep their transpositions.
  const auto operation = [](bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; };
  const float alpha = 1;
  handle_->check(
      handle_->sgemm(handle_->cublas, operation(transpose_b), operation(transpose_a), n, m, k,
                     &alpha, b, transpose_b ? k : n, a, transpose_a ? m : k, &beta, c, n),
      fmt::format("cublasSgemm with m={} n={} k={}", m, n, k));
}

}  // namespace wrn::cuda
