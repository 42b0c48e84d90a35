// An epoch's order: the items sorted by Philox keys of their positions.
//
//   key[i] = the first two words of philox(item = i, time = epoch, use = shuffle)
//
// Thrust writes the keys and CUB's radix sort, which is stable, carries the items along; equal keys
// keep their order, as on the CPU. Nothing is allocated: the workspace holds the keys, the sorted
// keys, which nobody reads, and what CUB asks for. The passes of the sort depend on n alone.
//
// Only nvcc compiles this file: the emulation of tests/simt has a stand-in for it.
#include <thrust/execution_policy.h>
#include <thrust/tabulate.h>

#include <cub/device/device_radix_sort.cuh>

#include "kernels/device.cuh"

namespace wrn::cuda {
namespace {

struct Key {
  std::uint64_t seed;
  std::uint32_t epoch;
  __device__ std::uint64_t operator()(std::int64_t i) const {
    const PhiloxWords random =
        philox(seed, static_cast<std::uint32_t>(i), 0, epoch, RandomUse::kShuffle);
    return std::uint64_t{random.word[0]} << 32 | random.word[1];
  }
};

/// Where in the workspace things are: [n] keys, [n] sorted keys, CUB's own.
struct Layout {
  std::size_t sorted, cub, end;  // bytes from the start

  Layout(int n, std::size_t cub_bytes)
      : sorted(align(sizeof(std::uint64_t) * static_cast<std::size_t>(n))),
        cub(2 * sorted),
        end(cub + cub_bytes) {}
  static std::size_t align(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
};

std::size_t cub_bytes(int n, Context& context) {
  std::size_t bytes = 0;
  WRN_CUDA_CALL(cub::DeviceRadixSort::SortPairs(
                    nullptr, bytes, static_cast<const std::uint64_t*>(nullptr),
                    static_cast<std::uint64_t*>(nullptr), static_cast<const std::int32_t*>(nullptr),
                    static_cast<std::int32_t*>(nullptr), n, 0, 64, context.runtime().stream.get()),
                "{} items", n);
  return bytes;
}

}  // namespace

void shuffle(const std::int32_t* items, std::int32_t* order, int n, std::uint64_t seed,
             std::uint32_t epoch, Context& context) {
  WRN_CHECK(n >= 0, "{} items", n);
  if (n == 0) return;
  std::size_t bytes = cub_bytes(n, context);
  const Layout layout(n, bytes);
  auto* keys = reinterpret_cast<std::uint64_t*>(context.workspace);
  auto* sorted = reinterpret_cast<std::uint64_t*>(context.workspace + layout.sorted);
  const cudaStream_t stream = context.runtime().stream.get();
  thrust::tabulate(thrust::cuda::par_nosync.on(stream), keys, keys + n, Key{seed, epoch});
  WRN_CUDA_CALL(cub::DeviceRadixSort::SortPairs(context.workspace + layout.cub, bytes, keys, sorted,
                                                items, order, n, 0, 64, stream),
                "{} items", n);
}

std::size_t shuffle_workspace(int n, Context& context) {
  return Layout(n, cub_bytes(n, context)).end;
}

}  // namespace wrn::cuda
