#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {

Tensor conv2d(Tape& tape, const Tensor& x, const Tensor& w, int stride) {
  check_image("conv2d", tape, x, 4);
  check_f32("conv2d", w, 4);
  WRN_CHECK(w.dim(3) == x.dim(3) && w.dim(1) == w.dim(2) && (w.dim(1) == 1 || w.dim(1) == 3),
            "conv2d: filters {} {} for images {}", w.name(), to_string(w.shape()),
            to_string(x.shape()));
  WRN_CHECK(stride == 1 || stride == 2, "conv2d: stride {}", stride);
  const auto extent = [](std::int64_t value) { return static_cast<int>(value); };
  const ConvShape shape{extent(x.dim(0)),
                        extent(x.dim(1)),
                        extent(x.dim(2)),
                        extent(x.dim(3)),
                        extent(w.dim(0)),
                        extent(w.dim(1)),
                        stride};
  const std::string layer = layer_of(w);
  const Tensor filters = x.dtype() == DType::kBF16 ? w.bf16_copy() : w;
  WRN_CHECK(filters, "conv2d: {} has no bf16 copy", w.name());
  const Tensor y = tape.make(layer, {shape.n, shape.p(), shape.q(), shape.k}, x.dtype());
  tape.step({.name = layer + " fprop",
             .reads = {x, filters},
             .writes = {y},
             .workspace = WRN_ON(tape.context(), conv_fprop_workspace(shape, tape.context())),
             .macs = shape.macs(),
             .conv = ConvWork{ConvProduct::kFprop, shape},
             .run = [=](Context& context) {
               WRN_ON_REAL(x, context,
                           conv_fprop(x.data<Real>(), filters.data<Real>(), y.data<Real>(), shape,
                                      context));
             }});

  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy) return;
    if (tape.needs_gradient(w)) {
      const Tensor dw = tape.make_gradient(w);
      tape.step({.name = layer + " wgrad",
                 .reads = {x, dy},
                 .writes = {dw},
                 .workspace = WRN_ON(tape.context(), conv_wgrad_workspace(shape, tape.context())),
                 .macs = shape.macs(),
                 .conv = ConvWork{ConvProduct::kWgrad, shape},
                 .run = [=](Context& context) {
                   WRN_ON_REAL(x, context,
                               conv_wgrad(x.data<Real>(), dy.data<Real>(), dw.data<float>(), shape,
                                          context));
                 }});
      tape.add_gradient(w, dw);
    }
    if (tape.needs_gradient(x)) {
      const Tensor dx = tape.make_gradient(x);
      tape.step({.name = layer + " dgrad",
                 .reads = {dy, filters},
                 .writes = {dx},
                 .workspace = WRN_ON(tape.context(), conv_dgrad_workspace(shape, tape.context())),
                 .macs = shape.macs(),
                 .conv = ConvWork{ConvProduct::kDgrad, shape},
                 .run = [=](Context& context) {
                   WRN_ON_REAL(x, context,
                               conv_dgrad(dy.data<Real>(), filters.data<Real>(), dx.data<Real>(),
                                          shape, context));
                 }});
      tape.add_gradient(x, dx);
    }
  });
  return y;
}

}  // namespace wrn
