// Sums over the slowest axis, of which each element has a few parts or hundreds: those of wgrad's
// filters, and a batch's rows for the gradient of a bias.
//
// There is little to do but to wait for memory, so a thread asks for eight parts before it adds
// them: of four elements, or of one where they are transposed or no fours. A block has 256 threads,
// [slices][groups of elements], with as many slices as make it one round: a thread takes every
// slices-th part, and then the slices are added up. At least eight groups are next to each other;
// so more than 256 parts take several rounds. Without a bound on its registers ptxas would let
// loads wait for each other.
#include <algorithm>
#include <bit>

#include "kernels/channel_sums.cuh"
#include "kernels/sum_parts.h"

namespace wrn::cuda {
namespace {

constexpr int kAtOnce = 8;
constexpr unsigned kThreads = 256, kFewestGroups = 8;

/// Of `rows` groups.
template <int V>
__global__ void __launch_bounds__(kThreads, 4)
    sum_parts_kernel(const Floats<V>* partial, Floats<V>* sum, int parts, int rows, int columns) {
  wait_for_previous_kernels();
  const int size = rows * columns, slices = static_cast<int>(blockDim.y);
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const std::int64_t apart = std::int64_t{slices} * size;  // a thread's parts
  partial += std::int64_t{threadIdx.y} * size + i;
  PlainSums<V> mine{};
  for (int part = static_cast<int>(threadIdx.y); i < size && part < parts;
       part += kAtOnce * slices) {
    Floats<V> few[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j, partial += apart) {
      few[j] = part + j * slices < parts ? *partial : Floats<V>{};
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) mine.add(few[j]);
  }
  merge_column<kThreads>(mine);
  if (threadIdx.y > 0 || i >= size) return;
  const int row = i / columns, column = i - row * columns;
  sum[std::int64_t{column} * rows + row] = mine.sum;
}

template <int V>
void launch_groups(const float* partial, float* sum, int parts, int rows, int columns,
                   Context& context) {
  const auto slices = std::bit_ceil(static_cast<unsigned>(divide_up(parts, kAtOnce)));
  const unsigned high = std::min(slices, kThreads / kFewestGroups), wide = kThreads / high;
  const std::int64_t size = std::int64_t{rows} * columns;
  launch(WRN_KERNEL(sum_parts_kernel<V>), static_cast<unsigned>(divide_up(size, wide)),
         dim3{wide, high}, sizeof(Column<PlainSums<V>, kThreads>), context, grouped<V>(partial),
         grouped<V>(sum), parts, rows, columns);
}

}  // namespace

void sum_parts(const float* partial, int parts, int rows, int columns, float* sum,
               Context& context) {
  const std::int64_t size = std::int64_t{rows} * columns;
  WRN_CHECK(parts > 0 && parts <= 0x7FFFFFFF - kAtOnce * int{kThreads} && size > 0 &&
                size <= 0x7FFFFFFF - kThreads,
            "the sum of {} parts of {} x {}", parts, rows, columns);
  check_aligned(partial, sum);
  columns == 1 && rows % 4 == 0 ? launch_groups<4>(partial, sum, parts, rows / 4, columns, context)
                                : launch_groups<1>(partial, sum, parts, rows, columns, context);
}

}  // namespace wrn::cuda
