// The main() of the test_cuda_*.cpp programs: without a GPU, real or emulated, ctest reports their
// cases as skipped.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "tests/device_array.h"
#include "tests/devices.h"
#include "tests/run_catch.h"
#if defined(WRN_EMULATED)
#include "tests/simt/simt.h"
#endif

#if defined(WRN_EMULATED)
namespace {

/// The emulation takes Catch2's own seed as its seed.
void set_seed(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == std::string_view("--rng-seed")) {
      wrn::cuda::simt::set_seed(std::strtoull(argv[i + 1], nullptr, 10));
    }
  }
}

/// Appends to WRN_CUDA_LOG, for kernel_cases.py, the names of the kernels that ran and a checksum
/// of all that this run of the program has read from the device.
void write_log(const char* program, const char* cases) {
  std::string lines;
  for (const auto& [name, count] : wrn::cuda::simt::launched_kernels()) {
    lines += "launched\t" + name + '\n';
  }
  lines += fmt::format("read\t{} {}\t{:016x}\n", program, cases, wrn::read_checksum());
  std::ofstream(WRN_CUDA_LOG, std::ios::app) << lines;
}

}  // namespace
#endif

int main(int argc, char** argv) {
  // ctest asks for the list of cases while building, which may be on a machine without a GPU.
  const bool listing = argc > 1 && std::string_view(argv[1]).starts_with("--list");
  if (!listing) {
    try {
      wrn::check_available(wrn::Device::kCuda);
    } catch (const wrn::Error& error) {
      std::printf("skipped: %s\n", error.what());
      return 77;  // SKIP_RETURN_CODE in CMakeLists.txt
    }
  }
#if defined(WRN_EMULATED)
  set_seed(argc, argv);
  const int result = run_catch(argc, argv);
  write_log(argv[0], argc > 1 ? argv[1] : "");
  return result;
#else
  return run_catch(argc, argv);
#endif
}
