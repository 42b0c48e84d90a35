// Convolution over oneDNN, in all three directions.
//
// Our layouts are NHWC and KRSC; oneDNN calls them nhwc and ohwi, and gives dims as n,c,h,w and
// k,c,r,s. The filters go to and from oneDNN's favourite layout in every launch. Images stay in
// NHWC but for the cases of blocked_images().
#include "kernels/cpu/onednn.h"
#include "kernels/error.h"
#include "kernels/kernels.h"

namespace wrn::cpu {
namespace {

using tag = memory::format_tag;

struct ConvLayouts {
  memory::desc x, w, y;     // ours
  memory::desc x_, w_, y_;  // what the primitive is asked with
  memory::dims strides, pad;
};

enum Direction : std::int64_t { kFprop = 1, kDgrad = 2, kWgrad = 3 };

/// Whether oneDNN may have the images in a layout of its own, at the price of copying them.
bool blocked_images(Direction direction, const ConvShape& s) {
  // oneDNN 2.6 gathers the pixels of a strided 1x1 convolution in groups of eight channels; of NHWC
  // images with fewer it then multiplies what its scratch memory held before.
  if (direction == kWgrad && s.r == 1 && s.stride > 1 && s.c % 8 != 0) return true;
  // Without AVX-512 its NHWC kernels are 15 to 50% slower than its blocked ones. From 64 channels
  // on a 3x3 convolution is long enough for that to pay the copies; but dgrad's NHWC kernel is
  // about as fast on small and strided images.
  if (direction == kDgrad && (s.stride > 1 || s.h < 16)) return false;
  return dnnl::get_effective_cpu_isa() < dnnl::cpu_isa::avx512_core && s.r == 3 && s.c >= 64 &&
         s.k >= 64;
}

ConvLayouts layouts(Direction direction, const ConvShape& s) {
  const memory::dims x{s.n, s.c, s.h, s.w}, w{s.k, s.c, s.r, s.r}, y{s.n, s.k, s.p(), s.q()};
  const tag images = blocked_images(direction, s) ? tag::any : tag::nhwc;
  return {f32(x, tag::nhwc), f32(w, tag::ohwi),    f32(y, tag::nhwc), f32(x, images), any(w),
          f32(y, images),    {s.stride, s.stride}, {s.pad(), s.pad()}};
}

auto forward_descriptor(const dnnl::engine& engine, const ConvLayouts& l) {
  return describe<dnnl::convolution_forward>(engine, dnnl::prop_kind::forward_training,
                                             dnnl::algorithm::convolution_direct, l.x_, l.w_, l.y_,
                                             l.strides, l.pad, l.pad);
}

Primitive& primitive(Direction direction, const ConvShape& s, Context& context) {
  WRN_CHECK(s.n > 0 && s.h > 0 && s.w > 0 && s.c > 0 && s.k > 0 && (s.r == 1 || s.r == 3) &&
                (s.stride == 1 || s.stride == 2),
            "convolution n={} h={} w={} c={} k={} r={} stride={}", s.n, s.h, s.w, s.c, s.k, s.r,
            s.stride);
  const PrimitiveKey key{direction, s.n, s.h, s.w, s.c, s.k, s.r, s.stride};
  return cached(context, key, [&](const dnnl::engine& engine) {
    const ConvLayouts l = layouts(direction, s);
    const auto forward = forward_descriptor(engine, l);
    if (direction == kFprop) {
      return Primitive(dnnl::convolution_forward(forward), forward.scratchpad_desc(),
                       {{DNNL_ARG_SRC, l.x, forward.src_desc(), Operand::kInput},
                        {DNNL_ARG_WEIGHTS, l.w, forward.weights_desc(), Operand::kInput},
                        {DNNL_ARG_DST, l.y, forward.dst_desc(), Operand::kOutput}},
                       engine);
    }
    if (direction == kDgrad) {
      const auto d = describe_backward<dnnl::convolution_backward_data>(
          engine, forward, dnnl::algorithm::convolution_direct, l.x_, l.w_, l.y_, l.strides, l.pad,
          l.pad);
      return Primitive(dnnl::convolution_backward_data(d), d.scratchpad_desc(),
                       {{DNNL_ARG_DIFF_DST, l.y, d.diff_dst_desc(), Operand::kInput},
                        {DNNL_ARG_WEIGHTS, l.w, d.weights_desc(), Operand::kInput},
                        {DNNL_ARG_DIFF_SRC, l.x, d.diff_src_desc(), Operand::kOutput}},
                       engine);
    }
    const auto d = describe_backward<dnnl::convolution_backward_weights>(
        engine, forward, dnnl::algorithm::convolution_direct, l.x_, l.w_, l.y_, l.strides, l.pad,
        l.pad);
    return Primitive(dnnl::convolution_backward_weights(d), d.scratchpad_desc(),
                     {{DNNL_ARG_SRC, l.x, d.src_desc(), Operand::kInput},
                      {DNNL_ARG_DIFF_DST, l.y, d.diff_dst_desc(), Operand::kInput},
                      {DNNL_ARG_DIFF_WEIGHTS, l.w, d.diff_weights_desc(), Operand::kOutput}},
                     engine);
  });
}

}  // namespace

void conv_fprop(const float* x, const float* w, float* y, const ConvShape& shape,
                Context& context) {
  primitive(kFprop, shape, context).run({x, w, y}, context);
}

void conv_dgrad(const float* dy, const float* w, float* dx, const ConvShape& shape,
                Context& context) {
  primitive(kDgrad, shape, context).run({dy, w, dx}, context);
}

void conv_wgrad(const float* x, const float* dy, float* dw, const ConvShape& shape,
                Context& context) {
  primitive(kWgrad, shape, context).run({x, dy, dw}, context);
}

std::size_t conv_fprop_workspace(const ConvShape& shape, Context& context) {
  return primitive(kFprop, shape, context).workspace_bytes();
}

std::size_t conv_dgrad_workspace(const ConvShape& shape, Context& context) {
  return primitive(kDgrad, shape, context).workspace_bytes();
}

std::size_t conv_wgrad_workspace(const ConvShape& shape, Context& context) {
  return primitive(kWgrad, shape, context).workspace_bytes();
}

}  // namespace wrn::cpu
