#include "engine/tensor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "kernels/cgroup.h"
#include "kernels/memory.h"

namespace wrn {

std::size_t size_of(DType dtype) { return dtype == DType::kU8 ? 1 : dtype == DType::kBF16 ? 2 : 4; }

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kI32:
      return "i32";
    case DType::kU8:
      return "u8";
  }
  return "?";
}

std::size_t available_memory(Device device) {
  if constexpr (kHasCuda) {
    if (device == Device::kCuda) {
      // Kernels, cuBLAS and graphs take memory too, when they are first used.
      const cuda::MemoryInfo memory = cuda::memory_info();
      const std::size_t reserve = std::min<std::size_t>(256 << 20, memory.total / 16);
      return memory.free > reserve ? memory.free - reserve : 0;
    }
  }
  std::size_t available = cgroup_memory();
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;) {
    std::size_t kilobytes = 0;
    if (word == "MemAvailable:" && file >> kilobytes) {
      available = std::min(available, kilobytes * 1024);
    }
  }
  return available;
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ",")); }

void Buffer::Free::operator()(std::byte* data) const {
  if constexpr (kHasCuda) {
    if (device == Device::kCuda) return cuda::release(data);
  }
  std::free(data);  // NOLINT
}

Buffer::Buffer(std::size_t bytes, const std::string& what, Device device)
    : bytes_(bytes), data_(nullptr, Free{device}) {
  check_available(device);
  if constexpr (kHasCuda) {
    if (device == Device::kCuda) {
      if (bytes > 0) data_.reset(cuda::allocate(bytes, what));
      return;
    }
  }
  constexpr std::size_t kAlignment = 64;
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  // Linux grants more than there is, and kills the process that then uses it.
  const std::size_t available = available_memory(device);
  if (bytes <= available) {
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));  // NOLINT
  }
  if (data_ == nullptr && bytes > 0) {
    throw Error(fmt::format("out of memory: {:.1f} MiB for {}, {:.1f} MiB are free; take a smaller "
                            "model or batch",
                            static_cast<double>(bytes) / 0x1p20, what,
                            static_cast<double>(available) / 0x1p20),
                Status::kOutOfMemory);
  }
  std::memset(data_.get(), 0, rounded);
}

Tensor Tensor::persistent(const std::string& name, const Shape& shape, DType dtype, Device device) {
  Tensor tensor;
  tensor.info_ = std::make_shared<Info>();
  tensor.info_->name = name;
  tensor.info_->shape = shape;
  tensor.info_->dtype = dtype;
  tensor.info_->device = device;
  tensor.info_->storage = std::make_shared<Buffer>(tensor.bytes(), name, device);
  tensor.info_->data = tensor.info_->storage->data();
  return tensor;
}

Tensor Tensor::slice(const std::string& name, const Shape& shape, const Tensor& slab,
                     std::int64_t offset) {
  Tensor tensor;
  tensor.info_ = std::make_shared<Info>(*slab.info_);
  tensor.info_->name = name;
  tensor.info_->shape = shape;
  WRN_CHECK(slab.is_persistent() && offset >= 0 && offset + tensor.size() <= slab.size(),
            "slice {} of {}", name, slab.name());
  tensor.info_->data += static_cast<std::size_t>(offset) * size_of(slab.dtype());
  return tensor;
}

void Tensor::check_memory() const {
  WRN_CHECK(info_->data != nullptr || bytes() == 0, "{} has no memory yet", name());
}

void Tensor::write_bytes(std::span<const std::byte> from) const {
  check_memory();
  WRN_CHECK(from.size() == bytes(), "{} bytes for {}, which has {}", from.size(), name(), bytes());
  if constexpr (kHasCuda) {
    if (device() == Device::kCuda)
      return cuda::copy_to_device(info_->data, from.data(), from.size());
  }
  std::copy(from.begin(), from.end(), info_->data);
}

void Tensor::read_bytes(std::span<std::byte> to) const {
  check_memory();
  WRN_CHECK(to.size() == bytes(), "{} bytes from {}, which has {}", to.size(), name(), bytes());
  if constexpr (kHasCuda) {
    if (device() == Device::kCuda) return cuda::copy_to_host(to.data(), info_->data, to.size());
  }
  std::copy_n(info_->data, to.size(), to.begin());
}

std::int64_t Tensor::size() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : info_->shape) product *= extent;
  return product;
}

void Tensor::set_parameter_gradient(const Tensor& gradient) const {
  WRN_CHECK(is_persistent() && gradient.is_persistent() && shape() == gradient.shape(),
            "the gradient of {}", name());
  info_->parameter_gradient = gradient.info_;
  info_->needs_gradient = true;
}

void Tensor::set_bf16_copy(const Tensor& copy) const {
  WRN_CHECK(info_->parameter_gradient != nullptr && copy.dtype() == DType::kBF16 &&
                copy.is_persistent() && shape() == copy.shape(),
            "the copy of {}", name());
  info_->bf16_copy = copy.info_;
  copy.info_->needs_gradient = true;  // a step that reads it depends on the parameter
}

Tensor Tensor::bf16_copy() const {
  Tensor tensor;
  tensor.info_ = info_->bf16_copy;
  return tensor;
}

}  // namespace wrn
