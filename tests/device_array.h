// Arrays in device memory for the tests of launchers: exactly as long as what they hold, so that
// whatever watches memory (AddressSanitizer in the emulation, compute-sanitizer on a GPU) sees an
// access behind the end, and full of NaNs until written, or, for those that watch that too, with
// WRN_UNWRITTEN as they come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <type_traits>
#include <vector>

#include "kernels/runtime.h"

namespace wrn {

/// Of all bytes that any DeviceArray's read() has returned, in order (FNV-1a).
inline std::uint64_t& read_checksum() {
  static std::uint64_t checksum = 0xcbf29ce484222325;
  return checksum;
}

template <typename T>
class DeviceArray {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit DeviceArray(std::size_t size) : size_(size) {
    if (size == 0) return;
    void* memory = nullptr;
    WRN_CUDA_CALL(cudaMalloc(&memory, size * sizeof(T)), "{} bytes", size * sizeof(T));
    data_ = static_cast<T*>(memory);
    if (std::getenv("WRN_UNWRITTEN") == nullptr) poison();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { write(values); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  std::size_t size() const { return size_; }
  T* data() const { return data_; }
  operator T*() const { return data(); }

  /// Every byte 0xFF: as floats NaN, as integers -1.
  void poison() {
    const std::vector<std::uint8_t> ones(size_ * sizeof(T), 0xFF);
    if (!ones.empty()) cuda::copy_to_device(data_, ones.data(), ones.size());
  }
  void write(const std::vector<T>& values) {
    if (size_ > 0) cuda::copy_to_device(data(), values.data(), size_ * sizeof(T));
  }
  /// When everything launched before is done.
  std::vector<T> read() const {
    std::vector<T> values(size_);
    if (size_ > 0) cuda::copy_to_host(values.data(), data(), size_ * sizeof(T));
    for (const std::byte byte : std::as_bytes(std::span(values))) {
      read_checksum() = (read_checksum() ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3U;
    }
    return values;
  }

 private:
  std::size_t size_;
  T* data_ = nullptr;
};

/// An array of one element.
template <typename T>
DeviceArray<T> device_value(const T& value) {
  return DeviceArray<T>(std::vector<T>{value});
}

/// The workspace of the launch to come, poisoned, for as long as it lives.
class Workspace {
 public:
  Workspace(std::size_t bytes, Context& context) : memory_(bytes), context_(context) {
    context_.workspace = memory_.data();
  }
  ~Workspace() { context_.workspace = nullptr; }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

 private:
  DeviceArray<std::byte> memory_;
  Context& context_;
};

}  // namespace wrn
