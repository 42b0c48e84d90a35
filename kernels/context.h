// What every launcher takes last: the machinery that a launch needs and a caller should not see.
//
// A Context belongs to one thread at a time. On the CPU it holds oneDNN's engine, stream and the
// cache of its primitives. There are no globals, so two Contexts never share anything.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace wrn {

namespace cpu {
struct Library;  // defined in cpu/onednn.h
}

enum class Device { kCpu, kCuda };

/// Throws an Error that says what to do when this build cannot use `device`.
void check_available(Device device);

/// "oneDNN 3.1.0": what the launchers stand on, for config.json.
std::string library_version();

class Context {
 public:
  /// `threads`: how many cores the launchers use, 0 = all that the process may run on.
  explicit Context(Device device = Device::kCpu, int threads = 0);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device device() const { return device_; }
  int threads() const { return threads_; }
  cpu::Library& library() { return *library_; }

  /// Scratch memory of the launch to come, 64-byte aligned, at least what its *_workspace() said.
  /// Whoever launches sets it; its content is undefined before and after.
  std::byte* workspace = nullptr;

 private:
  Device device_;
  int threads_;
  std::unique_ptr<cpu::Library> library_;
};

}  // namespace wrn
