#include "engine/ops.h"
#include "engine/ops/checks.h"

namespace wrn {
namespace {

PoolShape shape_of(const char* op, const Tape& tape, const Tensor& x, int side) {
  check_image(op, tape, x, 4);
  WRN_CHECK(side > 0 && x.dim(1) % side == 0 && x.dim(2) % side == 0,
            "{}: windows of {} in images {}", op, side, to_string(x.shape()));
  return {static_cast<int>(x.dim(0)), static_cast<int>(x.dim(1)), static_cast<int>(x.dim(2)),
          static_cast<int>(x.dim(3)), side};
}

Shape pooled(const PoolShape& s) { return {s.n, s.h / s.side, s.w / s.side, s.c}; }

}  // namespace

Tensor average_pool(Tape& tape, const Tensor& x, int side) {
  const PoolShape shape = shape_of("average_pool", tape, x, side);
  const std::string name = x.name() + " average pool";
  const Tensor y = tape.make(name, pooled(shape));
  tape.step(
      {.name = name + " forward",
       .reads = {x},
       .writes = {y},
       .workspace = WRN_ON(tape.context(), average_pool_forward_workspace(shape, tape.context())),
       .run = [=](Context& context) {
         WRN_ON_REAL(x, context,
                     average_pool_forward(x.data<Real>(), y.data<float>(), shape, context));
       }});
  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy || !tape.needs_gradient(x)) return;
    const Tensor dx = tape.make_gradient(x);
    tape.step({.name = name + " backward",
               .reads = {dy},
               .writes = {dx},
               .workspace =
                   WRN_ON(tape.context(), average_pool_backward_workspace(shape, tape.context())),
               .run = [=](Context& context) {
                 WRN_ON_REAL(
                     dx, context,
                     average_pool_backward(dy.data<float>(), dx.data<Real>(), shape, context));
               }});
    tape.add_gradient(x, dx);
  });
  return y;
}

Tensor max_pool(Tape& tape, const Tensor& x, int side) {
  const PoolShape shape = shape_of("max_pool", tape, x, side);
  const std::string name = x.name() + " max pool";
  const Tensor y = tape.make(name, pooled(shape), x.dtype());
  const auto bytes = static_cast<std::int64_t>(
      WRN_ON(tape.context(), max_pool_argmax_bytes(shape, tape.context())));
  const Tensor argmax = tape.make(name + " argmax", {bytes}, DType::kU8);
  tape.step({.name = name + " forward",
             .reads = {x},
             .writes = {y, argmax},
             .workspace = WRN_ON(tape.context(), max_pool_forward_workspace(shape, tape.context())),
             .run = [=](Context& context) {
               WRN_ON_REAL(x, context,
                           max_pool_forward(x.data<Real>(), y.data<Real>(),
                                            argmax.data<std::uint8_t>(), shape, context));
             }});
  tape.on_backward([=, &tape] {
    const Tensor dy = tape.gradient(y);
    if (!dy || !tape.needs_gradient(x)) return;
    const Tensor dx = tape.make_gradient(x);
    tape.step(
        {.name = name + " backward",
         .reads = {dy, argmax},
         .writes = {dx},
         .workspace = WRN_ON(tape.context(), max_pool_backward_workspace(shape, tape.context())),
         .run = [=](Context& context) {
           WRN_ON_REAL(dy, context,
                       max_pool_backward(dy.data<Real>(), argmax.data<std::uint8_t>(),
                                         dx.data<Real>(), shape, context));
         }});
    tape.add_gradient(x, dx);
  });
  return y;
}

}  // namespace wrn
