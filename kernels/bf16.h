// bfloat16: the upper half of an fp32 number, so that it has its range and 8 bits of precision.
// CUDA's own type needs CUDA's headers; this one lets a header name bf16 tensors in any build. It
// is for storing: sums are kept in fp32.
#pragma once

#include <cstdint>

#include "kernels/philox.h"  // WRN_HOST_DEVICE

namespace wrn {

struct bf16 {
  std::uint16_t bits;
};

WRN_HOST_DEVICE constexpr float to_float(float x) { return x; }
WRN_HOST_DEVICE constexpr float to_float(bf16 x) {
  return __builtin_bit_cast(float, std::uint32_t{x.bits} << 16);
}

struct bf16_pair {
  bf16 first, second;
};
/// The nearest bf16s, of two equally near the even one; a NaN stays a NaN. On a GPU two are
/// converted by an ordinary instruction; one alone goes through a unit with an eighth of the rate.
WRN_HOST_DEVICE inline bf16_pair to_bf16_pair(float first, float second) {
#if defined(__CUDA_ARCH__)
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return __builtin_bit_cast(bf16_pair, bits);
#else
  const auto nearest = [](float x) -> bf16 {
    const auto bits = __builtin_bit_cast(std::uint32_t, x);
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
      return {static_cast<std::uint16_t>(bits >> 16 | 0x40U)};
    }
    return {static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
  };
  return {nearest(first), nearest(second)};
#endif
}
WRN_HOST_DEVICE inline bf16 to_bf16(float x) { return to_bf16_pair(x, 0).first; }

}  // namespace wrn
