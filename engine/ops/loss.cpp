#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {

Tensor softmax_cross_entropy(Tape& tape, const Tensor& logits, const Tensor& labels) {
  check_f32("softmax_cross_entropy", logits, 2);
  check_shape("softmax_cross_entropy", labels, {logits.dim(0)});
  WRN_CHECK(labels.dtype() == DType::kI32, "softmax_cross_entropy: the labels are {}",
            name_of(labels.dtype()));
  const int rows = static_cast<int>(logits.dim(0)), classes = static_cast<int>(logits.dim(1));
  const Tensor loss = tape.make("loss", {1});
  const Tensor metrics = tape.state().metrics;
  if (!tape.training()) {
    tape.step({.name = "loss",
               .reads = {logits, labels, metrics},
               .writes = {loss, metrics},
               .run = [=](Context& context) {
                 WRN_ON(context,
                        softmax_cross_entropy(logits.data<float>(), labels.data<std::int32_t>(),
                                              loss.data<float>(), nullptr, metrics.data<Metrics>(),
                                              rows, classes, context));
               }});
    return loss;
  }
  // A loss's own gradient is 1, so the logits' is known as soon as the loss is.
  const Tensor dlogits = tape.make("d logits", logits.shape());
  tape.step({.name = "loss",
             .reads = {logits, labels, metrics},
             .writes = {loss, dlogits, metrics},
             .in_place = {{dlogits, logits}},
             .run = [=](Context& context) {
               WRN_ON(context,
                      softmax_cross_entropy(logits.data<float>(), labels.data<std::int32_t>(),
                                            loss.data<float>(), dlogits.data<float>(),
                                            metrics.data<Metrics>(), rows, classes, context));
             }});
  tape.on_backward([=, &tape] {
    WRN_CHECK(!tape.gradient(loss),
              "softmax_cross_entropy: an op or a seed of one's own behind it");
    tape.add_gradient(logits, dlogits);
  });
  return loss;
}

}  // namespace wrn
