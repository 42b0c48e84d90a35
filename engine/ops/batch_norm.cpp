#include "engine/ops/batch_norm.h"

#include "engine/ops/checks.h"

namespace wrn {

ImageShape image_shape(const Tensor& x) {
  return {static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)), static_cast<int>(x.dim(2)),
          static_cast<int>(x.dim(3))};
}

void check_norm(const char* op, const Tape& tape, const Tensor& x, const BatchNorm& bn) {
  check_image(op, tape, x, 4);
  for (const Tensor& parameter : {bn.gamma, bn.beta, bn.running_mean, bn.running_variance}) {
    check_f32(op, parameter, 1);
    check_shape(op, parameter, {x.dim(3)});
  }
}

void record_running_statistics(Tape& tape, const BatchNorm& bn, const Measured& x) {
  tape.update_running_statistics({x.mean, x.variance, bn.running_mean, bn.running_variance,
                                  image_shape(x.image).rows(), bn.momentum});
}

namespace {

Tensor make_mask(Tape& tape, const std::string& layer, const ImageShape& shape) {
  const auto bytes = WRN_ON(tape.context(), batch_norm_mask_bytes(shape, tape.context()));
  return tape.make(layer + " mask", {static_cast<std::int64_t>(bytes)}, DType::kU8);
}

}  // namespace

Activation record_activation(Tape& tape, const Measured& x, const BatchNorm& bn, float dropout,
                             int number) {
  WRN_CHECK(dropout >= 0 && dropout < 1, "dropout with p = {}", dropout);
  const ImageShape shape = image_shape(x.image);
  const std::string layer = layer_of(bn.gamma);
  const Tensor y = tape.make(layer, x.image.shape(), x.image.dtype());
  const Tensor mask = make_mask(tape, layer, shape);
  const Tensor state = tape.state().step;
  Step step{.name = layer + " activation",
            .reads = {x.image, bn.gamma, bn.beta, x.mean, x.variance},
            .writes = {y, mask},
            .in_place = {{y, x.image}}};
  if (dropout > 0) step.reads.push_back(state);
  step.run = [=](Context& context) {
    WRN_ON_CUDA_REAL(
        y, context,
        batch_norm_activation(x.image.data<Real>(), bn.gamma.data<float>(), bn.beta.data<float>(),
                              x.mean.data<float>(), x.variance.data<float>(), y.data<Real>(),
                              mask.data<std::uint8_t>(), shape, bn.epsilon,
                              {dropout, number, state.data<StepState>()}, context));
  };
  tape.step(std::move(step));
  return {y, mask};
}

namespace {

Tensor inference(Tape& tape, const Tensor& x, const BatchNorm& bn, bool relu) {
  const ImageShape shape = image_shape(x);
  const std::string layer = layer_of(bn.gamma);
  const Tensor y = tape.make(layer, x.shape(), x.dtype());
  tape.step({.name = layer + " inference",
             .reads = {x, bn.gamma, bn.beta, bn.running_mean, bn.running_variance},
             .writes = {y},
             .in_place = {{y, x}},
             .workspace = WRN_ON(tape.context(), batch_norm_inference_workspace(
                                                     shape, bn.epsilon, relu, tape.context())),
             .run = [=](Context& context) {
               WRN_ON_REAL(x, context,
                           batch_norm_inference(
                               x.data<Real>(), bn.gamma.data<float>(), bn.beta.data<float>(),
                               bn.running_mean.data<float>(), bn.running_variance.data<float>(),
                               y.data<Real>(), shape, bn.epsilon, relu, context));
             }});
  return y;
}

/// Of an image without statistics: measures them first.
Activation record_forward(Tape& tape, const Measured& x, const BatchNorm& bn, bool relu) {
  const ImageShape shape = image_shape(x.image);
  const std::string layer = layer_of(bn.gamma);
  const Tensor y = tape.make(layer, x.image.shape(), x.image.dtype());
  const Tensor mask =
      relu ? make_mask(tape, layer, shape) : tape.make(layer + " mask", {0}, DType::kU8);
  tape.step({.name = layer + " forward",
             .reads = {x.image, bn.gamma, bn.beta},
             .writes = {y, x.mean, x.variance, mask},
             .in_place = {{y, x.image}},
             .workspace = WRN_ON(tape.context(), batch_norm_forward_workspace(
                                                     shape, bn.epsilon, relu, tape.context())),
             .extra_bytes = static_cast<std::int64_t>(x.image.bytes()),  // for the statistics first
             .run = [=](Context& context) {
               WRN_ON_REAL(y, context,
                           batch_norm_forward(
                               x.image.data<Real>(), bn.gamma.data<float>(), bn.beta.data<float>(),
                               y.data<Real>(), x.mean.data<float>(), x.variance.data<float>(),
                               mask.data<std::uint8_t>(), shape, bn.epsilon, relu, context));
             }});
  return {y, mask};
}

Tensor training(Tape& tape, Measured measured, const BatchNorm& bn, bool relu) {
  const Tensor x = measured.image;
  const ImageShape shape = image_shape(x);
  const std::string layer = layer_of(bn.gamma);
  Activation activation;
  if (measured.mean) {
    activation = record_activation(tape, measured, bn);
  } else {
    measured.mean = tape.make(layer + " mean", {shape.c});
    measured.variance = tape.make(layer + " variance", {shape.c});
    activation = record_forward(tape, measured, bn, relu);
  }
  record_running_statistics(tape, bn, measured);

  tape.on_backward([=, &tape, y = activation.y, mask = activation.mask, mean = measured.mean,
                    variance = measured.variance] {
    const Tensor dy = tape.gradient(y);
    if (!dy) return;
    const Tensor dx = tape.make_gradient(x);
    const Tensor dgamma = tape.make_gradient(bn.gamma), dbeta = tape.make_gradient(bn.beta);
    tape.step({.name = layer + " backward",
               .reads = {x, dy, bn.gamma, mean, variance, mask},
               .writes = {dx, dgamma, dbeta},
               .in_place = {{dx, dy}},
               .workspace = WRN_ON(tape.context(), batch_norm_backward_workspace(
                                                       shape, bn.epsilon, relu, tape.context())),
               .extra_bytes = static_cast<std::int64_t>(x.bytes() + dy.bytes() + mask.bytes()),
               .run = [=](Context& context) {
                 WRN_ON_REAL(x, context,
                             batch_norm_backward(
                                 x.data<Real>(), dy.data<Real>(), bn.gamma.data<float>(),
                                 mean.data<float>(), variance.data<float>(),
                                 mask.data<std::uint8_t>(), dx.data<Real>(), dgamma.data<float>(),
                                 dbeta.data<float>(), shape, bn.epsilon, relu, context));
               }});
    tape.add_gradient(x, dx);
    tape.add_gradient(bn.gamma, dgamma);
    tape.add_gradient(bn.beta, dbeta);
  });
  return activation.y;
}

Tensor record(Tape& tape, const Measured& x, const BatchNorm& bn, bool relu) {
  check_norm("batch_norm", tape, x.image, bn);
  return tape.training() ? training(tape, x, bn, relu) : inference(tape, x.image, bn, relu);
}

}  // namespace

Tensor batch_norm(Tape& tape, const Tensor& x, const BatchNorm& bn) {
  return record(tape, x, bn, false);
}

Tensor batch_norm_relu(Tape& tape, const Measured& x, const BatchNorm& bn) {
  return record(tape, x, bn, true);
}

}  // namespace wrn
