// What every .cu file starts from: how a kernel is launched and how it gets its shared memory.
//
// A .cu file is compiled twice: by nvcc for GPUs, and by the host compiler for the SIMT emulation
// of tests/simt, which gives threadIdx, __syncthreads() and the other built-ins their meaning
// there. So kernels keep to three rules: a launch is a call of launch(), as <<<>>> is not C++; a
// kernel's shared memory is one struct, which it gets from shared_storage<T>(); and it calls
// wait_for_previous_kernels() before it touches global memory.
#pragma once

#include "kernels/kernels.h"
#include "kernels/philox.h"
#include "kernels/runtime.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "simt/device.h"
#endif

#include <algorithm>
#include <type_traits>

namespace wrn::cuda {

/// A kernel and its name, as WRN_KERNEL(add_kernel) makes it.
template <typename... P>
struct Kernel {
  const char* name;
  void (*function)(P...);
};
template <typename... P>
Kernel<P...> make_kernel(const char* name, void (*function)(P...)) {
  return {name, function};
}
#define WRN_KERNEL(...) ::wrn::cuda::make_kernel(#__VA_ARGS__, __VA_ARGS__)

#if defined(__CUDACC__)
/// The block's shared memory, as a T; the launch must give sizeof(T) bytes of it.
template <typename T>
__device__ __forceinline__ T& shared_storage() {
  extern __shared__ __align__(1024) unsigned char wrn_shared[];
  return *reinterpret_cast<T*>(wrn_shared);
}
#else
using simt::shared_storage;
#endif

/// Every thread of a kernel calls this, before it touches global memory. Where launch() allows it,
/// a kernel starts when all blocks of the kernel before have started and there is room, not when
/// all have ended, which hides the time of a launch. Here it waits for that kernel's end, after
/// which it sees what that has written, and lets the next kernel start. As every kernel of ours
/// waits, a kernel ends after all those before it; those of libraries are launched in the ordinary
/// way, or wait as well. (PTX ISA, griddepcontrol.)
#if defined(__CUDACC__)
__device__ __forceinline__ void wait_for_previous_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#else
using simt::wait_for_previous_kernels;
#endif

/// Launches `kernel` in the context's stream. `shared`: bytes of dynamic shared memory.
template <typename... P>
void launch(const Kernel<P...>& kernel, dim3 grid, dim3 block, std::size_t shared, Context& context,
            const std::type_identity_t<P>&... args) {
  WRN_CHECK(grid.x > 0 && grid.x <= 0x7FFFFFFFU && grid.y > 0 && grid.y <= 65535 && grid.z > 0 &&
                grid.z <= 65535,
            "{}: a grid of {} x {} x {} blocks", kernel.name, grid.x, grid.y, grid.z);
  const cudaStream_t stream = context.runtime().stream.get();
#if defined(__CUDACC__)
  constexpr std::size_t kWithoutAsking = 48 * 1024;
  if (shared > kWithoutAsking) {
    WRN_CUDA_CALL(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel.function),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        "{}, {} bytes", kernel.name, shared);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  config.numAttrs = context.overlaps_kernels && context.runtime().is_hopper() ? 1 : 0;
  WRN_CUDA_CALL(cudaLaunchKernelEx(&config, kernel.function, P(args)...),
                "{}, grid {} x {} x {}, block {} x {} x {}, {} bytes shared", kernel.name, grid.x,
                grid.y, grid.z, block.x, block.y, block.z, shared);
#else
  WRN_CUDA_CALL(simt::launch(kernel.name, grid, block, shared, stream,
                             [function = kernel.function, args...] { function(args...); }),
                "{}, grid {} x {} x {}, block {} x {} x {}, {} bytes shared", kernel.name, grid.x,
                grid.y, grid.z, block.x, block.y, block.z, shared);
#endif
}

/// Blocks for `items` elements in chunks of `per_block`, in a kernel that strides over the grid:
/// all of them, or a few for each multiprocessor where there are many.
inline unsigned grid_stride_blocks(std::int64_t items, std::int64_t per_block, Context& context) {
  const std::int64_t most = std::int64_t{context.runtime().device.multiProcessorCount} * 16;
  return static_cast<unsigned>(std::clamp<std::int64_t>(divide_up(items, per_block), 1, most));
}

/// Throws where a tensor does not begin as launchers.h says.
template <typename... T>
void check_aligned(const T*... tensors) {
  WRN_CHECK(((reinterpret_cast<std::uintptr_t>(tensors) % 16 == 0) && ...),
            "a tensor that does not begin at a multiple of 16 bytes");
}

/// N neighbouring elements, read and written as one: with 16 bytes of them, in one access.
template <typename T, int N>
struct alignas(std::min<std::size_t>(16, N * sizeof(T))) Group {
  T at[N];
};
template <int N>
using Floats = Group<float, N>;

/// The elements of a 16-byte access: 4 floats or 8 bf16.
template <typename Real>
inline constexpr int kWide = 16 / static_cast<int>(sizeof(Real));

/// From what memory holds to what arithmetic takes, and back. bf16 are converted in pairs, which
/// takes one instruction for each to fp32, and one for both from it. The parameter is a value
/// because nvcc would read one element after the other through a reference to memory.
template <typename Real, int N>
__device__ Floats<N> to_floats(const Group<Real, N> group) {
  Floats<N> floats;
  if constexpr (sizeof(Real) == 2 && N % 2 == 0) {
    const auto pairs = __builtin_bit_cast(Group<std::uint32_t, N / 2>, group);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const std::uint32_t pair = pairs.at[i / 2];
      floats.at[i] = __builtin_bit_cast(float, i % 2 == 0 ? pair << 16 : pair & 0xFFFF0000);
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) floats.at[i] = to_float(group.at[i]);
  }
  return floats;
}
template <typename Real>
__device__ Real from_float(float x) {
  if constexpr (std::is_same_v<Real, float>) {
    return x;
  } else {
    return to_bf16(x);
  }
}
template <typename Real, int N>
__device__ Group<Real, N> from_floats(const Floats<N>& floats) {
  Group<Real, N> group;
  if constexpr (sizeof(Real) == 2 && N % 2 == 0) {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      const bf16_pair pair = to_bf16_pair(floats.at[i], floats.at[i + 1]);
      group.at[i] = pair.first;
      group.at[i + 1] = pair.second;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) group.at[i] = from_float<Real>(floats.at[i]);
  }
  return group;
}

/// A Group that is being read, kept in whole words. nvcc would keep each bf16 of a Group in a
/// register of its own, and pack and unpack them.
template <typename T, int N>
class Packed {
  static constexpr int kBytes = sizeof(Group<T, N>);
  using Word = std::conditional_t<kBytes % 4 == 0, std::uint32_t, T>;
  using Words = Group<Word, kBytes / static_cast<int>(sizeof(Word))>;

 public:
  Packed() = default;
  /// *p, or zeros if it is not there.
  __device__ explicit Packed(const Group<T, N>* p, bool there = true) : words_{} {
    if (there) words_ = *reinterpret_cast<const Words*>(p);
  }
  __device__ Floats<N> floats() const { return to_floats(__builtin_bit_cast(Group<T, N>, words_)); }

 private:
  Words words_;
};

/// p as groups of N.
template <int N, typename T>
__host__ __device__ auto* grouped(T* p) {
  using Element = Group<std::remove_const_t<T>, N>;
  return reinterpret_cast<std::conditional_t<std::is_const_v<T>, const Element, Element>*>(p);
}

}  // namespace wrn::cuda
