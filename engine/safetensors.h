// The safetensors format: named tensors and string metadata in one file, with nothing in it that
// could be executed. Eight bytes hold N, the length of the header, little endian; N bytes of JSON
// say of each tensor its dtype, its shape and which bytes of the rest of the file are its own:
//
//   {"__metadata__": {"model": "wrn-10-1"}, "fc.bias": {"dtype": "F32", "shape": [10],
//    "data_offsets": [0, 40]}}
//
// Format: https://huggingface.co/docs/safetensors (the tests read a file that PyTorch's package
// wrote).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace wrn {

/// The format's name of an element type. BF16 values are handled as their bits.
template <typename T>
consteval std::string_view safetensors_dtype() {
  if constexpr (std::is_same_v<T, float>) return "F32";
  if constexpr (std::is_same_v<T, double>) return "F64";
  if constexpr (std::is_same_v<T, std::int64_t>) return "I64";
  if constexpr (std::is_same_v<T, std::int32_t>) return "I32";
  if constexpr (std::is_same_v<T, std::uint8_t>) return "U8";
  if constexpr (std::is_same_v<T, std::uint16_t>) return "BF16";
}

/// One tensor: row-major, a scalar has the shape [].
struct SafetensorsEntry {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;
  std::string origin = "a tensor";  // the file and tensor that it was read from, for messages

  /// Copies `values`, which must be as many as `shape` says.
  template <typename T>
  static SafetensorsEntry make(std::vector<std::int64_t> shape, std::span<const T> values) {
    const auto bytes = std::as_bytes(values);
    SafetensorsEntry entry{
        std::string(safetensors_dtype<T>()), std::move(shape), {bytes.begin(), bytes.end()}};
    entry.check(entry.dtype);
    return entry;
  }

  /// The values; valid as long as the entry. Throws an Error if their dtype is another.
  template <typename T>
  std::span<const T> as() const {
    check(safetensors_dtype<T>());
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }

  /// Throws an Error if the dtype is another, or the bytes are not as many as the shape says.
  void check(std::string_view expected_dtype) const;
};

struct Safetensors {
  std::map<std::string, std::string> metadata;
  std::vector<std::pair<std::string, SafetensorsEntry>> tensors;  // in the order of their data
  std::filesystem::path file;                                     // it was read from, for messages

  /// nullptr if there is no such tensor.
  const SafetensorsEntry* find(std::string_view name) const;
  /// Throws an Error that names the file and the tensor if there is no such tensor.
  const SafetensorsEntry& at(std::string_view name) const;
};

/// Throws an Error that names the file, the tensor concerned and the reason if the file cannot be
/// read or breaks any rule of the format: also if the data of two tensors overlap, if a byte
/// belongs to no tensor, or if a name occurs twice. Memory stays in proportion to the size of the
/// file.
Safetensors read_safetensors(const std::filesystem::path& path);

/// Writes the tensors in their order, as write_file_atomically() does and with its errors. Throws
/// an Error too if two have the same name, or one has bytes that do not fit its dtype and shape.
void write_safetensors(const std::filesystem::path& path, const Safetensors& content);

}  // namespace wrn
