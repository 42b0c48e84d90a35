// The versions of the convolution, each one idea beyond the one before it. All do the same: tests
// and benchmarks run every row of the table; conv.cu says which one the program uses.
#pragma once

#include "kernels/bf16.h"
#include "kernels/kernels.h"

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
}  // namespace v4

using ConvLauncher = void(const float*, const float*, float*, const ConvShape&, Context&);
using ConvWorkspace = std::size_t(const ConvShape&, Context&);

/// fprop and dgrad need no workspace in any version.
struct ConvVersion {
  const char* name;
  ConvLauncher *fprop, *dgrad, *wgrad;
  ConvWorkspace* wgrad_workspace;
};

inline constexpr ConvVersion kConvLadder[] = {
    {"v0 direct", v0::fprop, v0::dgrad, v0::wgrad, v0::wgrad_workspace},
    {"v1 implicit GEMM", v1::fprop, v1::dgrad, v1::wgrad, v1::wgrad_workspace},
    {"v2 shared tile", v2::fprop, v2::dgrad, v2::wgrad, v2::wgrad_workspace},
    {"v3 register tile", v3::fprop, v3::dgrad, v3::wgrad, v3::wgrad_workspace},
};

}  // namespace wrn::cuda
