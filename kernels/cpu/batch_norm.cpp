// Batch norm over oneDNN: variance in two passes, statistics in fp32, in training the ReLU fused.
//
// oneDNN's fused ReLU keeps a mask of its own for the backward pass, which is our `mask`. It makes
// zeros of NaNs, which are to stay what they are: ruined weights would look like a network that has
// learnt nothing. In training the statistics tell which channels have some; in inference the ReLU
// is a pass of its own.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/onednn.h"
#include "kernels/error.h"
#include "kernels/kernels.h"

namespace wrn::cpu {
namespace {

using Flags = dnnl::normalization_flags;

// The backward primitive of v2 asks for the shift too, and does not read it; v3's refuses it, and
// is given the scale a second time instead, which changes nothing.
constexpr int kBackwardShift = DNNL_VERSION_MAJOR >= 3 ? DNNL_ARG_SCALE : DNNL_ARG_SHIFT;

enum Kind : std::int64_t { kTraining = 11, kInference = 12, kBackward = 13 };

struct Norm {
  memory::desc image, channels;
  Flags flags;
};

Norm norm(const ImageShape& s, bool relu, bool inference) {
  Flags flags = Flags::use_scale | Flags::use_shift;
  if (relu) flags = flags | Flags::fuse_norm_relu;
  if (inference) flags = flags | Flags::use_global_stats;
  return {f32({s.n, s.c, s.h, s.w}, memory::format_tag::nhwc), f32({s.c}, memory::format_tag::a),
          flags};
}

auto forward_descriptor(const dnnl::engine& engine, const Norm& n, float epsilon, bool inference) {
  const auto kind =
      inference ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
#if DNNL_VERSION_MAJOR >= 3
  return describe<dnnl::batch_normalization_forward>(engine, kind, n.image, n.image, epsilon,
                                                     n.flags);
#else
  return describe<dnnl::batch_normalization_forward>(engine, kind, n.image, epsilon, n.flags);
#endif
}

auto backward_descriptor(const dnnl::engine& engine, const Norm& n, float epsilon) {
  const auto forward = forward_descriptor(engine, n, epsilon, false);
  const auto kind = dnnl::prop_kind::backward;
#if DNNL_VERSION_MAJOR >= 3
  return describe_backward<dnnl::batch_normalization_backward>(engine, forward, kind, n.image,
                                                               n.image, n.image, epsilon, n.flags);
#else
  return describe_backward<dnnl::batch_normalization_backward>(engine, forward, kind, n.image,
                                                               n.image, epsilon, n.flags);
#endif
}

Primitive& primitive(Kind kind, const ImageShape& s, float epsilon, bool relu, Context& context) {
  WRN_CHECK(s.n > 0 && s.h > 0 && s.w > 0 && s.c > 0 && epsilon > 0,
            "batch norm n={} h={} w={} c={} epsilon={}", s.n, s.h, s.w, s.c, epsilon);
  const PrimitiveKey key{kind, s.n, s.h, s.w, s.c, std::bit_cast<std::int32_t>(epsilon), relu};
  return cached(context, key, [&](const dnnl::engine& engine) {
    const Norm n = norm(s, relu, kind == kInference);
    const auto input = Operand::kInput, output = Operand::kOutput;
    std::vector<Operand> operands = {{DNNL_ARG_SRC, n.image, n.image, input},
                                     {DNNL_ARG_SCALE, n.channels, n.channels, input}};
    if (kind == kBackward) {
      const auto d = backward_descriptor(engine, n, epsilon);
      operands.insert(operands.end(),
                      {{DNNL_ARG_MEAN, n.channels, n.channels, input},
                       {DNNL_ARG_VARIANCE, n.channels, n.channels, input},
                       {DNNL_ARG_DIFF_DST, n.image, n.image, input},
                       {DNNL_ARG_DIFF_SRC, n.image, n.image, output},
                       {DNNL_ARG_DIFF_SCALE, n.channels, n.channels, output},
                       {DNNL_ARG_DIFF_SHIFT, n.channels, n.channels, output},
                       {DNNL_ARG_WORKSPACE, d.workspace_desc(), d.workspace_desc(), input},
                       {kBackwardShift, n.channels, n.channels, input}});
      return Primitive(dnnl::batch_normalization_backward(d), d.scratchpad_desc(), operands,
                       engine);
    }
    const auto d = forward_descriptor(engine, n, epsilon, kind == kInference);
    const auto statistics = kind == kInference ? input : output;
    operands.insert(operands.end(), {{DNNL_ARG_SHIFT, n.channels, n.channels, input},
                                     {DNNL_ARG_MEAN, n.channels, n.channels, statistics},
                                     {DNNL_ARG_VARIANCE, n.channels, n.channels, statistics},
                                     {DNNL_ARG_DST, n.image, n.image, output}});
    if (kind == kTraining) {
      operands.push_back({DNNL_ARG_WORKSPACE, d.workspace_desc(), d.workspace_desc(), output});
    }
    return Primitive(dnnl::batch_normalization_forward(d), d.scratchpad_desc(), operands, engine);
  });
}

}  // namespace

void batch_norm_forward(const float* x, const float* gamma, const float* beta, float* y,
                        float* mean, float* variance, std::uint8_t* mask, const ImageShape& shape,
                        float epsilon, bool relu, Context& context) {
  primitive(kTraining, shape, epsilon, relu, context)
      .run({x, gamma, beta, mean, variance, y, mask}, context);
  for (int c = 0; relu && c < shape.c; ++c) {
    if (std::isfinite(mean[c]) && std::isfinite(variance[c])) continue;
    for (std::int64_t i = c; i < shape.size(); i += shape.c) {
      y[i] = std::numeric_limits<float>::quiet_NaN();
    }
  }
}

void batch_norm_inference(const float* x, const float* gamma, const float* beta, const float* mean,
                          const float* variance, float* y, const ImageShape& shape, float epsilon,
                          bool relu, Context& context) {
  primitive(kInference, shape, epsilon, false, context)
      .run({x, gamma, beta, mean, variance, y}, context);
  if (relu) relu_forward(y, y, shape.size(), context);
}

void batch_norm_backward(const float* x, const float* dy, const float* gamma, const float* mean,
                         const float* variance, const std::uint8_t* mask, float* dx, float* dgamma,
                         float* dbeta, const ImageShape& shape, float epsilon, bool relu,
                         Context& context) {
  primitive(kBackward, shape, epsilon, relu, context)
      .run({x, gamma, mean, variance, dy, dx, dgamma, dbeta, mask, gamma}, context);
}

std::size_t batch_norm_mask_bytes(const ImageShape& shape, Context& context) {
  const Norm n = norm(shape, true, false);
  // Any epsilon gives the same mask.
  return forward_descriptor(context.library().engine, n, 1e-5F, false).workspace_desc().get_size();
}

std::size_t batch_norm_forward_workspace(const ImageShape& shape, float epsilon, bool relu,
                                         Context& context) {
  return primitive(kTraining, shape, epsilon, relu, context).workspace_bytes();
}

std::size_t batch_norm_inference_workspace(const ImageShape& shape, float epsilon, bool,
                                           Context& context) {
  return primitive(kInference, shape, epsilon, false, context).workspace_bytes();
}

std::size_t batch_norm_backward_workspace(const ImageShape& shape, float epsilon, bool relu,
                                          Context& context) {
  return primitive(kBackward, shape, epsilon, relu, context).workspace_bytes();
}

void update_running_statistics(const std::vector<RunningStatistics>& norms, const Metrics* metrics,
                               Context&) {
  for (const RunningStatistics& norm : norms) {
    WRN_CHECK(norm.rows > 1, "the variance of one value");
    if (metrics != nullptr && metrics->not_finite > 0) continue;
    const auto rows = static_cast<double>(norm.rows);
    const auto unbiased = static_cast<float>(rows / (rows - 1));
    for (int c = 0; c < norm.channels; ++c) {
      float &mean = norm.running_mean[c], &variance = norm.running_variance[c];
      mean += norm.momentum * (norm.mean[c] - mean);
      variance += norm.momentum * (norm.variance[c] * unbiased - variance);
    }
  }
}

}  // namespace wrn::cpu
