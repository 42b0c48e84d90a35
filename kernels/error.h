// The errors of the whole program, and the check that every launcher and op makes.
//
// An Error is one line for a person: what was wrong, where (file, offset, flag), what to do. Its
// `status` is the exit status of the process that does not recover from it.
#pragma once

#if defined(__CUDACC__)  // fmt 9 does not see that nvcc knows constexpr
#define FMT_USE_CONSTEXPR 1
#endif
#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace wrn {

enum class Status : int {
  kDone = 0,
  kRuntime = 1,      // a file, a device, a broken precondition
  kUsage = 2,        // the command line
  kOutOfMemory = 3,  // host or device
  kNotFinite = 4,    // the loss
};

struct Error : std::runtime_error {
  explicit Error(const std::string& message, Status exit_status = Status::kRuntime)
      : std::runtime_error(message), status(exit_status) {}
  Status status;
};

/// Throws an Error made as fmt::format makes a string.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace wrn

/// A precondition that a caller inside the program can break: always on, never compiled out. Throws
/// an Error naming the expression and file:line, and the values given as an fmt format string.
#define WRN_CHECK(condition, ...)                                                              \
  do {                                                                                         \
    if (!(condition)) {                                                                        \
      ::wrn::fail("{} (expected {}, {}:{})", ::fmt::format(__VA_ARGS__), #condition, __FILE__, \
                  __LINE__);                                                                   \
    }                                                                                          \
  } while (false)
