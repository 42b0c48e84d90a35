// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel Random
// Numbers: As Easy as 1, 2, 3" (SC 2011). Four random words are a pure function of a key and a
// counter: there is no state to save, and any thread of any device computes any number of the
// stream on its own. That is what makes a resumed run, a CPU run and a CUDA run draw alike.
//
// In this program the key is the seed, and the counter says what the number is for:
//   counter = { item, row, time, use }
//   shuffle     item = place in the list of training images      time = epoch
//   augment     item = data set index                            time = epoch
//   initialise  item = element / 2         row = parameter index
//   split       item = data set index
//   synthetic   item = draw number         row = image index     time = split
//   dropout     item = element / 4         row = batch index     time = step   use + layer
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define WRN_HOST_DEVICE __host__ __device__
#else
#define WRN_HOST_DEVICE
#endif

namespace wrn {

enum class RandomUse : std::uint32_t {
  kShuffle = 1,
  kAugment = 2,
  kInitialise = 3,
  kSplit = 4,
  kSynthetic = 5,
  kDropout = 0x10000,  // + the layer's number
};

struct PhiloxWords {
  std::uint32_t word[4];
};

/// a b. In philox() nvcc would multiply 64 bits by 64, and add zeros to the upper half.
WRN_HOST_DEVICE constexpr std::uint64_t wide_product(std::uint32_t a, std::uint32_t b) {
#if defined(__CUDA_ARCH__)
  std::uint64_t product = 0;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(b));
  return product;
#else
  return std::uint64_t{a} * b;
#endif
}

WRN_HOST_DEVICE constexpr PhiloxWords philox(std::uint64_t seed, std::uint32_t item,
                                             std::uint32_t row, std::uint32_t time,
                                             std::uint32_t use) {
  std::uint32_t k0 = static_cast<std::uint32_t>(seed);
  std::uint32_t k1 = static_cast<std::uint32_t>(seed >> 32);
  std::uint32_t c0 = item, c1 = row, c2 = time, c3 = use;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = wide_product(0xD2511F53u, c0);
    const std::uint64_t p1 = wide_product(0xCD9E8D57u, c2);
    const std::uint32_t next0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const std::uint32_t next2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    c0 = next0;
    c2 = next2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

WRN_HOST_DEVICE constexpr PhiloxWords philox(std::uint64_t seed, std::uint32_t item,
                                             std::uint32_t row, std::uint32_t time, RandomUse use) {
  return philox(seed, item, row, time, static_cast<std::uint32_t>(use));
}

/// Dropout's draws for the four elements of a row among which `element` is.
WRN_HOST_DEVICE constexpr PhiloxWords dropout_draw(std::uint64_t seed, std::uint32_t step,
                                                   int layer, std::uint32_t row,
                                                   std::uint64_t element) {
  return philox(
      seed, static_cast<std::uint32_t>(element / 4), row, step,
      static_cast<std::uint32_t>(RandomUse::kDropout) + static_cast<std::uint32_t>(layer));
}

/// The least word with which dropout keeps an element, for p in [0, 1). A word's upper 24 bits are
/// a number in [0, 1), and it keeps where that is p or more: the same on every device, as integers
/// are compared.
inline std::uint32_t least_kept(float p) {
  return static_cast<std::uint32_t>(std::ceil(p * 16777216.0F)) << 8;
}

}  // namespace wrn
