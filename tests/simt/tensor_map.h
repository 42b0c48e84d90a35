// What the emulation's cuTensorMapEncodeTiled puts into a CUtensorMap's 128 opaque bytes.
#pragma once

#include <cstdint>

namespace wrn::cuda::simt {

struct TensorMap {
  static constexpr std::uint32_t kMagic = 0x70616D54;
  std::uint32_t magic;
  std::int32_t rank;
  char* base;
  std::uint64_t stride[5];  // bytes; the innermost is packed
  std::uint32_t size_minus_1[5];
  std::uint16_t box[5];
  std::uint8_t swizzle_bytes;

  std::int64_t size(int i) const { return std::int64_t{size_minus_1[i]} + 1; }
};
static_assert(sizeof(TensorMap) <= 128);

/// cuTensorMapEncodeTiled, for cudaGetDriverEntryPointByVersion.
void* tensor_map_encoder();

}  // namespace wrn::cuda::simt
