#include "data/input.h"

#include "kernels/augment.h"

namespace wrn {

ResidentData::ResidentData(const Dataset& train, const Dataset& test, Device device)
    : train_size(train.size()) {
  const std::int64_t size = train.size() + test.size();
  images = Tensor::persistent("images", {size, kImageSide, kImageSide, 3}, DType::kU8, device);
  labels = Tensor::persistent("labels", {size}, DType::kU8, device);
  const auto joined = [](const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
    std::vector<std::uint8_t> both(a);
    both.insert(both.end(), b.begin(), b.end());
    return both;
  };
  images.write<std::uint8_t>(joined(train.images, test.images));
  labels.write<std::uint8_t>(joined(train.labels, test.labels));
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
  const std::int64_t not_touched =
      (data.labels.size() - rows) * (kImageBytes + 1) + (order.size() - rows) * 4;
  tape.step({.name = "load images",
             .reads = {data.images, data.labels, order, state},
             .writes = {batch.images, batch.labels},
             .extra_bytes = -not_touched,
             .run = [=](Context& context) {
               WRN_ON_REAL(
                   batch.images, context,
                   load_images(data.images.data<std::uint8_t>(), data.labels.data<std::uint8_t>(),
                               order.data<std::int32_t>(), batch.images.data<Real>(),
                               batch.labels.data<std::int32_t>(), rows, input.normalisation,
                               input.augment, state.data<StepState>(), context));
             }});
  return batch;
}

}  // namespace wrn
