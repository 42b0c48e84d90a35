// The paper's augmentation of a CIFAR image, the same on every device: flip with probability 1/2,
// then pad 4 pixels on each side by reflection (the edge itself is not repeated) and crop 32x32.
#pragma once

#include <cstdint>

#include "kernels/philox.h"

namespace wrn {

constexpr int kImageSide = 32;
constexpr int kImagePad = 4;
constexpr int kPlane = kImageSide * kImageSide;  // pixels
constexpr int kImageBytes = kPlane * 3;

/// Where each pixel of the augmented image comes from. The default leaves the image as it is.
struct Augmentation {
  bool flip = false;
  int down = kImagePad, right = kImagePad;  // of the crop in the padded image, 0..8

  WRN_HOST_DEVICE static constexpr int reflect(int i) {
    return i < 0 ? -i : i >= kImageSide ? 2 * (kImageSide - 1) - i : i;
  }
  WRN_HOST_DEVICE constexpr int source_row(int y) const { return reflect(y + down - kImagePad); }
  WRN_HOST_DEVICE constexpr int source_column(int x) const {
    const int column = reflect(x + right - kImagePad);
    return flip ? kImageSide - 1 - column : column;
  }
};

WRN_HOST_DEVICE constexpr Augmentation draw_augmentation(std::uint64_t seed, std::uint32_t epoch,
                                                         std::int32_t index) {
  const PhiloxWords random =
      philox(seed, static_cast<std::uint32_t>(index), 0, epoch, RandomUse::kAugment);
  // The high half of a 64-bit product scales a word to 0..8 without a division.
  constexpr std::uint64_t kPlaces = 2 * kImagePad + 1;
  return {(random.word[0] >> 31) != 0, static_cast<int>((random.word[1] * kPlaces) >> 32),
          static_cast<int>((random.word[2] * kPlaces) >> 32)};
}

}  // namespace wrn
