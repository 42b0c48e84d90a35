#include "kernels/context.h"

#include <omp.h>

#include <algorithm>

#include "kernels/cgroup.h"
#include "kernels/cpu/onednn.h"
#include "kernels/error.h"
#if defined(WRN_CUDA)
#include "kernels/runtime.h"
#endif

namespace wrn {

#if !defined(WRN_CUDA)
void check_available(Device device) {
  if (device == Device::kCuda) {
    throw NoGpu("this build has no CUDA device support; build it where nvcc is");
  }
}

std::string device_name(Device) { return "cpu"; }

bool supports(Device device, Precision precision) {
  check_available(device);
  return precision == Precision::kFp32;
}
#endif

int usable_cores() { return std::min(omp_get_num_procs(), cgroup_cores()); }

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kTf32:
      return "tf32";
    case Precision::kBf16:
      return "bf16";
  }
  return "?";
}

std::string library_version(Context& context) {
#if defined(WRN_CUDA)
  if (context.device() == Device::kCuda) return cuda::library_version(context.runtime());
#endif
  static_cast<void>(context);
  const dnnl_version_t* version = dnnl_version();
  return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
}

Context::Context(Device device, int threads, Precision precision)
    : device_(device), precision_(precision) {
  WRN_CHECK(supports(device, precision), "{} does not compute in {}", device_name(device),
            name_of(precision));
  WRN_CHECK(threads >= 0, "a context of {} threads", threads);
  threads_ = threads > 0 ? threads : usable_cores();
#if defined(WRN_CUDA)
  if (device == Device::kCuda) {
    runtime_ = std::make_shared<cuda::Runtime>();
    overlaps_kernels = !cuda::without("overlap");
    return;
  }
#endif
  library_ = std::make_unique<cpu::Library>();
  omp_set_num_threads(threads_);
}

Context::Context(Precision precision) : Context(Device::kCpu) {
  precision_ = precision;
  only_plans_ = true;
}

Context::~Context() = default;

}  // namespace wrn
