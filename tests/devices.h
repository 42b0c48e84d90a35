// The devices that a test runs on: the CPU, and in a build with CUDA the GPU too, real or emulated.
#pragma once

#include <iostream>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "kernels/error.h"
#if defined(WRN_EMULATED)
#include "tests/simt/simt.h"
#endif

namespace wrn::test {

inline bool has_gpu() {
  try {
    check_available(Device::kCuda);
    return true;
  } catch (const Error&) {
    return false;
  }
}

inline std::vector<Device> devices() {
  return has_gpu() ? std::vector{Device::kCpu, Device::kCuda} : std::vector{Device::kCpu};
}

/// Whether the GPU is the host's own emulation of one, which is slow.
inline bool is_emulated() { return device_name(Device::kCuda).starts_with("emulated"); }

/// For tests of what the GPU has from the CPU.
struct Both {
  Context cpu{Device::kCpu, 1}, cuda{Device::kCuda};
};

/// Says on a GPU what is run next: where it hangs, this is all that is known.
inline void announce(const std::string& what) {
  if (!is_emulated()) std::clog << what << std::endl;
}

/// How often a kernel has been launched. Only tests/simt knows.
#if defined(WRN_EMULATED)
constexpr bool kKnowsLaunches = true;
inline int launches_of(const char* kernel) {
  const auto launched = cuda::simt::launched_kernels();
  const auto found = launched.find(kernel);
  return found != launched.end() ? found->second : 0;
}
#else
constexpr bool kKnowsLaunches = false;
inline int launches_of(const char*) { return 0; }
#endif

inline const char* name_of(Device device) { return device == Device::kCpu ? "cpu" : "cuda"; }

}  // namespace wrn::test
