// What a convolution may do with D = A B before it stores it, a tile at a time: change its
// elements, and sum its columns. D is an image, [pixels, columns], and so is every tensor here
// unless said otherwise. epilogue.cuh is the device's side.
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
