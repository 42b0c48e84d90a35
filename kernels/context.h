// What every launcher takes last: the machinery that a launch needs and a caller should not see.
//
// A Context belongs to one thread at a time. On the CPU it holds oneDNN's engine, stream and the
// cache of its primitives; on CUDA a stream, the device's properties and a cuBLAS handle. There are
// no globals but a table that is read once (choices.h), and OpenMP's: on the CPU, a Context that is
// made sets the number of threads for every Context of the thread that makes it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/error.h"

namespace wrn {

#if defined(WRN_CUDA)
inline constexpr bool kHasCuda = true;
#else
inline constexpr bool kHasCuda = false;
#endif

namespace cpu {
struct Library;  // defined in cpu/onednn.h
}
namespace cuda {
struct Runtime;  // defined in runtime.h
}

enum class Device { kCpu, kCuda };

/// What convolutions multiply / what images between layers are stored in: fp32 / fp32; on CUDA with
/// tensor cores also tf32 (fp32 rounded to ten bits of mantissa) / fp32, and bf16 / bf16. Sums,
/// statistics, parameters and their gradients are fp32 in all three.
enum class Precision { kFp32, kTf32, kBf16 };

/// "fp32", "tf32", "bf16"
const char* name_of(Precision);

/// How many cores the process may keep busy: those it may run on, or a container's share of them.
int usable_cores();

/// There is no GPU, or the build has no CUDA.
struct NoGpu : Error {
  using Error::Error;
};
/// Throws an Error that says what to do when `device` cannot be used: NoGpu, or where there is one,
/// of too old a driver, or of a GPU that this build has no code for.
void check_available(Device device);

/// "cpu" or "NVIDIA H100 80GB HBM3 (compute capability 9.0)".
std::string device_name(Device device);

/// Whether the device computes in `precision`: the CPU only in fp32, GPUs in the others from
/// compute capability 8.0 on. Throws as check_available() does.
bool supports(Device device, Precision precision);

class Context {
 public:
  /// `threads`: how many cores the CPU's launchers use, 0 = usable_cores(). Throws
  /// an Error where the device does not support the precision.
  explicit Context(Device device = Device::kCpu, int threads = 0,
                   Precision precision = Precision::kFp32);
  /// For recording Programs only to look at them: of the CPU, in any precision.
  static Context for_plans(Precision precision) { return {precision}; }
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const { return device_; }
  int threads() const { return threads_; }
  /// Here, and not an argument of the convolutions, because their workspace depends on it and a
  /// Program is recorded and run with one Context.
  Precision precision() const { return precision_; }
  bool only_plans() const { return only_plans_; }
  cpu::Library& library() { return *library_; }
  cuda::Runtime& runtime() { return *runtime_; }

  /// Scratch memory of the launch to come, 64-byte aligned, at least what its *_workspace() said.
  /// Whoever launches sets it; its content is undefined before and after.
  std::byte* workspace = nullptr;
  /// Whether every step of a Program is an NVTX range, for profilers (CUDA only).
  bool named_ranges = false;
  /// Whether a kernel may start before the one before it has ended, on a Hopper in a build for
  /// 90a (CUDA only; wait_for_previous_kernels() in device.cuh).
  bool overlaps_kernels = true;

 private:
  Context(Precision precision);  // NOLINT(google-explicit-constructor)

  Device device_;
  int threads_ = 0;
  Precision precision_;
  bool only_plans_ = false;
  std::unique_ptr<cpu::Library> library_;  // on the CPU
  std::shared_ptr<cuda::Runtime>
      runtime_;  // on CUDA; shared_ptr, as a CPU-only build never sees it
};

/// "oneDNN 3.1.0" or "CUDA runtime 13.0, driver 13.0, cuBLAS 13.1.0": what the launchers stand on.
std::string library_version(Context&);

}  // namespace wrn
