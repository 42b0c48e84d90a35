#include "data/input.h"

#include <algorithm>

#include "kernels/augment.h"

namespace wrn {

ResidentData::ResidentData(const Dataset& train, const Dataset& test, DType dtype, Device device)
    : train_size(train.size()) {
  const std::int64_t size = train.size() + test.size();
  images = Tensor::persistent("images", {size, kImageSide, kImageSide, 3}, dtype, device);
  labels = Tensor::persistent("labels", {size}, DType::kU8, device);
  std::vector<std::uint8_t> both(train.labels);
  both.insert(both.end(), test.labels.begin(), test.labels.end());
  labels.write<std::uint8_t>(both);
}

ResidentData::ResidentData(const Dataset& train, const Dataset& test, Device device)
    : ResidentData(train, test, DType::kU8, device) {
  std::int64_t offset = 0;
  for (const Dataset* part : {&train, &test}) {
    Tensor::slice("images", {part->size() * kImageBytes}, images, offset)
        .write<std::uint8_t>(part->images);
    offset += part->size() * kImageBytes;
  }
}

ResidentData::ResidentData(const Dataset& train, const Dataset& test, const Whitening& whitening,
                           Context& context)
    : ResidentData(train, test, DType::kF32, context.device()) {
  constexpr std::int64_t kChunk = 1024;  // images at a time, for the sake of memory
  std::vector<float> whitened;
  std::int64_t offset = 0;
  for (const Dataset* part : {&train, &test}) {
    for (std::int64_t first = 0; first < part->size(); first += kChunk) {
      const std::int64_t values = std::min(kChunk, part->size() - first) * kImageBytes;
      whitened.resize(static_cast<std::size_t>(values));
      whitening.apply(std::span(part->images)
                          .subspan(static_cast<std::size_t>(first * kImageBytes), whitened.size()),
                      whitened, context.threads());
      Tensor::slice("images", {values}, images, offset).write<float>(whitened);
      offset += values;
    }
  }
}

Batch load_images(Tape& tape, const ResidentData& data, const Input& input) {
  const Tensor order = input.order;
  WRN_CHECK(order && order.dtype() == DType::kI32 && order.shape().size() == 1 && input.rows > 0 &&
                input.rows <= order.dim(0),
            "load_images takes a list of i32 indices, as many as a batch has rows");
  const int rows = input.rows;
  const Batch batch{tape.make("images", {rows, kImageSide, kImageSide, 3}, tape.image_dtype()),
                    tape.make("labels", {rows}, DType::kI32)};
  const Tensor state = tape.state().step;
  // A batch of the data set, and not all of it.
  const auto image_bytes = static_cast<std::int64_t>(kImageBytes * size_of(data.images.dtype()));
  const std::int64_t not_touched =
      (data.labels.size() - rows) * (image_bytes + 1) + (order.size() - rows) * 4;
  tape.step({.name = "load images",
             .reads = {data.images, data.labels, order, state},
             .writes = {batch.images, batch.labels},
             .extra_bytes = -not_touched,
             .run = [=](Context& context) {
               const auto load = [&](const auto* images) {
                 WRN_ON_REAL(
                     batch.images, context,
                     load_images(images, data.labels.data<std::uint8_t>(),
                                 order.data<std::int32_t>(), batch.images.data<Real>(),
                                 batch.labels.data<std::int32_t>(), rows, input.normalisation,
                                 input.augment, state.data<StepState>(), context));
               };
               data.images.dtype() == DType::kF32 ? load(data.images.data<float>())
                                                  : load(data.images.data<std::uint8_t>());
             }});
  return batch;
}

}  // namespace wrn
