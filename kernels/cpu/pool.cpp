// Average and max pooling over oneDNN.
#include "kernels/cpu/onednn.h"
#include "kernels/error.h"
#include "kernels/kernels.h"

namespace wrn::cpu {
namespace {

enum Kind : std::int64_t { kForward = 21, kBackward = 22 };

struct Pool {
  memory::desc x, y;
  memory::dims window, zero{0, 0};
};

Pool pool(const PoolShape& s) {
  const auto nhwc = memory::format_tag::nhwc;
  return {f32({s.n, s.c, s.h, s.w}, nhwc),
          f32({s.n, s.c, s.h / s.side, s.w / s.side}, nhwc),
          {s.side, s.side}};
}

auto forward_descriptor(const dnnl::engine& engine, const Pool& p, dnnl::algorithm algorithm) {
  const auto kind = dnnl::prop_kind::forward_training;
#if DNNL_VERSION_MAJOR >= 3
  return describe<dnnl::pooling_forward>(engine, kind, algorithm, p.x, p.y, p.window, p.window,
                                         p.zero, p.zero, p.zero);
#else
  return describe<dnnl::pooling_forward>(engine, kind, algorithm, p.x, p.y, p.window, p.window,
                                         p.zero, p.zero);
#endif
}

auto backward_descriptor(const dnnl::engine& engine, const Pool& p, dnnl::algorithm algorithm) {
  const auto forward = forward_descriptor(engine, p, algorithm);
#if DNNL_VERSION_MAJOR >= 3
  return describe_backward<dnnl::pooling_backward>(engine, forward, algorithm, p.x, p.y, p.window,
                                                   p.window, p.zero, p.zero, p.zero);
#else
  return describe_backward<dnnl::pooling_backward>(engine, forward, algorithm, p.x, p.y, p.window,
                                                   p.window, p.zero, p.zero);
#endif
}

Primitive& primitive(Kind kind, dnnl::algorithm algorithm, const PoolShape& s, Context& context) {
  WRN_CHECK(s.n > 0 && s.c > 0 && s.side > 0 && s.h >= s.side && s.w >= s.side &&
                s.h % s.side == 0 && s.w % s.side == 0,
            "pooling n={} h={} w={} c={} side={}", s.n, s.h, s.w, s.c, s.side);
  const bool max = algorithm == dnnl::algorithm::pooling_max;
  const PrimitiveKey key{kind, max, s.n, s.h, s.w, s.c, s.side};
  return cached(context, key, [&](const dnnl::engine& engine) {
    const Pool p = pool(s);
    std::vector<Operand> operands;
    if (kind == kForward) {
      const auto d = forward_descriptor(engine, p, algorithm);
      operands = {{DNNL_ARG_SRC, p.x, p.x, Operand::kInput},
                  {DNNL_ARG_DST, p.y, p.y, Operand::kOutput}};
      if (max) {
        operands.push_back(
            {DNNL_ARG_WORKSPACE, d.workspace_desc(), d.workspace_desc(), Operand::kOutput});
      }
      return Primitive(dnnl::pooling_forward(d), d.scratchpad_desc(), operands, engine);
    }
    const auto d = backward_descriptor(engine, p, algorithm);
    operands = {{DNNL_ARG_DIFF_DST, p.y, p.y, Operand::kInput},
                {DNNL_ARG_DIFF_SRC, p.x, p.x, Operand::kOutput}};
    if (max) {
      operands.push_back(
          {DNNL_ARG_WORKSPACE, d.workspace_desc(), d.workspace_desc(), Operand::kInput});
    }
    return Primitive(dnnl::pooling_backward(d), d.scratchpad_desc(), operands, engine);
  });
}

constexpr auto kAverage = dnnl::algorithm::pooling_avg_exclude_padding;
constexpr auto kMax = dnnl::algorithm::pooling_max;

}  // namespace

void average_pool_forward(const float* x, float* y, const PoolShape& shape, Context& context) {
  primitive(kForward, kAverage, shape, context).run({x, y}, context);
}

void average_pool_backward(const float* dy, float* dx, const PoolShape& shape, Context& context) {
  primitive(kBackward, kAverage, shape, context).run({dy, dx}, context);
}

void max_pool_forward(const float* x, float* y, std::uint8_t* argmax, const PoolShape& shape,
                      Context& context) {
  primitive(kForward, kMax, shape, context).run({x, y, argmax}, context);
}

void max_pool_backward(const float* dy, const std::uint8_t* argmax, float* dx,
                       const PoolShape& shape, Context& context) {
  primitive(kBackward, kMax, shape, context).run({dy, dx, argmax}, context);
}

std::size_t max_pool_argmax_bytes(const PoolShape& shape, Context& context) {
  return forward_descriptor(context.library().engine, pool(shape), kMax)
      .workspace_desc()
      .get_size();
}

std::size_t average_pool_forward_workspace(const PoolShape& shape, Context& context) {
  return primitive(kForward, kAverage, shape, context).workspace_bytes();
}

std::size_t average_pool_backward_workspace(const PoolShape& shape, Context& context) {
  return primitive(kBackward, kAverage, shape, context).workspace_bytes();
}

std::size_t max_pool_forward_workspace(const PoolShape& shape, Context& context) {
  return primitive(kForward, kMax, shape, context).workspace_bytes();
}

std::size_t max_pool_backward_workspace(const PoolShape& shape, Context& context) {
  return primitive(kBackward, kMax, shape, context).workspace_bytes();
}

}  // namespace wrn::cpu
