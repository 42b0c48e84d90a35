#include "kernels/memory.h"

#include "kernels/runtime.h"

namespace wrn::cuda {
namespace {

/// For the default stream, in which the calls below work, and for those that Contexts made: they do
/// not wait for it by themselves. cudaMemset and a copy from the host may return before they end.
void wait() { WRN_CUDA_CALL(cudaDeviceSynchronize()); }

}  // namespace

MemoryInfo memory_info() {
  MemoryInfo info{};
  WRN_CUDA_CALL(cudaMemGetInfo(&info.free, &info.total));
  return info;
}

std::byte* allocate(std::size_t bytes, const std::string& what) {
  void* data = nullptr;
  const cudaError_t code = cudaMalloc(&data, bytes);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(fmt::format("out of device memory: {:.1f} MiB for {}, {:.1f} MiB are free; take a "
                            "smaller model or batch",
                            static_cast<double>(bytes) / 0x1p20, what,
                            static_cast<double>(memory_info().free) / 0x1p20),
                Status::kOutOfMemory);
  }
  WRN_CUDA_CALL(code, "cudaMalloc, {} bytes for {}", bytes, what);
  WRN_CUDA_CALL(cudaMemset(data, 0, bytes), "{} bytes for {}", bytes, what);
  wait();
  return static_cast<std::byte*>(data);
}

void release(std::byte* data) noexcept { cudaFree(data); }

void copy_to_device(void* device, const void* host, std::size_t bytes) {
  if (bytes == 0) return;
  wait();
  WRN_CUDA_CALL(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "{} bytes", bytes);
  wait();
}

void copy_to_host(void* host, const void* device, std::size_t bytes) {
  if (bytes == 0) return;
  wait();
  WRN_CUDA_CALL(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "{} bytes", bytes);
}

}  // namespace wrn::cuda
