#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {
namespace {

ImageShape shape_of(const Tensor& x) {
  return {static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)), static_cast<int>(x.dim(2)),
          static_cast<int>(x.dim(3))};
}

Tensor inference(Tape& tape, const Tensor& x, const BatchNorm& bn, bool relu) {
  const ImageShape shape = shape_of(x);
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

Tensor training(Tape& tape, const Tensor& x, const BatchNorm& bn, bool relu) {
  const ImageShape shape = shape_of(x);
  const std::string layer = layer_of(bn.gamma);
  const Tensor y = tape.make(layer, x.shape(), x.dtype());
  const Tensor mean = tape.make(layer + " mean", {shape.c});
  const Tensor variance = tape.make(layer + " variance", {shape.c});
  const auto mask_bytes =
      relu ? WRN_ON(tape.context(), batch_norm_mask_bytes(shape, tape.context())) : 0;
  const Tensor mask =
      tape.make(layer + " mask", {static_cast<std::int64_t>(mask_bytes)}, DType::kU8);
  tape.step({.name = layer + " forward",
             .reads = {x, bn.gamma, bn.beta},
             .writes = {y, mean, variance, mask},
             .in_place = {{y, x}},
             .workspace = WRN_ON(tape.context(), batch_norm_forward_workspace(
                                                     shape, bn.epsilon, relu, tape.context())),
             .extra_bytes = static_cast<std::int64_t>(x.bytes()),  // for the statistics first
             .run = [=](Context& context) {
               WRN_ON_REAL(
                   x, context,
                   batch_norm_forward(x.data<Real>(), bn.gamma.data<float>(), bn.beta.data<float>(),
                                      y.data<Real>(), mean.data<float>(), variance.data<float>(),
                                      mask.data<std::uint8_t>(), shape, bn.epsilon, relu, context));
             }});
  const Tensor metrics = tape.state().metrics;
  tape.step_after_backward(
      {.name = layer + " running statistics",
       .reads = {mean, variance, bn.running_mean, bn.running_variance, metrics},
       .writes = {bn.running_mean, bn.running_variance},
       .run = [=](Context& context) {
         WRN_ON(context, update_running_statistics(mean.data<float>(), variance.data<float>(),
                                                   bn.running_mean.data<float>(),
                                                   bn.running_variance.data<float>(), shape,
                                                   bn.momentum, metrics.data<Metrics>(), context));
       }});

  tape.on_backward([=, &tape] {
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
  return y;
}

Tensor record(Tape& tape, const Tensor& x, const BatchNorm& bn, bool relu) {
  check_image("batch_norm", tape, x, 4);
  for (const Tensor& parameter : {bn.gamma, bn.beta, bn.running_mean, bn.running_variance}) {
    check_f32("batch_norm", parameter, 1);
    check_shape("batch_norm", parameter, {x.dim(3)});
  }
  return tape.training() ? training(tape, x, bn, relu) : inference(tape, x, bn, relu);
}

}  // namespace

Tensor batch_norm(Tape& tape, const Tensor& x, const BatchNorm& bn) {
  return record(tape, x, bn, false);
}

Tensor batch_norm_relu(Tape& tape, const Tensor& x, const BatchNorm& bn) {
  return record(tape, x, bn, true);
}

}  // namespace wrn
