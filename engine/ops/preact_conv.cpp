// Convolutions with batch norm inside of them; kernels/fused.h says how.
#include <memory>

#include "engine/ops/batch_norm.h"
#include "engine/ops/checks.h"
#include "engine/ops/conv.h"

namespace wrn {
namespace {

/// What a launcher of fused.h needs. A plan made without CUDA leaves it out.
#define WRN_CUDA_BYTES(context, ...)                                                   \
  ([&]() -> std::size_t {                                                              \
    if constexpr (::wrn::kHasCuda) {                                                   \
      if ((context).device() == ::wrn::Device::kCuda) return ::wrn::cuda::__VA_ARGS__; \
    }                                                                                  \
    return 0;                                                                          \
  }())

void check_fusible(const char* op, const Tape& tape) {
  WRN_CHECK(tape.training(), "{} in inference", op);
  WRN_CHECK(tape.context().precision() != Precision::kFp32, "{} in fp32", op);
}

/// A projection that a step adds, or none. `image` is its x or, in dgrad, its dy.
struct Projected {
  std::shared_ptr<const Conv> conv;
  Tensor image;
};
void add_to(Step& step, const Projected& projected) {
  const auto& [conv, image] = projected;
  if (!conv) return;
  step.name += ", projection";
  step.reads.push_back(image);
  step.reads.push_back(conv->filters);
  step.macs += conv->shape.macs();
  step.conv->projection = conv->shape;
}
template <typename Real>
cuda::Projection<Real> launched(const Projected& projected) {
  const auto& [conv, image] = projected;
  if (!conv) return {};
  return {image.data<Real>(), conv->filters.data<Real>(), conv->shape};
}

/// The convolution, the sum with the projection and with `residual` where there are such, and the
/// statistics of what comes out.
Measured record_measured_fprop(Tape& tape, const Conv& conv, const Projected& projected,
                               const Tensor& residual) {
  const Measured y{make_output(tape, conv), tape.make(conv.layer + " mean", {conv.shape.k}),
                   tape.make(conv.layer + " variance", {conv.shape.k})};
  Step step{.name = conv.layer + " fprop, statistics",
            .reads = {conv.x, conv.filters},
            .writes = {y.image, y.mean, y.variance},
            .workspace = WRN_CUDA_BYTES(
                tape.context(), conv_fprop_statistics_workspace(conv.shape, tape.context())),
            .macs = conv.shape.macs(),
            .conv = ConvWork{ConvProduct::kFprop, conv.shape, true}};
  add_to(step, projected);
  if (residual) {
    step.reads.push_back(residual);
    step.in_place = {{y.image, residual}};
  }
  step.run = [=](Context& context) {
    WRN_ON_CUDA_REAL(conv.x, context,
                     conv_fprop_statistics(
                         conv.x.data<Real>(), conv.filters.data<Real>(), launched<Real>(projected),
                         residual ? residual.data<Real>() : nullptr, y.image.data<Real>(),
                         y.mean.data<float>(), y.variance.data<float>(), conv.shape, context));
  };
  tape.step(std::move(step));
  return y;
}

/// The gradient of batch norm's output, from the gradients of the outputs of the convolution that
/// follows it and of the projection, if there is one. Adds those of gamma and beta, and returns all
/// three.
struct NormGradient {
  Tensor d, dgamma, dbeta;
};
NormGradient record_dgrad_activation(Tape& tape, const Conv& conv, const Tensor& dy,
                                     const Projected& projected, const Measured& x,
                                     const Tensor& mask, const PreactConv& p) {
  const BatchNorm& norm = p.norm;
  const NormGradient g{
      tape.make("d " + layer_of(norm.gamma) + " activation", x.image.shape(), x.image.dtype()),
      tape.make_gradient(norm.gamma), tape.make_gradient(norm.beta)};
  Step step{.name = conv.layer + " dgrad, activation",
            .reads = {dy, conv.filters, x.image, x.mean, x.variance, mask},
            .writes = {g.d, g.dgamma, g.dbeta},
            .workspace = WRN_CUDA_BYTES(
                tape.context(), conv_dgrad_activation_workspace(conv.shape, tape.context())),
            .macs = conv.shape.macs(),
            .conv = ConvWork{ConvProduct::kDgrad, conv.shape, true}};
  add_to(step, projected);
  step.run = [=, epsilon = norm.epsilon, dropout = p.dropout](Context& context) {
    WRN_ON_CUDA_REAL(
        dy, context,
        conv_dgrad_activation<Real>(
            dy.data<Real>(), conv.filters.data<Real>(), launched<Real>(projected),
            {x.image.data<Real>(), x.mean.data<float>(), x.variance.data<float>(), epsilon,
             mask.data<std::uint8_t>(), dropout},
            g.d.data<Real>(), g.dgamma.data<float>(), g.dbeta.data<float>(), conv.shape, context));
  };
  tape.step(std::move(step));
  tape.add_gradient(norm.gamma, g.dgamma);
  tape.add_gradient(norm.beta, g.dbeta);
  return g;
}

/// The gradient of x: batch norm's, and what has been gathered of it before.
void record_norm_dx(Tape& tape, const Measured& x, const BatchNorm& norm, const NormGradient& g) {
  const Tensor skip = tape.gradient(x.image), dx = tape.make_gradient(x.image);
  Step step{.name = layer_of(norm.gamma) + " dx",
            .reads = {x.image, g.d, norm.gamma, x.mean, x.variance, g.dgamma, g.dbeta},
            .writes = {dx},
            .in_place = {{dx, g.d}}};
  if (skip) {
    step.reads.push_back(skip);
    step.in_place.emplace_back(dx, skip);
  }
  step.run = [=, shape = image_shape(x.image)](Context& context) {
    WRN_ON_CUDA_REAL(
        dx, context,
        batch_norm_dx(x.image.data<Real>(), g.d.data<Real>(), norm.gamma.data<float>(),
                      x.mean.data<float>(), x.variance.data<float>(), g.dgamma.data<float>(),
                      g.dbeta.data<float>(), skip ? skip.data<Real>() : nullptr, dx.data<Real>(),
                      shape, norm.epsilon, context));
  };
  tape.step(std::move(step));
  tape.replace_gradient(x.image, dx);
}

}  // namespace

Measured conv2d_measured(Tape& tape, const Tensor& x, const Tensor& w, int stride) {
  check_fusible("conv2d_measured", tape);
  const Conv conv = check_conv("conv2d_measured", tape, x, w, stride);
  const Measured y = record_measured_fprop(tape, conv, {}, {});
  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y.image);
    if (!dy) return;
    record_wgrad(tape, conv, dy);
    if (tape.needs_gradient(x)) tape.add_gradient(x, record_dgrad(tape, conv, dy));
  });
  return y;
}

Measured preact_conv(Tape& tape, const Measured& x, Shortcut& shortcut, const PreactConv& p) {
  check_fusible("preact_conv", tape);
  check_norm("preact_conv", tape, x.image, p.norm);
  WRN_CHECK(x.mean && x.variance, "preact_conv: {} comes without statistics", x.image.name());
  const auto [a, mask] = record_activation(tape, x, p.norm, p.dropout, p.dropout_layer);
  record_running_statistics(tape, p.norm, x);
  std::shared_ptr<const Conv> projection;  // of a
  if (p.projection) {
    projection =
        std::make_shared<const Conv>(check_conv("preact_conv", tape, a, p.projection, p.stride));
    shortcut = {make_output(tape, *projection), projection};
  }
  const Conv conv = check_conv("preact_conv", tape, a, p.filters, p.stride);
  const Shortcut added = p.adds_shortcut ? shortcut : Shortcut{};
  const Tensor residual = added.projection ? Tensor() : added.image;
  const Projected projected{added.projection, added.projection ? added.projection->x : Tensor()};
  if (p.adds_shortcut) {
    const auto& s = conv.shape;
    check_image("preact_conv", tape, added.image);
    check_shape("preact_conv", added.image, {s.n, s.p(), s.q(), s.k});
  }
  const Measured y = record_measured_fprop(tape, conv, projected, residual);

  tape.on_backward([=, &tape, mask = mask, own = shortcut.image] {
    const Tensor dy = tape.gradient(y.image);
    if (!dy) return;
    if (added.projection || (residual && tape.needs_gradient(residual))) {
      tape.add_gradient(added.image, dy);
    }
    record_wgrad(tape, conv, dy);
    // All that used the projection came later, so its gradient is complete.
    Projected back;
    if (const Tensor d = projection ? tape.gradient(own) : Tensor(); d) {
      record_wgrad(tape, *projection, d);
      back = {projection, d};
    }
    const NormGradient g = record_dgrad_activation(tape, conv, dy, back, x, mask, p);
    if (tape.needs_gradient(x.image)) record_norm_dx(tape, x, p.norm, g);
  });
  return y;
}

}  // namespace wrn
