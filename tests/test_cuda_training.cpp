// Whole training steps on CUDA (augmentation, forward, loss, backward, SGD; the first step launch
// by launch, the others as a replayed graph) against the same steps on the CPU.
#include <cmath>
#include <numeric>
#include <random>

#include "catch.h"
#include "data/input.h"
#include "devices.h"
#include "engine/program.h"
#include "models/wide_resnet.h"
#if defined(WRN_EMULATED)
#include "simt/simt.h"
#endif

using namespace wrn;

namespace {

Dataset random_images(std::int64_t n) {
  Dataset dataset;
  dataset.class_names.resize(10);
  std::mt19937 generator(3);
  dataset.images.resize(static_cast<std::size_t>(n) * kImageBytes);
  for (std::uint8_t& byte : dataset.images) byte = static_cast<std::uint8_t>(generator());
  for (std::int64_t i = 0; i < n; ++i) dataset.labels.push_back(static_cast<std::uint8_t>(i % 10));
  return dataset;
}

struct State {
  std::vector<float> weights, momentum, gradients, running;
  Metrics metrics;
};

/// Three steps of WRN-10-1 with dropout, on batches of two augmented images.
State train(Device device) {
  constexpr int kSteps = 3, kBatch = 2;
  WideResNetSpec spec = parse_model("wrn-10-1");
  spec.dropout = 0.3F;
  WideResNet model(spec, device);
  model.initialise(5);
  const ResidentData data(random_images(kSteps * kBatch), {}, device);
  const Tensor order =
      Tensor::persistent("order", {std::int64_t{kSteps} * kBatch}, DType::kI32, device);
  order.write<std::int32_t>(std::vector<std::int32_t>{4, 0, 5, 2, 1, 3});

  Context context(device, 1);
  const RunState state(device);
  Tape tape(Mode::kTraining, state, context);
  const Normalisation normalisation{{125, 123, 114}, {63, 62, 67}};
  const Batch batch = load_images(tape, data, {order, kBatch, normalisation, true});
  tape.backward(softmax_cross_entropy(tape, model.forward(tape, batch.images), batch.labels));
  const Parameters& p = model.parameters();
  sgd(tape, p, true);
  Program program = tape.finish();
  const Buffer arena(program.arena_bytes(), "arena", device);
  program.bind(arena.data());
  program.use_graph();

  StepState step{};
  step.seed = 7;
  step.learning_rate = 0.1F;
  step.momentum = 0.9F;
  step.gradient_scale = 1;
  step.weight_decay = 5e-4F;
  for (int i = 0; i < kSteps; ++i) {
    step.step = static_cast<std::uint32_t>(i);
    step.first = std::int64_t{i} * kBatch;
    // Nothing waits: the states of all the steps are on their way at once.
    WRN_ON(context, upload(state.step.data<StepState>(), &step, sizeof step, context));
    program.run(context);
  }
  State result{p.values().read<float>(),
               p.momenta().read<float>(),
               p.gradients().read<float>(),
               {},
               state.metrics.read<Metrics>().front()};
  for (const Tensor& buffer : p.buffers()) {
    const std::vector<float> values = buffer.read<float>();
    result.running.insert(result.running.end(), values.begin(), values.end());
  }
  return result;
}

/// ||a - b|| / ||b||, infinite where anything is not finite.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(double{a[i]} - b[i], 2);
    norm += std::pow(double{b[i]}, 2);
  }
  const double relative = std::sqrt(error / norm);
  return std::isfinite(relative) ? relative : INFINITY;
}

}  // namespace

TEST_CASE("three steps with augmentation and dropout come to the CPU's weights") {
  const State cpu = train(Device::kCpu), cuda = train(Device::kCuda);
  CHECK(difference(cuda.weights, cpu.weights) <= 1e-4);
  CHECK(difference(cuda.momentum, cpu.momentum) <= 1e-4);
  CHECK(difference(cuda.gradients, cpu.gradients) <= 1e-4);
  CHECK(difference(cuda.running, cpu.running) <= 1e-4);
  CHECK(cuda.metrics.loss_sum == Approx(cpu.metrics.loss_sum).epsilon(1e-4));
  CHECK(cuda.metrics.images == 6);
  CHECK(cuda.metrics.wrong == cpu.metrics.wrong);
  CHECK(cuda.metrics.wrong_top5 == cpu.metrics.wrong_top5);
}

TEST_CASE("one seed trains to the same bits twice, in whatever order threads and blocks run") {
  const State one = train(Device::kCuda);
#if defined(WRN_EMULATED)
  cuda::simt::set_seed(4);  // another order, poison and progress of the streams
#endif
  const State two = train(Device::kCuda);
  CHECK(one.weights == two.weights);
  CHECK(one.momentum == two.momentum);
  CHECK(one.gradients == two.gradients);
  CHECK(one.running == two.running);
  CHECK(one.metrics.loss_sum == two.metrics.loss_sum);
}
