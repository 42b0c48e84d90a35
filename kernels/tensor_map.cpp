#include "kernels/tensor_map.h"

#include <cudaTypedefs.h>

#include "kernels/runtime.h"

namespace wrn::cuda {
namespace {

/// From the driver that is there, so that nothing needs libcuda to start.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    WRN_CUDA_CALL(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                   cudaEnableDefault, &result));
#else
    WRN_CUDA_CALL(
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &result));
#endif
    WRN_CHECK(result == cudaDriverEntryPointSuccess, "the GPU driver has no tensor maps");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  return found;
}

CUtensorMapSwizzle swizzle_of(int box) {
  WRN_CHECK(box == 16 || box == 32 || box == 64, "a box of {} channels", box);
  return box == 64   ? CU_TENSOR_MAP_SWIZZLE_128B
         : box == 32 ? CU_TENSOR_MAP_SWIZZLE_64B
                     : CU_TENSOR_MAP_SWIZZLE_32B;
}

}  // namespace

void make_tensor_map(CUtensorMap& map, const bf16* tensor,
                     const std::vector<MapDimension>& dimensions) {
  constexpr std::size_t kMost = 5;
  WRN_CHECK(!dimensions.empty() && dimensions.size() <= kMost, "{} dimensions", dimensions.size());
  cuuint64_t size[kMost], bytes[kMost];
  cuuint32_t box[kMost], step[kMost];
  for (std::size_t i = 0; i < dimensions.size(); ++i) {
    const MapDimension& d = dimensions[i];
    size[i] = static_cast<cuuint64_t>(d.size);
    if (i > 0) bytes[i - 1] = static_cast<cuuint64_t>(d.bytes);
    box[i] = static_cast<cuuint32_t>(d.box);
    step[i] = 1;
  }
  const CUresult code =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(dimensions.size()),
                const_cast<bf16*>(tensor), size, bytes, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle_of(dimensions[0].box), CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code == CUDA_SUCCESS) return;
  std::string text;
  for (const MapDimension& d : dimensions) {
    text += fmt::format(" {} (of {} bytes, box {})", d.size, d.bytes, d.box);
  }
  fail("cuTensorMapEncodeTiled: error {} for {} with the dimensions{}", static_cast<int>(code),
       static_cast<const void*>(tensor), text);
}

}  // namespace wrn::cuda
