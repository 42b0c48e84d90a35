// The versions of the convolution, each one idea beyond the one before it. All do the same: tests
// and benchmarks run every row of the table; conv.cu says which one the program uses.
#pragma once

#include "kernels/bf16.h"
#include "kernels/conv3x3/epilogue.h"
#include "kernels/fused.h"

namespace wrn::cuda {

namespace v0 {
void fprop(const float* x, const float* w, float* y, const ConvShape&, Context&);
void dgrad(const float* dy, const float* w, float* dx, const ConvShape&, Context&);
void wgrad(const float* x, const float* dy, float* dw, const ConvShape&, Context&);
std::size_t wgrad_workspace(const ConvShape&, Context&);
}  // namespace v0

namespace v1 {
void fprop(const float* x, const float* w, float* y, const ConvShape&, Context&);
void dgrad(const float* dy, const float* w, float* dx, const ConvShape&, Context&);
void wgrad(const float* x, const float* dy, float* dw, const ConvShape&, Context&);
std::size_t wgrad_workspace(const ConvShape&, Context&);
}  // namespace v1

namespace v2 {
void fprop(const float* x, const float* w, float* y, const ConvShape&, Context&);
void dgrad(const float* dy, const float* w, float* dx, const ConvShape&, Context&);
void wgrad(const float* x, const float* dy, float* dw, const ConvShape&, Context&);
std::size_t wgrad_workspace(const ConvShape&, Context&);
}  // namespace v2

namespace v3 {
void fprop(const float* x, const float* w, float* y, const ConvShape&, Context&);
void dgrad(const float* dy, const float* w, float* dx, const ConvShape&, Context&);
void wgrad(const float* x, const float* dy, float* dw, const ConvShape&, Context&);
std::size_t wgrad_workspace(const ConvShape&, Context&);
}  // namespace v3

namespace v4 {  // bf16; and float, multiplied as tf32
void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape&, Context&);
void dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape&, Context&);
void wgrad(const bf16* x, const bf16* dy, float* dw, const ConvShape&, Context&);
void fprop(const float* x, const float* w, float* y, const ConvShape&, Context&);
void dgrad(const float* dy, const float* w, float* dx, const ConvShape&, Context&);
void wgrad(const float* x, const float* dy, float* dw, const ConvShape&, Context&);
std::size_t wgrad_workspace(const ConvShape&, Context&);
// With a projection (fused.h) and more to do for what is stored (epilogue.h), and the tiles that
// bring sums of it:
void fprop(const bf16* x, const bf16* w, const Projection<bf16>&, bf16* y, const ConvShape&,
           const WithMoments<bf16>&, Context&);
void dgrad(const bf16* dy, const bf16* w, const Projection<bf16>&, bf16* dx, const ConvShape&,
           const ThroughRelu<bf16>&, Context&);
void fprop(const float* x, const float* w, const Projection<float>&, float* y, const ConvShape&,
           const WithMoments<float>&, Context&);
void dgrad(const float* dy, const float* w, const Projection<float>&, float* dx, const ConvShape&,
           const ThroughRelu<float>&, Context&);
unsigned fprop_tiles(const ConvShape&);
unsigned dgrad_tiles(const ConvShape&);
}  // namespace v4

namespace v5 {  // bf16, on compute capability 9.0
/// Whether v5 takes the shape on the context's device; throws where it is none.
bool supports(const ConvShape&, Context&);
void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape&, Context&);
void dgrad(const bf16* dy, const bf16* w, bf16* dx, const ConvShape&, Context&);
void wgrad(const bf16* x, const bf16* dy, float* dw, const ConvShape&, Context&);
std::size_t wgrad_workspace(const ConvShape&, Context&);
// With projections and epilogues, as v4.
void fprop(const bf16* x, const bf16* w, const Projection<bf16>&, bf16* y, const ConvShape&,
           const WithMoments<bf16>&, Context&);
void dgrad(const bf16* dy, const bf16* w, const Projection<bf16>&, bf16* dx, const ConvShape&,
           const ThroughRelu<bf16>&, Context&);
unsigned fprop_tiles(const ConvShape&, Context&);
unsigned dgrad_tiles(const ConvShape&, Context&);
}  // namespace v5

// Beside the ladder, as dgrad is not needed there: the convolution of images with few channels.
namespace first_layer {  // bf16
/// Whether it is for this shape: fewer than 8 channels to 16, 3x3, stride 1, images of whole bands
/// of 8 rows and of 16, 32, 48 or 64 columns.
bool takes(const ConvShape&);
void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape&, Context&);
void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape&, const WithMoments<bf16>&,
           Context&);
unsigned fprop_tiles(const ConvShape&);  // not more than v4's
void wgrad(const bf16* x, const bf16* dy, float* dw, const ConvShape&, Context&);
std::size_t wgrad_workspace(const ConvShape&, Context&);
}  // namespace first_layer

/// What a version rounds the inputs of its products to. With bf16 its tensors are of bf16, but dw.
enum class ConvInputs { kFp32, kTf32, kBf16 };

using ConvLauncher = void(const void*, const void*, void*, const ConvShape&, Context&);
using ConvWorkspace = std::size_t(const ConvShape&, Context&);
using ConvSupports = bool(const ConvShape&, Context&);
inline bool every_shape(const ConvShape&, Context&) { return true; }

/// fprop and dgrad need no workspace in any version.
struct ConvVersion {
  const char* name;
  ConvInputs inputs;
  ConvLauncher *fprop, *dgrad, *wgrad;
  ConvWorkspace* wgrad_workspace;
  ConvSupports* supports;
};

template <typename In, typename Out>
using TypedConvLauncher = void(const In*, const In*, Out*, const ConvShape&, Context&);
template <typename In, typename Out, TypedConvLauncher<In, Out>* launcher>
void untyped(const void* a, const void* b, void* out, const ConvShape& shape, Context& context) {
  launcher(static_cast<const In*>(a), static_cast<const In*>(b), static_cast<Out*>(out), shape,
           context);
}
template <typename T, TypedConvLauncher<T, T>* fprop, TypedConvLauncher<T, T>* dgrad,
          TypedConvLauncher<T, float>* wgrad>
constexpr ConvVersion conv_version(const char* name, ConvInputs inputs, ConvWorkspace* workspace,
                                   ConvSupports* supports = every_shape) {
  return {name,      inputs,  untyped<T, T, fprop>, untyped<T, T, dgrad>, untyped<T, float, wgrad>,
          workspace, supports};
}

inline constexpr ConvVersion kConvLadder[] = {
    conv_version<float, v0::fprop, v0::dgrad, v0::wgrad>("v0 direct", ConvInputs::kFp32,
                                                         v0::wgrad_workspace),
    conv_version<float, v1::fprop, v1::dgrad, v1::wgrad>("v1 implicit GEMM", ConvInputs::kFp32,
                                                         v1::wgrad_workspace),
    conv_version<float, v2::fprop, v2::dgrad, v2::wgrad>("v2 shared tile", ConvInputs::kFp32,
                                                         v2::wgrad_workspace),
    conv_version<float, v3::fprop, v3::dgrad, v3::wgrad>("v3 register tile", ConvInputs::kFp32,
                                                         v3::wgrad_workspace),
    conv_version<float, v4::fprop, v4::dgrad, v4::wgrad>("v4 tensor cores, tf32", ConvInputs::kTf32,
                                                         v4::wgrad_workspace),
    conv_version<bf16, v4::fprop, v4::dgrad, v4::wgrad>("v4 tensor cores, bf16", ConvInputs::kBf16,
                                                        v4::wgrad_workspace),
    conv_version<bf16, v5::fprop, v5::dgrad, v5::wgrad>("v5 Hopper, bf16", ConvInputs::kBf16,
                                                        v5::wgrad_workspace, v5::supports),
};

}  // namespace wrn::cuda
