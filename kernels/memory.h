// Device memory, and the ways of data between the host and a device. Free of CUDA's headers.
#pragma once

#include <cstddef>
#include <string>

#include "kernels/context.h"

namespace wrn::cuda {

struct MemoryInfo {
  std::size_t free, total;  // bytes of the current device
};
MemoryInfo memory_info();

/// `bytes` of device memory, zeroed, 256-byte aligned. Throws Error(kOutOfMemory) that says what
/// was asked for what, and what is free.
std::byte* allocate(std::size_t bytes, const std::string& what);
void release(std::byte* data) noexcept;

/// Copies when everything launched before is done, and returns when the copy is: for state between
/// runs, not for the data of a step.
void copy_to_device(void* device, const void* host, std::size_t bytes);
void copy_to_host(void* host, const void* device, std::size_t bytes);

}  // namespace wrn::cuda
