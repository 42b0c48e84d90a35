#include "engine/ops.h"

namespace wrn {

void sgd(Tape& tape, const Parameters& parameters) {
  const Tensor weights = parameters.values(), gradients = parameters.gradients(),
               momenta = parameters.momenta(), copies = parameters.bf16_copies();
  const Tensor state = tape.state().step, metrics = tape.state().metrics;
  Step step{.name = "sgd",
            .reads = {weights, gradients, momenta, state, metrics},
            .writes = {weights, momenta},
            .run = [=](Context& context) {
              WRN_ON(context,
                     sgd_step(weights.data<float>(), gradients.data<float>(), momenta.data<float>(),
                              copies ? copies.data<bf16>() : nullptr, weights.size(),
                              state.data<StepState>(), metrics.data<Metrics>(), context));
            }};
  if (copies) step.writes.push_back(copies);
  tape.step(std::move(step));
}

}  // namespace wrn
