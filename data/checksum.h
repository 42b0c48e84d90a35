// FNV-1a (Fowler, Noll and Vo), 64 bits: tells one content from another, against mistakes and not
// against malice.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace wrn {

class Checksum {
 public:
  template <typename T>
  void add(std::span<const T> values) {
    for (const std::byte byte : std::as_bytes(values)) {
      hash_ = (hash_ ^ static_cast<std::uint8_t>(byte)) * 0x100000001b3U;
    }
  }
  std::uint64_t value() const { return hash_; }
  /// 16 hexadecimal digits.
  std::string text() const { return fmt::format("{:016x}", hash_); }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325U;
};

}  // namespace wrn
