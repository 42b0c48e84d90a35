// From the data set to the network's input: gather, augment, normalise, in one pass; and the order
// in which an epoch takes the images. Transfers, which on the CPU are copies.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "kernels/augment.h"
#include "kernels/error.h"
#include "kernels/kernels.h"

namespace wrn::cpu {
namespace {

template <typename Pixel>
void load(const Pixel* images, const std::uint8_t* image_labels, const std::int32_t* order,
          float* x, std::int32_t* labels, int rows, const Normalisation& normalisation,
          bool augment, const StepState* state) {
  WRN_CHECK(rows >= 0, "{} images", rows);
#pragma omp parallel for
  for (int row = 0; row < rows; ++row) {
    const std::int32_t index = order[state->first + row];
    float* out = x + std::int64_t{row} * kImageBytes;
    if (index < 0) {
      std::fill(out, out + kImageBytes, 0.0F);
      labels[row] = -1;
      continue;
    }
    labels[row] = image_labels[index];
    const Pixel* image = images + std::int64_t{index} * kImageBytes;
    const Augmentation how =
        augment ? draw_augmentation(state->seed, state->epoch, index) : Augmentation{};
    for (int y = 0; y < kImageSide; ++y) {
      const Pixel* line = image + how.source_row(y) * kImageSide * 3;
      for (int column = 0; column < kImageSide; ++column) {
        const Pixel* pixel = line + how.source_column(column) * 3;
        for (int c = 0; c < 3; ++c) {
          *out++ = (static_cast<float>(pixel[c]) - normalisation.mean[c]) / normalisation.std[c];
        }
      }
    }
  }
}

/// What shuffle sorts. The positions make all entries different, so any sort of them is stable.
struct Entry {
  std::uint64_t key;
  std::int32_t position;
};

}  // namespace

void upload(void* device, const void* host, std::size_t bytes, Context&) {
  WRN_CHECK(bytes <= kUploadBytes, "an upload of {} bytes", bytes);
  std::memcpy(device, host, bytes);
}

void synchronise(Context&) {}

void load_images(const std::uint8_t* images, const std::uint8_t* image_labels,
                 const std::int32_t* order, float* x, std::int32_t* labels, int rows,
                 const Normalisation& normalisation, bool augment, const StepState* state,
                 Context&) {
  load(images, image_labels, order, x, labels, rows, normalisation, augment, state);
}

void load_images(const float* images, const std::uint8_t* image_labels, const std::int32_t* order,
                 float* x, std::int32_t* labels, int rows, const Normalisation& normalisation,
                 bool augment, const StepState* state, Context&) {
  load(images, image_labels, order, x, labels, rows, normalisation, augment, state);
}

void shuffle(const std::int32_t* items, std::int32_t* order, int n, std::uint64_t seed,
             std::uint32_t epoch, Context& context) {
  WRN_CHECK(n >= 0, "{} items", n);
  auto* entries = reinterpret_cast<Entry*>(context.workspace);
  for (int i = 0; i < n; ++i) {
    const PhiloxWords random =
        philox(seed, static_cast<std::uint32_t>(i), 0, epoch, RandomUse::kShuffle);
    entries[i] = {std::uint64_t{random.word[0]} << 32 | random.word[1], i};
  }
  std::sort(entries, entries + n, [](const Entry& a, const Entry& b) {
    return std::tie(a.key, a.position) < std::tie(b.key, b.position);
  });
  for (int i = 0; i < n; ++i) order[i] = items[entries[i].position];
}

std::size_t shuffle_workspace(int n, Context&) {
  return sizeof(Entry) * static_cast<std::size_t>(n);
}

}  // namespace wrn::cpu
