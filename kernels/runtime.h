// The CUDA runtime as the launchers see it: errors, and what a Context holds. Only host code that
// speaks CUDA includes this; everything else sees context.h and memory.h.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <memory>

#include "kernels/blas.h"
#include "kernels/context.h"
#include "kernels/conv3x3/choices.h"
#include "kernels/error.h"
#include "kernels/kernels.h"
#include "kernels/memory.h"

namespace wrn::cuda {

/// A failed call of the CUDA runtime: the call, its arguments, what CUDA says, file:line.
struct CudaError : Error {
  CudaError(cudaError_t code_, const std::string& call, const char* file, int line);
  cudaError_t code;
};

}  // namespace wrn::cuda

/// Makes a runtime call and throws a CudaError where it fails: WRN_CUDA_CALL(cudaMalloc(&p, bytes),
/// "{} bytes", bytes). The format is for the values of the arguments.
#define WRN_CUDA_CALL(call, ...)                                                                   \
  do {                                                                                             \
    if (const cudaError_t wrn_code = (call); wrn_code != cudaSuccess) {                            \
      throw ::wrn::cuda::CudaError(                                                                \
          wrn_code, ::wrn::cuda::call_text(#call __VA_OPT__(, ) __VA_ARGS__), __FILE__, __LINE__); \
    }                                                                                              \
  } while (false)

namespace wrn::cuda {

inline std::string call_text(const char* call) { return call; }
template <typename... Args>
std::string call_text(const char* call, fmt::format_string<Args...> format, Args&&... args) {
  return fmt::format("{} with {}", call, fmt::format(format, std::forward<Args>(args)...));
}

struct StreamDeleter {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct EventDeleter {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct PinnedDeleter {
  void operator()(std::byte* data) const { cudaFreeHost(data); }
};
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDeleter>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventDeleter>;

/// A ring of pinned slots: a slot is taken again only once its copy has left for the device.
struct Staging {
  Staging();
  static constexpr std::size_t kSlots = 64;
  std::unique_ptr<std::byte, PinnedDeleter> slots;  // [kSlots][kUploadBytes]
  std::array<Event, kSlots> copied;
  std::uint64_t uploads = 0;
};

/// Whether the environment's WRN_WITHOUT, "hopper" or "overlap", asks to do without it, to see
/// whether that is what goes wrong. Throws where it says anything else.
bool without(std::string_view what);

/// What a Context on CUDA holds.
struct Runtime {
  Runtime();
  /// What convolutions are cut into tiles for.
  Target target() const { return {device.multiProcessorCount, choices}; }

  /// Whether the GPU is a Hopper, this build has code of its own for it, 90a, and is to use it.
  bool is_hopper() const;

  cudaDeviceProp device;
  bool takes_hopper;
  std::span<const Choice> choices;  // measured on GPUs like this one
  Stream stream;
  Staging staging;
  Blas blas;
};

/// "CUDA runtime 13.0, driver 13.0, cuBLAS 13.1.0"
std::string library_version(const Runtime&);

/// What keeps this build's kernels from running on the current device, or cudaSuccess.
/// elementwise.cu
cudaError_t try_device();

}  // namespace wrn::cuda
