// The driver's encoding of tensor maps: its rules, and a format of our own. Only bf16, swizzled.
#include "simt/tensor_map.h"

#include <cuda.h>

#include <cstring>

namespace wrn::cuda::simt {
namespace {

CUresult encode(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank, void* base,
                const cuuint64_t* size, const cuuint64_t* stride, const cuuint32_t* box,
                const cuuint32_t* step, CUtensorMapInterleave interleave,
                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  TensorMap map{};
  map.magic = TensorMap::kMagic;
  map.rank = static_cast<int>(rank);
  map.base = static_cast<char*>(base);
  map.swizzle_bytes = swizzle == CU_TENSOR_MAP_SWIZZLE_128B  ? 128
                      : swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 64
                      : swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? 32
                                                             : 0;
  const auto aligned = [](const void* p, std::uintptr_t to) {
    return reinterpret_cast<std::uintptr_t>(p) % to == 0;
  };
  if (!out || !aligned(out, 64) || !base || !aligned(base, 16) || rank < 1 || rank > 5 ||
      type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || map.swizzle_bytes == 0 ||
      box[0] * 2 != map.swizzle_bytes) {  // a narrower box would do, but nobody has tried it
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (cuuint32_t i = 0; i < rank; ++i) {
    if (size[i] < 1 || size[i] > std::uint64_t{1} << 32 || box[i] < 1 || box[i] > 256 ||
        step[i] != 1) {  // up to 8 would do, but nobody has tried what is outside then
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (i > 0 && (stride[i - 1] % 16 != 0 || stride[i - 1] >= std::uint64_t{1} << 40 ||
                  stride[i - 1] < map.stride[i - 1] * size[i - 1])) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    map.stride[i] = i > 0 ? stride[i - 1] : 2;
    map.size_minus_1[i] = static_cast<std::uint32_t>(size[i] - 1);
    map.box[i] = static_cast<std::uint16_t>(box[i]);
  }
  std::memcpy(out, &map, sizeof map);
  return CUDA_SUCCESS;
}

}  // namespace

void* tensor_map_encoder() { return reinterpret_cast<void*>(encode); }

}  // namespace wrn::cuda::simt
