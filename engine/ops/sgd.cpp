#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {

void sgd(Tape& tape, const Tensor& weights, const Tensor& gradients, const Tensor& momentum,
         bool nesterov) {
  check_f32("sgd", weights, 1);
  check_shape("sgd", gradients, weights.shape());
  check_shape("sgd", momentum, weights.shape());
  const Tensor state = tape.state().step, metrics = tape.state().metrics;
  tape.step({.name = "sgd",
             .reads = {weights, gradients, momentum, state, metrics},
             .writes = {weights, momentum},
             .run = [=](Context& context) {
               WRN_ON(context, sgd_step(weights.data<float>(), gradients.data<float>(),
                                        momentum.data<float>(), weights.size(), nesterov,
                                        state.data<StepState>(), metrics.data<Metrics>(), context));
             }});
}

}  // namespace wrn
