// From the data set to the network's input: gather, augment, normalise, in one pass.
//
//   x[row, y, column, c] = (image[source_row(y), source_column(column), c] - mean[c]) / std[c]
//
// images is [*,32,32,3], x [rows,32,32,3]; order, and the labels, say which image a row is.
//
// A block owns an image, and a thread of it one channel of one column, in every eighth line:
// neighbouring threads write neighbouring floats, and what depends on column and channel alone is
// worked out once. Every thread draws the augmentation itself, which costs less than waiting for
// one that does. The quotient is rounded as on the CPU: the result is the same to the bit.
#include "kernels/augment.h"
#include "kernels/device.cuh"

namespace wrn::cuda {
namespace {

constexpr int kLineFloats = kImageSide * 3;
constexpr int kLines = 8;  // at a time

template <typename Pixel>
__global__ void __launch_bounds__(kLineFloats* kLines)
    load_images_kernel(const Pixel* images, const std::uint8_t* image_labels,
                       const std::int32_t* order, float* x, std::int32_t* labels,
                       Normalisation normalisation, bool augment, const StepState* state) {
  const std::int64_t row = blockIdx.x;
  const int column = static_cast<int>(threadIdx.x) / 3, c = static_cast<int>(threadIdx.x) % 3;
  const std::int32_t index = order[state->first + row];
  x += row * kImageBytes + threadIdx.x;
  if (threadIdx.x == 0 && threadIdx.y == 0) labels[row] = index < 0 ? -1 : image_labels[index];
  if (index < 0) {
    for (unsigned y = threadIdx.y; y < kImageSide; y += kLines) x[y * kLineFloats] = 0;
    return;
  }
  const Augmentation how =
      augment ? draw_augmentation(state->seed, state->epoch, index) : Augmentation{};
  const float mean = normalisation.mean[c], deviation = normalisation.std[c];
  images += std::int64_t{index} * kImageBytes + how.source_column(column) * 3 + c;
  for (int y = static_cast<int>(threadIdx.y); y < kImageSide; y += kLines) {
    const float pixel = static_cast<float>(images[how.source_row(y) * kLineFloats]);
    x[y * kLineFloats] = (pixel - mean) / deviation;
  }
}

template <typename Pixel>
void launch_load_images(const Pixel* images, const std::uint8_t* image_labels,
                        const std::int32_t* order, float* x, std::int32_t* labels, int rows,
                        const Normalisation& normalisation, bool augment, const StepState* state,
                        Context& context) {
  WRN_CHECK(rows >= 0, "{} images", rows);
  if (rows == 0) return;
  launch(WRN_KERNEL(load_images_kernel<Pixel>), static_cast<unsigned>(rows),
         dim3{kLineFloats, kLines}, 0, context, images, image_labels, order, x, labels,
         normalisation, augment, state);
}

}  // namespace

void load_images(const std::uint8_t* images, const std::uint8_t* image_labels,
                 const std::int32_t* order, float* x, std::int32_t* labels, int rows,
                 const Normalisation& normalisation, bool augment, const StepState* state,
                 Context& context) {
  launch_load_images(images, image_labels, order, x, labels, rows, normalisation, augment, state,
                     context);
}

void load_images(const float* images, const std::uint8_t* image_labels, const std::int32_t* order,
                 float* x, std::int32_t* labels, int rows, const Normalisation& normalisation,
                 bool augment, const StepState* state, Context& context) {
  launch_load_images(images, image_labels, order, x, labels, rows, normalisation, augment, state,
                     context);
}

}  // namespace wrn::cuda
