// What the parts of the emulation know of each other.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>

#include "simt/simt.h"

namespace wrn::cuda::simt {

struct Launch {
  std::string name;
  dim3 grid, block;
  std::size_t shared;  // bytes
  std::function<void()> body;
  mutable char enqueued = 0;  // an object of ThreadSanitizer's
};
/// Enqueues a kernel: `body` is what each of its threads runs.
cudaError_t launch(const char* name, dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream,
                   std::function<void()> body);
/// What has happened so far happens before the kernel.
void order_after_now(const Launch& launch);
/// Runs a whole kernel, here and now.
void run_kernel(const Launch& launch);

/// Puts work into a stream: a kernel, a copy, or a stand-in for a library, which may use device
/// memory.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

unsigned char poison();
Progress progress();

/// One line on stderr, and abort().
[[noreturn]] void fatal(const std::string& message);

/// xorshift64*: the source of all that is drawn from a seed.
class Random {
 public:
  constexpr explicit Random(std::uint64_t seed)
      : state_(seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) {
    if (state_ == 0) state_ = 1;
  }
  std::size_t below(std::size_t n) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return (state_ * 0x2545F4914F6CDD1D >> 32) * n >> 32;
  }

 private:
  std::uint64_t state_;
};

}  // namespace wrn::cuda::simt
