// The state of the emulated CUDA runtime, which runtime.cpp (device, errors, memory) and
// streams.cpp (streams, copies, events, graphs, launches) share.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "simt/internal.h"
#include "simt/simt.h"

namespace wrn::cuda::simt {

struct Work {
  std::function<void()> run;
  std::uint64_t ticket = 0;  // the order in which work was given to all streams
};

/// The state of an event, which outlives it in the streams' work.
struct EventState {
  cudaStream_t stream = nullptr;
  std::uint64_t recorded = 0, reached = 0;  // how many times
  std::chrono::steady_clock::time_point time;
};

}  // namespace wrn::cuda::simt

struct CUstream_st {
  bool blocking = true;  // ordered with the legacy stream
  std::deque<wrn::cuda::simt::Work> queue;
  cudaGraph_t capture = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool invalidated = false;
};
struct CUevent_st {
  std::shared_ptr<wrn::cuda::simt::EventState> state =
      std::make_shared<wrn::cuda::simt::EventState>();
  bool timing = true;
};
struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace wrn::cuda::simt {

struct State {
  std::recursive_mutex mutex;
  CUstream_st legacy;
  std::set<cudaStream_t> streams;
  std::set<cudaEvent_t> events;
  std::set<cudaGraph_t> graphs;
  std::set<cudaGraphExec_t> execs;
  std::map<const char*, std::size_t> device, pinned;  // address -> bytes
  std::size_t device_bytes = 0;
  int accesses = 0;  // nested DeviceAccesses
  std::uint64_t tickets = 0;
  unsigned char poison = 0xFF;
  Progress progress = Progress::kLatest;
  Random random{0};
  cudaError_t last_error = cudaSuccess;
};

State& state();

/// All calls hold one lock, as kernels run on the thread that waits.
using Lock = std::lock_guard<std::recursive_mutex>;

/// What every call returns through: remembers an error for cudaGetLastError().
cudaError_t result(cudaError_t code);

bool environment_is(const char* name, const char* value);
/// Why there is no device, if the environment says so.
cudaError_t unavailable();
#define RETURN_IF_UNAVAILABLE()               \
  const simt::Lock lock(simt::state().mutex); \
  if (const cudaError_t code = simt::unavailable(); code != cudaSuccess) return simt::result(code)

/// Makes device memory accessible to all, or to none: AddressSanitizer reports who uses it then.
void set_accessible(bool accessible);

/// While one lives, device memory may be used.
class DeviceAccess {
 public:
  DeviceAccess() {
    if (state().accesses++ == 0) set_accessible(true);
  }
  ~DeviceAccess() {
    if (--state().accesses == 0) set_accessible(false);
  }
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

bool is_device(const void* p);
bool is_pinned(const void* p);
/// Whether [p, p + bytes) is within p's allocation, where p is device memory.
bool in_bounds(const void* p, std::size_t bytes);

/// Runs all work of all streams.
void drain_all();
/// Whether a capture (of `only`, if given) forbids what waits or allocates; such a call ends it,
/// too.
bool capture_forbids(cudaStream_t only = nullptr);

}  // namespace wrn::cuda::simt
