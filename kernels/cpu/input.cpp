// From the data set's bytes to the network's input: gather, augment, normalise, in one pass.
#include <algorithm>

#include "kernels/augment.h"
#include "kernels/kernels.h"

namespace wrn::cpu {

void load_images(const std::uint8_t* images, const std::uint8_t* image_labels,
                 const std::int32_t* indices, float* x, std::int32_t* labels, int rows,
                 const Normalisation& normalisation, bool augment, const StepState* state,
                 Context&) {
#pragma omp parallel for
  for (int row = 0; row < rows; ++row) {
    const std::int32_t index = indices[row];
    float* out = x + std::int64_t{row} * kImageBytes;
    if (index < 0) {
      std::fill(out, out + kImageBytes, 0.0F);
      labels[row] = -1;
      continue;
    }
    labels[row] = image_labels[index];
    const std::uint8_t* image = images + std::int64_t{index} * kImageBytes;
    const Augmentation how =
        augment ? draw_augmentation(state->seed, state->epoch, index) : Augmentation{};
    for (int y = 0; y < kImageSide; ++y) {
      const std::uint8_t* line = image + how.source_row(y) * kImageSide * 3;
      for (int column = 0; column < kImageSide; ++column) {
        const std::uint8_t* pixel = line + how.source_column(column) * 3;
        for (int c = 0; c < 3; ++c) {
          *out++ = (static_cast<float>(pixel[c]) - normalisation.mean[c]) / normalisation.std[c];
        }
      }
    }
  }
}

}  // namespace wrn::cpu
