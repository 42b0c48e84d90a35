// The CUDA runtime's functions that this project uses, on host memory: device, errors and memory.
#include <cuda_runtime_api.h>
#include <sanitizer/asan_interface.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "simt/internal.h"
#include "simt/simt.h"
#include "simt/state.h"
#include "simt/tensor_map.h"

#pragma weak __asan_poison_memory_region
#pragma weak __asan_unpoison_memory_region

namespace wrn::cuda::simt {
namespace {

void report_leaks(int status, void*) {
  const Outstanding left = outstanding();
  if (left.device_allocations + left.pinned + left.streams + left.events + left.graphs == 0) return;
  std::fprintf(
      stderr,
      "simt: leak: %zu device allocations, %zu bytes; %zu pinned allocations, %zu streams, "
      "%zu events, %zu graphs\n",
      left.device_allocations, left.device_bytes, left.pinned, left.streams, left.events,
      left.graphs);
  std::fflush(nullptr);
  _exit(status != 0 ? status : 1);
}

/// Starts the state, and with it the check at exit, before anything of the program.
const bool started = [] {
  const char* seed = std::getenv("WRN_SIMT_SEED");
  set_seed(seed ? std::strtoull(seed, nullptr, 10) : 0);
  return true;
}();

using Allocations = std::map<const char*, std::size_t>;

void set_range_accessible(const char* p, std::size_t bytes, bool accessible) {
  if (accessible && __asan_unpoison_memory_region) __asan_unpoison_memory_region(p, bytes);
  if (!accessible && __asan_poison_memory_region) __asan_poison_memory_region(p, bytes);
}

/// The allocation that p points into, or end().
auto find(const Allocations& allocations, const void* p) {
  auto it = allocations.upper_bound(static_cast<const char*>(p));
  if (it == allocations.begin()) return allocations.end();
  --it;
  const bool inside = static_cast<const char*>(p) < it->first + it->second;
  return inside ? it : allocations.end();
}

constexpr std::size_t kAlignment = 256;

void* allocate(std::size_t bytes, Allocations& allocations) {
  void* p = nullptr;
  if (posix_memalign(&p, kAlignment, bytes) != 0) return nullptr;
  std::memset(p, state().poison, bytes);
  allocations.emplace(static_cast<char*>(p), bytes);
  return p;
}

void release(const char* call, void* p, Allocations& allocations) {
  const auto it = allocations.find(static_cast<char*>(p));
  if (it == allocations.end()) {
    char address[32];
    std::snprintf(address, sizeof address, "%p", p);
    fatal(std::string(call) + "(" + address + "): not an allocation, or already freed");
  }
  set_range_accessible(it->first, it->second, true);
  std::memset(p, state().poison, it->second);
  allocations.erase(it);
  std::free(p);
}

std::size_t memory_size() {
  const char* limit = std::getenv("WRN_SIMT_MEMORY");
  return limit ? std::strtoull(limit, nullptr, 10) : std::size_t{4} << 30;
}

constexpr unsigned char kPoisons[] = {0xFF, 0x7F, 0x00};

}  // namespace

State& state() {
  static State& instance = *[] {
    on_exit(report_leaks, nullptr);
    return new State;  // never destroyed: static objects may still free theirs
  }();
  return instance;
}

cudaError_t result(cudaError_t code) {
  if (code != cudaSuccess) state().last_error = code;
  return code;
}

bool environment_is(const char* name, const char* value) {
  const char* is = std::getenv(name);
  return is && std::strcmp(is, value) == 0;
}

cudaError_t unavailable() {
  if (environment_is("WRN_SIMT_DRIVER", "old")) return cudaErrorInsufficientDriver;
  if (environment_is("WRN_SIMT_DEVICES", "0")) return cudaErrorNoDevice;
  return cudaSuccess;
}
void set_accessible(bool accessible) {
  for (const auto& [p, bytes] : state().device) set_range_accessible(p, bytes, accessible);
}

bool is_device(const void* p) { return find(state().device, p) != state().device.end(); }
bool is_pinned(const void* p) { return find(state().pinned, p) != state().pinned.end(); }
bool in_bounds(const void* p, std::size_t bytes) {
  const auto it = find(state().device, p);
  return it == state().device.end() ||
         static_cast<const char*>(p) + bytes <= it->first + it->second;
}

unsigned char poison() { return state().poison; }
Progress progress() { return state().progress; }
void set_poison(unsigned char byte) { state().poison = byte; }
void set_progress(Progress progress) { state().progress = progress; }

void set_seed(std::uint64_t seed) {
  set_order_seed(seed);
  set_poison(kPoisons[seed % 3]);
  set_progress(static_cast<Progress>(seed / 3 % 3));
  state().random = Random(seed);
}

Outstanding outstanding() {
  const Lock lock(state().mutex);
  return {state().device.size(), state().device_bytes,
          state().pinned.size(), state().streams.size(),
          state().events.size(), state().graphs.size() + state().execs.size()};
}

std::string check_deterministic(const std::function<std::vector<std::byte>()>& run) {
  const unsigned char old_poison = poison();
  const Progress old_progress = progress();
  const auto outputs = [&](std::uint64_t order, unsigned char byte, Progress when) {
    set_order_seed(order);
    set_poison(byte);
    set_progress(when);
    std::vector<std::byte> bytes = run();
    set_poison(old_poison);
    set_progress(old_progress);
    return bytes;
  };
  const std::vector<std::byte> expected = outputs(1, kPoisons[0], old_progress);
  std::string cause;
  for (const unsigned char byte : {kPoisons[1], kPoisons[2]}) {
    if (outputs(1, byte, old_progress) != expected) cause = "uninitialised memory";
  }
  for (std::uint64_t order = 2; cause.empty() && order <= 4; ++order) {
    if (outputs(order, kPoisons[0], old_progress) != expected) {
      cause = "the order of threads or blocks";
    }
  }
  for (const Progress when : {Progress::kLatest, Progress::kAtOnce, Progress::kRandom}) {
    if (cause.empty() && outputs(1, kPoisons[0], when) != expected) {
      cause = "when asynchronous work is done";
    }
  }
  if (cause.empty()) return "";
  std::string kernels;
  for (const auto& [name, count] : launched_kernels()) kernels += " " + name;
  return "simt: the results depend on " + cause + "; kernels:" + kernels;
}

}  // namespace wrn::cuda::simt

namespace simt = wrn::cuda::simt;
using simt::fatal, simt::result, simt::state, simt::environment_is, simt::capture_forbids;

namespace {

const struct {
  cudaError_t code;
  const char *name, *text;
} kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalState, "cudaErrorIllegalState",
     "the operation cannot be performed in the present state"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
};

}  // namespace

extern "C" {

// --- Device and errors -------------------------------------------------------------------------
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  RETURN_IF_UNAVAILABLE();
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  RETURN_IF_UNAVAILABLE();
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  RETURN_IF_UNAVAILABLE();
  return result(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  RETURN_IF_UNAVAILABLE();
  if (device != 0) return result(cudaErrorInvalidDevice);
  *p = {};
  std::strcpy(p->name, "emulated GPU");
  p->major = environment_is("WRN_SIMT_ARCH", "80") ? 8 : 9;
  p->multiProcessorCount = 4;
  p->totalGlobalMem = simt::memory_size();
  p->sharedMemPerBlock = 48 << 10;
  p->sharedMemPerBlockOptin = 227 << 10;
  p->sharedMemPerMultiprocessor = 228 << 10;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->l2CacheSize = 50 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t code = cudaGetDeviceProperties(&p, device); code != cudaSuccess)
    return code;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(p.sharedMemPerBlock);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = p.maxThreadsPerMultiProcessor;
      break;
    default:
      fatal("cudaDeviceGetAttribute: attribute " + std::to_string(attribute));
  }
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = environment_is("WRN_SIMT_DRIVER", "old") ? 11040 : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaPeekAtLastError() { return state().last_error; }
cudaError_t cudaGetLastError() { return std::exchange(state().last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t code) {
  for (const auto& error : kErrors) {
    if (error.code == code) return error.name;
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t code) {
  for (const auto& error : kErrors) {
    if (error.code == code) return error.text;
  }
  return "unrecognized error code";
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  RETURN_IF_UNAVAILABLE();
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  RETURN_IF_UNAVAILABLE();
  if (environment_is("WRN_SIMT_ARCH", "unsupported")) {
    return result(cudaErrorNoKernelImageForDevice);
  }
  *attributes = {};
  attributes->binaryVersion = attributes->ptxVersion = 90;
  attributes->maxThreadsPerBlock = 1024;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  RETURN_IF_UNAVAILABLE();
  const bool known = std::strcmp(name, "cuTensorMapEncodeTiled") == 0;
  *function = known ? simt::tensor_map_encoder() : nullptr;
  *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

// --- Memory ------------------------------------------------------------------------------------
cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  RETURN_IF_UNAVAILABLE();
  if (capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes > simt::memory_size() - std::min(simt::memory_size(), state().device_bytes)) {
    return result(cudaErrorMemoryAllocation);
  }
  *p = simt::allocate(bytes, state().device);
  if (!*p) return result(cudaErrorMemoryAllocation);
  state().device_bytes += bytes;
  if (state().accesses == 0) simt::set_range_accessible(static_cast<char*>(*p), bytes, false);
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  RETURN_IF_UNAVAILABLE();
  if (capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  if (!p) return cudaSuccess;
  simt::drain_all();
  const auto it = state().device.find(static_cast<char*>(p));
  if (it != state().device.end()) state().device_bytes -= it->second;
  simt::release("cudaFree", p, state().device);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
  RETURN_IF_UNAVAILABLE();
  if (capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  *p = simt::allocate(bytes, state().pinned);
  return result(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes) { return cudaHostAlloc(p, bytes, 0); }
cudaError_t cudaFreeHost(void* p) {
  RETURN_IF_UNAVAILABLE();
  if (!p) return cudaSuccess;
  simt::drain_all();
  simt::release("cudaFreeHost", p, state().pinned);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  RETURN_IF_UNAVAILABLE();
  *total = simt::memory_size();
  *free = *total - std::min(*total, state().device_bytes);
  return cudaSuccess;
}

}  // extern "C"
