#include <optional>

#include "benchmarks/stopwatch.h"
#include "engine/tensor.h"
#include "kernels/runtime.h"

namespace wrn::cuda {
namespace {

class EventStopwatch : public Stopwatch {
 public:
  explicit EventStopwatch(Context& context) : context_(context) {}

  void mark() override {
    if (marks_ == events_.size()) {
      cudaEvent_t event = nullptr;
      WRN_CUDA_CALL(cudaEventCreate(&event));
      events_.emplace_back(event);
    }
    WRN_CUDA_CALL(cudaEventRecord(events_[marks_++].get(), context_.runtime().stream.get()));
  }

  std::vector<double> laps() override {
    synchronise(context_);
    std::vector<double> seconds;
    for (std::size_t i = 1; i < marks_; ++i) {
      float milliseconds = 0;
      WRN_CUDA_CALL(cudaEventElapsedTime(&milliseconds, events_[i - 1].get(), events_[i].get()));
      seconds.push_back(1e-3 * milliseconds);
    }
    marks_ = 0;
    return seconds;
  }

  /// Writes twice the cache's size. The last of it stays there to be written back, which the launch
  /// that is timed next may have to wait for.
  void flush_cache() override {
    if (!flushed_) {
      const int cache = context_.runtime().device.l2CacheSize;
      flushed_.emplace(2 * static_cast<std::size_t>(cache), "the L2's flush", Device::kCuda);
    }
    WRN_CUDA_CALL(
        cudaMemsetAsync(flushed_->data(), 0, flushed_->bytes(), context_.runtime().stream.get()));
  }

 private:
  Context& context_;
  std::optional<Buffer> flushed_;
  std::vector<Event> events_;  // made once
  std::size_t marks_ = 0;      // how many of them count
};

}  // namespace

std::unique_ptr<Stopwatch> make_stopwatch(Context& context) {
  return std::make_unique<EventStopwatch>(context);
}

int hopper_multiprocessors(Context& context) {
  const cudaDeviceProp& device = context.runtime().device;
  return device.major == 9 && device.minor == 0 ? device.multiProcessorCount : 0;
}

}  // namespace wrn::cuda
