// What a convolution may do to D = A B beyond storing it, while a tile of it is on its way out:
// with its elements, and with their columns' sums. D is [pixels, columns], an image, and so is
// every tensor here where nothing else is said. epilogue.cuh is the device's side.
//
// The sums are of a tile's rows, in `partial` (channel_sums.h): the version's *_tiles() says how
// many tiles there are, and whoever launched it merges them.
#pragma once

#include <cstdint>

namespace wrn::cuda {

/// D is stored as it is.
struct Plain {};

/// D + addend is stored, and the Moments of what is stored are summed.
template <typename T>
struct WithMoments {
  const T* addend;  // or null
  float* partial;
};

/// mask ? D scale : 0 is stored, d, and the GradientSums of d and x are summed.
template <typename T>
struct ThroughRelu {
  const std::uint8_t* mask;  // a bit an element, [pixels][ceil(columns / 8)] bytes
  float scale;
  const T* x;
  const float* mean;  // [columns]
  float* partial;
};

}  // namespace wrn::cuda
