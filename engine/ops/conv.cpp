#include "engine/ops/conv.h"

#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {

Conv check_conv(const char* op, const Tape& tape, const Tensor& x, const Tensor& w, int stride) {
  check_image(op, tape, x, 4);
  check_f32(op, w, 4);
  WRN_CHECK(w.dim(3) == x.dim(3) && w.dim(1) == w.dim(2) && (w.dim(1) == 1 || w.dim(1) == 3),
            "{}: filters {} {} for images {}", op, w.name(), to_string(w.shape()),
            to_string(x.shape()));
  WRN_CHECK(stride == 1 || stride == 2, "{}: stride {}", op, stride);
  const auto extent = [](std::int64_t value) { return static_cast<int>(value); };
  const Tensor filters = x.dtype() == DType::kBF16 ? w.bf16_copy() : w;
  WRN_CHECK(filters, "{}: {} has no bf16 copy", op, w.name());
  return {layer_of(w),
          x,
          w,
          filters,
          {extent(x.dim(0)), extent(x.dim(1)), extent(x.dim(2)), extent(x.dim(3)), extent(w.dim(0)),
           extent(w.dim(1)), stride}};
}

Tensor make_output(Tape& tape, const Conv& conv) {
  const ConvShape& s = conv.shape;
  return tape.make(conv.layer, {s.n, s.p(), s.q(), s.k}, conv.x.dtype());
}

void record_wgrad(Tape& tape, const Conv& conv, const Tensor& dy) {
  if (!tape.needs_gradient(conv.w)) return;
  const Tensor dw = tape.make_gradient(conv.w);
  tape.step({.name = conv.layer + " wgrad",
             .reads = {conv.x, dy},
             .writes = {dw},
             .workspace = WRN_ON(tape.context(), conv_wgrad_workspace(conv.shape, tape.context())),
             .macs = conv.shape.macs(),
             .conv = ConvWork{ConvProduct::kWgrad, conv.shape},
             .run = [conv, dy, dw](Context& context) {
               WRN_ON_REAL(dy, context,
                           conv_wgrad(conv.x.data<Real>(), dy.data<Real>(), dw.data<float>(),
                                      conv.shape, context));
             }});
  tape.add_gradient(conv.w, dw);
}

Tensor record_dgrad(Tape& tape, const Conv& conv, const Tensor& dy) {
  const Tensor dx = tape.make_gradient(conv.x);
  tape.step({.name = conv.layer + " dgrad",
             .reads = {dy, conv.filters},
             .writes = {dx},
             .workspace = WRN_ON(tape.context(), conv_dgrad_workspace(conv.shape, tape.context())),
             .macs = conv.shape.macs(),
             .conv = ConvWork{ConvProduct::kDgrad, conv.shape},
             .run = [conv, dy, dx](Context& context) {
               WRN_ON_REAL(dx, context,
                           conv_dgrad(dy.data<Real>(), conv.filters.data<Real>(), dx.data<Real>(),
                                      conv.shape, context));
             }});
  return dx;
}

Tensor conv2d(Tape& tape, const Tensor& x, const Tensor& w, int stride) {
  const Conv conv = check_conv("conv2d", tape, x, w, stride);
  const Tensor y = make_output(tape, conv);
  tape.step({.name = conv.layer + " fprop",
             .reads = {conv.x, conv.filters},
             .writes = {y},
             .workspace = WRN_ON(tape.context(), conv_fprop_workspace(conv.shape, tape.context())),
             .macs = conv.shape.macs(),
             .conv = ConvWork{ConvProduct::kFprop, conv.shape},
             .run = [conv, y](Context& context) {
               WRN_ON_REAL(y, context,
                           conv_fprop(conv.x.data<Real>(), conv.filters.data<Real>(),
                                      y.data<Real>(), conv.shape, context));
             }});
  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy) return;
    record_wgrad(tape, conv, dy);
    if (tape.needs_gradient(conv.x)) tape.add_gradient(conv.x, record_dgrad(tape, conv, dy));
  });
  return y;
}

}  // namespace wrn
