#include "kernels/runtime.h"

#include <cstdlib>
#include <cstring>
#include <string_view>

namespace wrn {
namespace {

/// 13000 -> "13.0"
std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string describe(const cudaDeviceProp& device) {
  return fmt::format("{} (compute capability {}.{})", device.name, device.major, device.minor);
}

cudaDeviceProp properties() {
  int number = 0;
  cudaDeviceProp device{};
  WRN_CUDA_CALL(cudaGetDevice(&number));
  WRN_CUDA_CALL(cudaGetDeviceProperties(&device, number), "device {}", number);
  return device;
}

}  // namespace

void check_available(Device device) {
  if (device == Device::kCpu) return;
  int devices = 0, driver = 0, runtime = 0;
  cudaError_t code = cudaGetDeviceCount(&devices);
  cudaGetLastError();  // a failure that is reported here is not to be found again later
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (code == cudaErrorInsufficientDriver && driver > 0) {
    fail("the GPU driver knows CUDA up to {} and this program needs {}: update the driver",
         version_text(driver), version_text(runtime));
  }
  if (code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver ||
      (code == cudaSuccess && devices == 0)) {
    throw NoGpu(fmt::format("no CUDA GPU was found ({})", code == cudaErrorInsufficientDriver
                                                              ? "there is no GPU driver"
                                                              : cudaGetErrorString(code)));
  }
  if (code == cudaSuccess) code = cuda::try_device();
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction) {
    if (properties().major < 8) {
      fail("the {} is too old: compute capability 8.0 or later is needed", describe(properties()));
    }
    fail("this build has no code for the {}; build with -DCMAKE_CUDA_ARCHITECTURES={}{}{}",
         describe(properties()), properties().major, properties().minor,
         properties().major == 9 ? "a" : "");
  }
  if (code != cudaSuccess) {
    throw Error(fmt::format("the GPU cannot be used: {} ({})", cudaGetErrorString(code),
                            cudaGetErrorName(code)),
                code == cudaErrorMemoryAllocation ? Status::kOutOfMemory : Status::kRuntime);
  }
}

std::string device_name(Device device) {
  return device == Device::kCpu ? "cpu" : describe(properties());
}

bool supports(Device device, Precision precision) {
  check_available(device);
  return precision == Precision::kFp32 || (device == Device::kCuda && properties().major >= 8);
}

namespace cuda {

CudaError::CudaError(cudaError_t code_, const std::string& call, const char* file, int line)
    : Error(fmt::format("{}: {} ({}), {}:{}", call, cudaGetErrorString(code_),
                        cudaGetErrorName(code_), file, line),
            code_ == cudaErrorMemoryAllocation ? Status::kOutOfMemory : Status::kRuntime),
      code(code_) {
  cudaGetLastError();  // what is thrown is not to be found again by a later check
}

namespace {

Stream make_stream() {
  cudaStream_t stream = nullptr;
  WRN_CUDA_CALL(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

}  // namespace

Staging::Staging() {
  void* data = nullptr;
  WRN_CUDA_CALL(cudaMallocHost(&data, kSlots * kUploadBytes), "{} bytes", kSlots * kUploadBytes);
  slots.reset(static_cast<std::byte*>(data));
  for (Event& event : copied) {
    cudaEvent_t made = nullptr;
    WRN_CUDA_CALL(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
    event.reset(made);
  }
}

bool without(std::string_view what) {
  const char* given = std::getenv("WRN_WITHOUT");
  const std::string_view value = given == nullptr ? "" : given;
  if (!value.empty() && value != "hopper" && value != "overlap") {
    fail("WRN_WITHOUT={}: not hopper or overlap", value);
  }
  return value == what;
}

Runtime::Runtime()
    : device(properties()),
      takes_hopper(!without("hopper")),
      choices(measured_choices(device.multiProcessorCount)),
      stream(make_stream()),
      blas(stream.get()) {}

bool Runtime::is_hopper() const {
#if defined(WRN_SM90A)
  return takes_hopper && device.major == 9 && device.minor == 0;
#else
  return false;
#endif
}

void upload(void* device, const void* host, std::size_t bytes, Context& context) {
  WRN_CHECK(bytes <= kUploadBytes, "an upload of {} bytes", bytes);
  Runtime& runtime = context.runtime();
  Staging& staging = runtime.staging;
  const std::size_t slot = staging.uploads++ % Staging::kSlots;
  const cudaEvent_t copied = staging.copied[slot].get();
  // An event that was never recorded counts as reached.
  WRN_CUDA_CALL(cudaEventSynchronize(copied));
  std::byte* const pinned = staging.slots.get() + slot * kUploadBytes;
  std::memcpy(pinned, host, bytes);
  const cudaStream_t stream = runtime.stream.get();
  WRN_CUDA_CALL(cudaMemcpyAsync(device, pinned, bytes, cudaMemcpyHostToDevice, stream), "{} bytes",
                bytes);
  WRN_CUDA_CALL(cudaEventRecord(copied, stream));
}

void synchronise(Context& context) {
  WRN_CUDA_CALL(cudaStreamSynchronize(context.runtime().stream.get()));
}

std::string library_version(const Runtime& used) {
  int driver = 0, runtime = 0;
  WRN_CUDA_CALL(cudaDriverGetVersion(&driver));
  WRN_CUDA_CALL(cudaRuntimeGetVersion(&runtime));
  return fmt::format("CUDA runtime {}, driver {}, {}", version_text(runtime), version_text(driver),
                     used.blas.version());
}

}  // namespace cuda
}  // namespace wrn
