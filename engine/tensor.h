// Tensors: handles to a name, a shape and, sooner or later, an address.
//
// There are two kinds. A *persistent* tensor (a parameter, a data set, a counter) has memory of its
// own from the start, which lives as long as a handle to it. A *planned* tensor is a value on a
// tape: it is written once, and the planner gives it an address in the arena for as long as it is
// needed. Copying a Tensor copies the handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "kernels/error.h"

namespace wrn {

enum class DType { kF32, kBF16, kI32, kU8 };

std::size_t size_of(DType);
const char* name_of(DType);

using Shape = std::vector<std::int64_t>;

/// "[128,32,32,16]"
std::string to_string(const Shape&);

/// Free bytes of the GPU's memory, less a reserve for code; or of the host's, what Linux estimates
/// can be had without swapping and what control groups still allow (where neither is known, the
/// largest number there is).
std::size_t available_memory(Device device);

/// Owned memory of a device, at least 64-byte aligned and zeroed. Throws Error(kOutOfMemory) saying
/// what was asked for what.
class Buffer {
 public:
  Buffer(std::size_t bytes, const std::string& what, Device device = Device::kCpu);
  std::byte* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free {
    Device device;
    void operator()(std::byte*) const;
  };
  std::size_t bytes_;
  std::unique_ptr<std::byte, Free> data_;
};

class Tensor {
 public:
  Tensor() = default;  // no tensor: `if (tensor)` is false

  /// A persistent tensor, zeroed.
  static Tensor persistent(const std::string& name, const Shape& shape, DType dtype = DType::kF32,
                           Device device = Device::kCpu);
  /// A persistent tensor that is part of `slab` from its element `offset` on.
  static Tensor slice(const std::string& name, const Shape& shape, const Tensor& slab,
                      std::int64_t offset);
  /// A persistent struct T as a tensor: what kernels read or update besides arrays.
  template <typename T>
  static Tensor of_struct(const std::string& name, Device device = Device::kCpu) {
    return persistent(name, {static_cast<std::int64_t>(sizeof(T))}, DType::kU8, device);
  }

  explicit operator bool() const { return info_ != nullptr; }
  bool operator==(const Tensor& other) const { return info_ == other.info_; }

  const std::string& name() const { return info_->name; }
  const Shape& shape() const { return info_->shape; }
  std::int64_t dim(std::size_t i) const { return info_->shape.at(i); }
  DType dtype() const { return info_->dtype; }
  Device device() const { return info_->device; }
  std::int64_t size() const;
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_of(dtype()); }
  bool is_persistent() const { return info_->tape == nullptr; }

  /// The address, for launchers. A planned tensor has one once its Program is bound to an arena,
  /// and its content only between its first and its last step: Program::read() reads it safely.
  template <typename T>
  T* data() const {
    return reinterpret_cast<T*>(info_->data);
  }

  /// To and from the device's memory, for state between runs: both wait for all that was launched.
  /// `values` must be all of the tensor's bytes.
  template <typename T>
  void write(std::span<const T> values) const {
    write_bytes(std::as_bytes(values));
  }
  template <typename T>
  std::vector<T> read() const {
    std::vector<T> values(bytes() / sizeof(T));
    read_bytes(std::as_writable_bytes(std::span<T>(values)));
    return values;
  }

 private:
  friend class Tape;
  friend class Program;

  struct Info {
    std::string name;
    Shape shape;
    DType dtype = DType::kF32;
    Device device = Device::kCpu;
    std::byte* data = nullptr;
    std::shared_ptr<const Buffer> storage;  // persistent tensors
    std::shared_ptr<const void> tape;       // planned tensors: whose they are
    bool needs_gradient = false;
    bool written = false;                      // planned: a recorded step writes it
    bool kept = false;                         // planned: readable after the run
    std::shared_ptr<Info> parameter_gradient;  // a parameter's place in the gradient slab
    std::shared_ptr<Info> bf16_copy;           // a filter's place in the slab of copies
  };
  void check_memory() const;
  void write_bytes(std::span<const std::byte> from) const;
  void read_bytes(std::span<std::byte> to) const;

  std::shared_ptr<Info> info_;

 public:
  /// Makes a persistent tensor a parameter, whose gradient is to be written to `gradient`.
  void set_parameter_gradient(const Tensor& gradient) const;
  /// Gives a filter the bf16 copy that convolutions of bf16 images read.
  void set_bf16_copy(const Tensor& copy) const;
  /// No tensor where there is none.
  Tensor bf16_copy() const;
};

}  // namespace wrn
