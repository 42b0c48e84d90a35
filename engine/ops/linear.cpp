#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {

Tensor linear(Tape& tape, const Tensor& x, const Tensor& w, const Tensor& b) {
  WRN_CHECK(x && x.dtype() == DType::kF32 && !x.shape().empty() && x.dim(0) > 0,
            "linear takes an f32 tensor that has rows");
  check_f32("linear", w, 2);
  const std::int64_t rows = x.dim(0);
  check_shape("linear", w, {w.dim(0), x.size() / rows});
  check_shape("linear", b, {w.dim(0)});
  const LinearShape shape{static_cast<int>(rows), static_cast<int>(w.dim(1)),
                          static_cast<int>(w.dim(0))};
  const std::int64_t macs = rows * w.dim(0) * w.dim(1);
  const std::string layer = layer_of(w);
  const Tensor y = tape.make(layer, {shape.rows, shape.out});
  tape.step({.name = layer + " forward",
             .reads = {x, w, b},
             .writes = {y},
             .workspace = WRN_ON(tape.context(), linear_forward_workspace(shape, tape.context())),
             .macs = macs,
             .run = [=](Context& context) {
               WRN_ON(context, linear_forward(x.data<float>(), w.data<float>(), b.data<float>(),
                                              y.data<float>(), shape, context));
             }});

  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy) return;
    const Tensor dw = tape.make_gradient(w), db = tape.make_gradient(b);
    tape.step({.name = layer + " backward weights",
               .reads = {x, dy},
               .writes = {dw, db},
               .workspace =
                   WRN_ON(tape.context(), linear_backward_weights_workspace(shape, tape.context())),
               .macs = macs,
               .run = [=](Context& context) {
                 WRN_ON(context,
                        linear_backward_weights(x.data<float>(), dy.data<float>(), dw.data<float>(),
                                                db.data<float>(), shape, context));
               }});
    tape.add_gradient(w, dw);
    tape.add_gradient(b, db);
    if (!tape.needs_gradient(x)) return;
    const Tensor dx = tape.make_gradient(x);
    tape.step(
        {.name = layer + " backward data",
         .reads = {dy, w},
         .writes = {dx},
         .workspace = WRN_ON(tape.context(), linear_backward_data_workspace(shape, tape.context())),
         .macs = macs,
         .run = [=](Context& context) {
           WRN_ON(context, linear_backward_data(dy.data<float>(), w.data<float>(), dx.data<float>(),
                                                shape, context));
         }});
    tape.add_gradient(x, dx);
  });
  return y;
}

}  // namespace wrn
