#include "data/input.h"

#include <algorithm>

#include "kernels/augment.h"

namespace wrn {

ResidentData::ResidentData(const Dataset& train, const Dataset& test, Device device)
    : train_size(train.size()) {
  const std::int64_t size = train.size() + test.size();
  images = Tensor::persistent("images", {size, kImageSide, kImageSide, 3}, DType::kU8, device);
  labels = Tensor::persistent("labels", {size}, DType::kU8, device);
  std::uint8_t* image = images.data<std::uint8_t>();
  std::uint8_t* label = labels.data<std::uint8_t>();
  for (const Dataset* part : {&train, &test}) {
    image = std::copy(part->images.begin(), part->images.end(), image);
    label = std::copy(part->labels.begin(), part->labels.end(), label);
  }
}

Batch load_images(Tape& tape, const ResidentData& data, const Input& input) {
  WRN_CHECK(
      input.indices && input.indices.dtype() == DType::kI32 && input.indices.shape().size() == 1,
      "load_images takes a list of i32 indices");
  const int rows = static_cast<int>(input.indices.dim(0));
  const Batch batch{tape.make("images", {rows, kImageSide, kImageSide, 3}),
                    tape.make("labels", {rows}, DType::kI32)};
  const Tensor state = tape.state().step;
  tape.step({.name = "load images",
             .reads = {data.images, data.labels, input.indices, state},
             .writes = {batch.images, batch.labels},
             .run = [=](Context& context) {
               cpu::load_images(data.images.data<std::uint8_t>(), data.labels.data<std::uint8_t>(),
                                input.indices.data<std::int32_t>(), batch.images.data<float>(),
                                batch.labels.data<std::int32_t>(), rows, input.normalisation,
                                input.augment, state.data<StepState>(), context);
             }});
  return batch;
}

}  // namespace wrn
