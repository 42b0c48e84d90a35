// From the data set to the network's input: gather, augment, normalise, in one pass.
//
//   x[row, y, column, c] = (image[source_row(y), source_column(column), c] - mean[c]) / std[c]
//
// images is [*,32,32,3], x [rows,32,32,3]; order, and the labels, say which image a row is.
//
// A block owns an image, and a thread of it one channel of one column, in every eighth line:
// neighbouring threads write neighbouring elements, and what depends on column and channel alone is
// worked out once. Every thread draws the augmentation itself, which costs less than waiting for
// one that does. The quotient is rounded as on the CPU: in fp32, the result is the same to the bit.
#include "kernels/augment.h"
#include "kernels/device.cuh"

namespace wrn::cuda {
namespace {

constexpr int kLine = kImageSide * 3;  // elements
constexpr int kLines = 8;              // at a time

template <typename Pixel, typename Real>
__global__ void __launch_bounds__(kLine* kLines)
    load_images_kernel(const Pixel* images, const std::uint8_t* image_labels,
                       const std::int32_t* order, Real* x, std::int32_t* labels,
                       Normalisation normalisation, bool augment, const StepState* state) {
  wait_for_previous_kernels();
  const std::int64_t row = blockIdx.x;
  const int column = static_cast<int>(threadIdx.x) / 3, c = static_cast<int>(threadIdx.x) % 3;
  const std::int32_t index = order[state->first + row];
  x += row * kImageBytes + threadIdx.x;
  if (threadIdx.x == 0 && threadIdx.y == 0) labels[row] = index < 0 ? -1 : image_labels[index];
  if (index < 0) {
    for (unsigned y = threadIdx.y; y < kImageSide; y += kLines) x[y * kLine] = Real{};
    return;
  }
  const Augmentation how =
      augment ? draw_augmentation(state->seed, state->epoch, index) : Augmentation{};
  const float mean = normalisation.mean[c], deviation = normalisation.std[c];
  images += std::int64_t{index} * kImageBytes + how.source_column(column) * 3 + c;
  for (int y = static_cast<int>(threadIdx.y); y < kImageSide; y += kLines) {
    const float pixel = static_cast<float>(images[how.source_row(y) * kLine]);
    x[y * kLine] = from_float<Real>((pixel - mean) / deviation);
  }
}

template <typename Pixel, typename Real>
void launch_load_images(const Pixel* images, const std::uint8_t* image_labels,
                        const std::int32_t* order, Real* x, std::int32_t* labels, int rows,
                        const Normalisation& normalisation, bool augment, const StepState* state,
                        Context& context) {
  WRN_CHECK(rows >= 0, "{} images", rows);
  if (rows == 0) return;
  launch(WRN_KERNEL(load_images_kernel<Pixel, Real>), static_cast<unsigned>(rows),
         dim3{kLine, kLines}, 0, context, images, image_labels, order, x, labels, normalisation,
         augment, state);
}

}  // namespace

template <typename Real>
void load_images(const std::uint8_t* images, const std::uint8_t* image_labels,
                 const std::int32_t* order, Real* x, std::int32_t* labels, int rows,
                 const Normalisation& normalisation, bool augment, const StepState* state,
                 Context& context) {
  launch_load_images(images, image_labels, order, x, labels, rows, normalisation, augment, state,
                     context);
}

template <typename Real>
void load_images(const float* images, const std::uint8_t* image_labels, const std::int32_t* order,
                 Real* x, std::int32_t* labels, int rows, const Normalisation& normalisation,
                 bool augment, const StepState* state, Context& context) {
  launch_load_images(images, image_labels, order, x, labels, rows, normalisation, augment, state,
                     context);
}

#define WRN_FOR(Pixel, Real)                                                                  \
  template void load_images(const Pixel*, const std::uint8_t*, const std::int32_t*, Real*,    \
                            std::int32_t*, int, const Normalisation&, bool, const StepState*, \
                            Context&);
WRN_FOR(std::uint8_t, float)
WRN_FOR(std::uint8_t, bf16)
WRN_FOR(float, float)
WRN_FOR(float, bf16)

}  // namespace wrn::cuda
