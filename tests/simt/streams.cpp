// The CUDA runtime's functions that this project uses, on host memory: streams and what is in them.
//
// A stream is a queue. Its work runs when the host waits for it, or earlier where the progress says
// so (simt.h): so what only worked because the device happened to be quick, or slow, shows.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "simt/device.h"
#include "simt/internal.h"
#include "simt/state.h"

namespace wrn::cuda::simt {
namespace {

CUstream_st& stream_of(const char* call, cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return state().legacy;
  if (!state().streams.contains(stream)) fatal(std::string(call) + ": no such stream");
  return *stream;
}

void run_front(CUstream_st& stream);

void run_before(CUstream_st& stream, std::uint64_t ticket) {
  while (!stream.queue.empty() && stream.queue.front().ticket < ticket) run_front(stream);
}

/// The legacy stream and the blocking streams wait for each other's earlier work.
void run_front(CUstream_st& stream) {
  const std::uint64_t ticket = stream.queue.front().ticket;
  if (&stream == &state().legacy) {
    for (cudaStream_t other : state().streams) {
      if (other->blocking) run_before(*other, ticket);
    }
  } else if (stream.blocking) {
    run_before(state().legacy, ticket);
  }
  const Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  work.run();
}

void drain(CUstream_st& stream) {
  const DeviceAccess access;
  if (&stream == &state().legacy) {
    for (cudaStream_t other : state().streams) {
      if (other->blocking) run_before(*other, state().tickets);
    }
  }
  while (!stream.queue.empty()) run_front(stream);
}

void run_some(CUstream_st& stream) {
  const DeviceAccess access;
  for (std::size_t n = state().random.below(4); n > 0 && !stream.queue.empty(); --n) {
    run_front(stream);
  }
}

cudaError_t push(CUstream_st& stream, std::function<void()> work) {
  if (stream.invalidated) return cudaErrorStreamCaptureInvalidated;
  if (stream.capture) {
    stream.capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream.queue.push_back({std::move(work), state().tickets++});
  if (state().progress == simt::Progress::kAtOnce) drain(stream);
  if (state().progress == simt::Progress::kRandom) run_some(stream);
  return cudaSuccess;
}

bool is_live(cudaEvent_t event) { return state().events.contains(event); }

void wait_for(EventState& event, std::uint64_t record) {
  const DeviceAccess access;
  while (event.reached < record) run_front(stream_of("a wait for an event", event.stream));
}

/// What a copy is between; an error where `kind` says otherwise or a range leaves its allocation.
cudaError_t check_copy(const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = is_device(to), from_device = is_device(from);
  if (kind != cudaMemcpyDefault) {
    const bool says_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool says_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device != says_to || from_device != says_from) return cudaErrorInvalidValue;
  }
  return in_bounds(to, bytes) && in_bounds(from, bytes) ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

void drain_all() {
  const DeviceAccess access;
  drain(state().legacy);
  for (cudaStream_t stream : state().streams) drain(*stream);
}

bool capture_forbids(cudaStream_t only) {
  bool forbids = false;
  for (cudaStream_t stream : state().streams) {
    if (!stream->capture ||
        (only ? stream != only : stream->mode == cudaStreamCaptureModeRelaxed)) {
      continue;
    }
    stream->invalidated = true;
    forbids = true;
  }
  return forbids;
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
  RETURN_IF_UNAVAILABLE();
  return result(push(stream_of("a launch", stream), std::move(work)));
}

cudaError_t launch(const char* name, dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream,
                   std::function<void()> body) {
  RETURN_IF_UNAVAILABLE();
  if (environment_is("WRN_SIMT_ARCH", "unsupported")) {
    return result(cudaErrorNoKernelImageForDevice);
  }
  cudaDeviceProp device;
  cudaGetDeviceProperties(&device, 0);
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  const std::size_t blocks = std::size_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || block.z > 64 || blocks == 0 || grid.y > 65535 ||
      grid.z > 65535) {
    return result(cudaErrorInvalidConfiguration);
  }
  if (shared > device.sharedMemPerBlockOptin) return result(cudaErrorInvalidValue);
  std::string base(name);
  base.resize(std::min(base.find('<'), base.size()));
  const auto launch = std::make_shared<const Launch>(base, grid, block, shared, std::move(body));
  order_after_now(*launch);
  return enqueue(stream, [launch] { run_kernel(*launch); });
}

}  // namespace wrn::cuda::simt

namespace simt = wrn::cuda::simt;
using simt::capture_forbids, simt::drain, simt::EventState, simt::fatal, simt::is_device;
using simt::is_live, simt::is_pinned, simt::push, simt::result, simt::run_some, simt::state;
using simt::stream_of;

extern "C" {

// --- Copies ------------------------------------------------------------------------------------
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t handle) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaMemcpyAsync", handle);
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t code = simt::check_copy(to, from, bytes, kind); code != cudaSuccess) {
    return result(code);
  }
  const bool pageable_from = !is_device(from) && !is_pinned(from);
  const bool pageable_to = !is_device(to) && !is_pinned(to);
  if (stream.capture && (pageable_from || pageable_to)) {
    stream.invalidated = true;
    return result(cudaErrorStreamCaptureUnsupported);
  }
  if (pageable_from) {  // read before the call returns
    const auto* data = static_cast<const char*>(from);
    return result(push(stream, [to, copy = std::vector<char>(data, data + bytes)] {
      std::memcpy(to, copy.data(), copy.size());
    }));
  }
  const cudaError_t code = push(stream, [=] { std::memmove(to, from, bytes); });
  if (pageable_to) drain(stream);  // written before the call returns
  return result(code);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const simt::Lock lock(state().mutex);
  if (capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  const cudaError_t code = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  if (code == cudaSuccess) drain(state().legacy);
  return code;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  RETURN_IF_UNAVAILABLE();
  if (bytes == 0) return cudaSuccess;
  if (!is_device(to) || !simt::in_bounds(to, bytes)) return result(cudaErrorInvalidValue);
  return result(push(stream_of("cudaMemsetAsync", stream), [=] { std::memset(to, value, bytes); }));
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  const simt::Lock lock(state().mutex);
  if (capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

// --- Streams -----------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  RETURN_IF_UNAVAILABLE();
  *stream = new CUstream_st;
  (*stream)->blocking = (flags & cudaStreamNonBlocking) == 0;
  state().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaStreamDestroy", handle);
  if (&stream == &state().legacy) return result(cudaErrorInvalidResourceHandle);
  drain(stream);
  state().streams.erase(handle);
  delete handle;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaStreamSynchronize", handle);
  if (capture_forbids(&stream)) return result(cudaErrorStreamCaptureUnsupported);
  drain(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaStreamQuery", handle);
  run_some(stream);
  return stream.queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaDeviceSynchronize() {
  RETURN_IF_UNAVAILABLE();
  if (capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  simt::drain_all();
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  RETURN_IF_UNAVAILABLE();
  return result(push(stream_of("cudaLaunchHostFunc", stream), [=] {
    const int accesses = std::exchange(state().accesses, 0);
    simt::set_accessible(false);
    function(data);
    simt::set_accessible(true);
    state().accesses = accesses;
  }));
}

// --- Events ------------------------------------------------------------------------------------
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  RETURN_IF_UNAVAILABLE();
  *event = new CUevent_st;
  (*event)->timing = (flags & cudaEventDisableTiming) == 0;
  state().events.insert(*event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  RETURN_IF_UNAVAILABLE();
  if (state().events.erase(event) == 0) fatal("cudaEventDestroy: no such event");
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaEventRecord", handle);
  if (!is_live(event)) return result(cudaErrorInvalidResourceHandle);
  if (capture_forbids(&stream)) return result(cudaErrorStreamCaptureUnsupported);
  event->state->stream = handle;
  return result(push(stream, [state = event->state, record = ++event->state->recorded] {
    state->reached = record;
    state->time = std::chrono::steady_clock::now();
  }));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaStreamWaitEvent", handle);
  if (!is_live(event)) return result(cudaErrorInvalidResourceHandle);
  if (capture_forbids(&stream)) return result(cudaErrorStreamCaptureUnsupported);
  return result(push(stream, [state = event->state, record = event->state->recorded] {
    simt::wait_for(*state, record);
  }));
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  RETURN_IF_UNAVAILABLE();
  if (!is_live(event)) return result(cudaErrorInvalidResourceHandle);
  if (capture_forbids()) return result(cudaErrorStreamCaptureUnsupported);
  simt::wait_for(*event->state, event->state->recorded);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  RETURN_IF_UNAVAILABLE();
  if (!is_live(event)) return result(cudaErrorInvalidResourceHandle);
  const EventState& state = *event->state;
  if (state.reached < state.recorded) run_some(stream_of("cudaEventQuery", state.stream));
  return state.reached < state.recorded ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  RETURN_IF_UNAVAILABLE();
  for (cudaEvent_t event : {start, end}) {
    if (!is_live(event) || !event->timing || event->state->recorded == 0) {
      return result(cudaErrorInvalidResourceHandle);
    }
    if (event->state->reached < event->state->recorded) return result(cudaErrorNotReady);
  }
  *ms = std::chrono::duration<float, std::milli>(end->state->time - start->state->time).count();
  return cudaSuccess;
}

// --- Graphs ------------------------------------------------------------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaStreamBeginCapture", handle);
  if (&stream == &state().legacy) return result(cudaErrorStreamCaptureUnsupported);
  if (stream.capture) return result(cudaErrorIllegalState);
  stream.capture = new CUgraph_st;
  stream.mode = mode;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaStreamEndCapture", handle);
  if (!stream.capture) return result(cudaErrorIllegalState);
  *graph = std::exchange(stream.capture, nullptr);
  if (std::exchange(stream.invalidated, false)) {
    delete std::exchange(*graph, nullptr);
    return result(cudaErrorStreamCaptureInvalidated);
  }
  state().graphs.insert(*graph);
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  RETURN_IF_UNAVAILABLE();
  const CUstream_st& stream = stream_of("cudaStreamIsCapturing", handle);
  *status = !stream.capture      ? cudaStreamCaptureStatusNone
            : stream.invalidated ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  RETURN_IF_UNAVAILABLE();
  if (!state().graphs.contains(graph)) fatal("cudaGraphInstantiate: no such graph");
  *exec = new CUgraphExec_st{graph->work};
  state().execs.insert(*exec);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  RETURN_IF_UNAVAILABLE();
  CUstream_st& stream = stream_of("cudaGraphLaunch", handle);
  if (!state().execs.contains(exec)) fatal("cudaGraphLaunch: no such graph");
  for (const auto& work : exec->work) {
    if (const cudaError_t code = push(stream, work); code != cudaSuccess) return result(code);
  }
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  RETURN_IF_UNAVAILABLE();
  if (state().graphs.erase(graph) == 0) fatal("cudaGraphDestroy: no such graph");
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  RETURN_IF_UNAVAILABLE();
  if (state().execs.erase(exec) == 0) fatal("cudaGraphExecDestroy: no such graph");
  delete exec;
  return cudaSuccess;
}

}  // extern "C"
