#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {

Tensor relu(Tape& tape, const Tensor& x) {
  check_image("relu", tape, x);
  const std::string name = x.name() + " relu";
  const Tensor y = tape.make(name, x.shape(), x.dtype());
  tape.step({.name = name + " forward",
             .reads = {x},
             .writes = {y},
             .in_place = {{y, x}},
             .run = [=](Context& context) {
               WRN_ON_REAL(x, context,
                           relu_forward(x.data<Real>(), y.data<Real>(), x.size(), context));
             }});
  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy || !tape.needs_gradient(x)) return;
    const Tensor dx = tape.make_gradient(x);
    tape.step({.name = name + " backward",
               .reads = {y, dy},
               .writes = {dx},
               .in_place = {{dx, dy}},
               .run = [=](Context& context) {
                 WRN_ON_REAL(y, context,
                             relu_backward(y.data<Real>(), dy.data<Real>(), dx.data<Real>(),
                                           y.size(), context));
               }});
    tape.add_gradient(x, dx);
  });
  return y;
}

Tensor add(Tape& tape, const Tensor& a, const Tensor& b) {
  check_image("add", tape, a);
  check_image("add", tape, b);
  check_shape("add", b, a.shape());
  const std::string name = a.name() + " sum";
  const Tensor y = tape.make(name, a.shape(), a.dtype());
  tape.step({.name = name + " forward",
             .reads = {a, b},
             .writes = {y},
             .in_place = {{y, a}, {y, b}},
             .run = [=](Context& context) {
               WRN_ON_REAL(y, context,
                           add(a.data<Real>(), b.data<Real>(), y.data<Real>(), y.size(), context));
             }});
  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy) return;
    // Both gradients are dy itself. That is safe: planned tensors are never written twice.
    for (const Tensor& x : {a, b}) {
      if (tape.needs_gradient(x)) tape.add_gradient(x, dy);
    }
  });
  return y;
}

Tensor dropout(Tape& tape, const Tensor& x, float p, int layer) {
  check_image("dropout", tape, x);
  WRN_CHECK(p >= 0 && p < 1, "dropout with p = {}", p);
  if (!tape.training() || p == 0) return x;
  const std::string name = x.name() + " dropout";
  const int rows = static_cast<int>(x.dim(0));
  const std::int64_t row_size = x.size() / rows;
  const Tensor state = tape.state().step;
  const auto record = [=, &tape](const std::string& step, const Tensor& from, const Tensor& to) {
    tape.step({.name = step,
               .reads = {from, state},
               .writes = {to},
               .in_place = {{to, from}},
               .run = [=](Context& context) {
                 WRN_ON_REAL(from, context,
                             dropout(from.data<Real>(), to.data<Real>(), rows, row_size, p, layer,
                                     state.data<StepState>(), context));
               }});
  };
  const Tensor y = tape.make(name, x.shape(), x.dtype());
  record(name + " forward", x, y);
  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy || !tape.needs_gradient(x)) return;
    const Tensor dx = tape.make_gradient(x);
    record(name + " backward", dy, dx);
    tape.add_gradient(x, dx);
  });
  return y;
}

}  // namespace wrn
