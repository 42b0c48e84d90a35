// The linear layer over oneDNN's inner product.
#include "kernels/cpu/onednn.h"
#include "kernels/error.h"
#include "kernels/kernels.h"

namespace wrn::cpu {
namespace {

enum Kind : std::int64_t { kForward = 31, kBackwardData = 32, kBackwardWeights = 33 };

Primitive& primitive(Kind kind, const LinearShape& s, Context& context) {
  WRN_CHECK(s.rows > 0 && s.in > 0 && s.out > 0, "linear rows={} in={} out={}", s.rows, s.in,
            s.out);
  return cached(context, {kind, s.rows, s.in, s.out}, [&](const dnnl::engine& engine) {
    const auto ab = memory::format_tag::ab;
    const memory::desc x = f32({s.rows, s.in}, ab), w = f32({s.out, s.in}, ab),
                       b = f32({s.out}, memory::format_tag::a), y = f32({s.rows, s.out}, ab),
                       w_any = any({s.out, s.in});
    const auto forward = describe<dnnl::inner_product_forward>(
        engine, dnnl::prop_kind::forward_training, x, w_any, b, y);
    if (kind == kForward) {
      return Primitive(dnnl::inner_product_forward(forward), forward.scratchpad_desc(),
                       {{DNNL_ARG_SRC, x, x, Operand::kInput},
                        {DNNL_ARG_WEIGHTS, w, forward.weights_desc(), Operand::kInput},
                        {DNNL_ARG_BIAS, b, b, Operand::kInput},
                        {DNNL_ARG_DST, y, y, Operand::kOutput}},
                       engine);
    }
    if (kind == kBackwardData) {
      const auto d =
          describe_backward<dnnl::inner_product_backward_data>(engine, forward, x, w_any, y);
      return Primitive(dnnl::inner_product_backward_data(d), d.scratchpad_desc(),
                       {{DNNL_ARG_DIFF_DST, y, y, Operand::kInput},
                        {DNNL_ARG_WEIGHTS, w, d.weights_desc(), Operand::kInput},
                        {DNNL_ARG_DIFF_SRC, x, x, Operand::kOutput}},
                       engine);
    }
    const auto d =
        describe_backward<dnnl::inner_product_backward_weights>(engine, forward, x, w_any, b, y);
    return Primitive(dnnl::inner_product_backward_weights(d), d.scratchpad_desc(),
                     {{DNNL_ARG_SRC, x, x, Operand::kInput},
                      {DNNL_ARG_DIFF_DST, y, y, Operand::kInput},
                      {DNNL_ARG_DIFF_WEIGHTS, w, d.diff_weights_desc(), Operand::kOutput},
                      {DNNL_ARG_DIFF_BIAS, b, b, Operand::kOutput}},
                     engine);
  });
}

}  // namespace

void linear_forward(const float* x, const float* w, const float* b, float* y,
                    const LinearShape& shape, Context& context) {
  primitive(kForward, shape, context).run({x, w, b, y}, context);
}

void linear_backward_data(const float* dy, const float* w, float* dx, const LinearShape& shape,
                          Context& context) {
  primitive(kBackwardData, shape, context).run({dy, w, dx}, context);
}

void linear_backward_weights(const float* x, const float* dy, float* dw, float* db,
                             const LinearShape& shape, Context& context) {
  primitive(kBackwardWeights, shape, context).run({x, dy, dw, db}, context);
}

std::size_t linear_forward_workspace(const LinearShape& shape, Context& context) {
  return primitive(kForward, shape, context).workspace_bytes();
}

std::size_t linear_backward_data_workspace(const LinearShape& shape, Context& context) {
  return primitive(kBackwardData, shape, context).workspace_bytes();
}

std::size_t linear_backward_weights_workspace(const LinearShape& shape, Context& context) {
  return primitive(kBackwardWeights, shape, context).workspace_bytes();
}

}  // namespace wrn::cpu
