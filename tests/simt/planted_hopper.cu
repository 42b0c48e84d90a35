// One product by the instructions of kernels/hopper.cuh, correct or with one bug: a producer and a
// consumer warpgroup, a ring of two places, D = A B^T stored by way of shared memory.
// test_planted_bugs.py runs all and asserts that each bug is found and named.
#include <cudaTypedefs.h>

#include <cstring>
#include <vector>

#include "kernels/hopper.cuh"
#include "simt/planted_bugs.h"

namespace {

using namespace wrn;
using namespace wrn::cuda;

enum Bug {
  kNone,
  kForgetsProxyFence,      // between its stores to shared memory and store_box
  kRefillsAfterLoad,       // a place that a thread has read, with no fence in between
  kReleasesEarly,          // a place whose products are under way
  kMisalignedBox,          // not where a pattern of 8 rows begins
  kUnshiftedStride,        // a descriptor's field in bytes, not in 16 bytes
  kExpectsMore,            // bytes than come
  kExpectsLess,            // only those of A
  kKeepsParity,            // of the consumer, from turn to turn
  kStartsWithOtherParity,  // the producer
  kEveryLaneArrives,       // where one was counted
  kForgetsInitFence,       // after init_barrier
  kForgetsFull,            // the consumer's wait
  kLoadsUnwaited,          // what came in a box, by a thread of the other warpgroup
  kLoadsUnwritten,         // from where nothing is
  kTakesRegisters,         // that nobody dropped
  kOneWarpDrops,           // registers
  kForgetsProductFence,    // wgmma.fence
  kForgetsProducts,        // the wait for them
  kReadsSumsEarly,         // waits for all products but the last batch
  kLeavesBox,              // loads a slice too many, which comes when the block may be gone
  kForgetsStores,          // the wait for them
  kNegativeStore,          // coordinates
  kNoMap,                  // 128 zero bytes
};

constexpr int kRows = 64, kColumns = 16, kDepth = 64, kSlices = 4;
constexpr int kThreads = 2 * kWarpgroup, kBlocks = 2;  // each with rows of its own

struct alignas(1024) Shared {
  struct Stage {
    unsigned char a[kRows * kDepth * 2], b[kColumns * kDepth * 2];
  };
  Stage stage[2];
  unsigned char out[kRows * kColumns * 2];
  Barrier full[2], empty[2];
};

struct Maps {
  CUtensorMap a, b, out;
};

__device__ void produce(const Maps& maps, Shared& shared, Bug bug) {
  const int first_row = static_cast<int>(blockIdx.x) * kRows;
  for (int i = 0; i < kSlices + (bug == kLeavesBox); ++i) {
    auto& stage = shared.stage[i % 2];
    const unsigned parity = i / 2 % 2;
    wait(shared.empty[i % 2], bug == kStartsWithOtherParity ? parity : parity ^ 1);
    unsigned bytes = sizeof stage;
    if (bug == kExpectsMore) bytes += 16;
    if (bug == kExpectsLess) bytes = sizeof stage.a;
    arrive_expecting(shared.full[i % 2], bytes);
    load_box(stage.a + (bug == kMisalignedBox ? 128 : 0), maps.a, shared.full[i % 2], i * kDepth,
             first_row, 0);
    load_box(stage.b, maps.b, shared.full[i % 2], i * kDepth, 0, 0);
  }
  if (bug == kLoadsUnwaited) {
    wait(shared.empty[1], 1);  // all has been multiplied
    static_cast<void>(load_shared(shared.stage[1].a));
  }
}

__device__ void consume(float (&sum)[1][kColumns / 2], Shared& shared, Bug bug) {
  constexpr std::uint64_t kLayout = operand_layout(Row::k128, 1024, 16);
  const std::uint64_t wrong = bug == kUnshiftedStride ? std::uint64_t{1024} << 32 : 0;
  for (float& value : sum[0]) value = 0;
  for (int i = 0; i < kSlices; ++i) {
    auto& stage = shared.stage[i % 2];
    if (bug == kLoadsUnwritten) static_cast<void>(load_shared(shared.out));
    if (bug != kForgetsFull) wait(shared.full[i % 2], bug == kKeepsParity ? 0 : i / 2 % 2);
    if (bug != kForgetsProductFence) begin_products(sum);
    for (unsigned step = 0; step < kDepth / 16; ++step) {
      wgmma<kColumns, false, false>(sum[0], behind(operand(kLayout | wrong, stage.a), step * 2),
                                    behind(operand(kLayout, stage.b), step * 2), true);
    }
    commit_products();
    const bool early = bug == kReadsSumsEarly && i + 1 == kSlices;
    if (early) wait_for_products<1>(sum);
    if (!early && bug != kReleasesEarly && bug != kForgetsProducts) wait_for_products<0>(sum);
    if (bug == kRefillsAfterLoad && threadIdx.x == 0) static_cast<void>(load_shared(stage.a));
    if (threadIdx.x == 0 || (bug == kEveryLaneArrives && threadIdx.x < 32)) {
      arrive(shared.empty[i % 2]);
    }
  }
  if (bug == kReleasesEarly) wait_for_products<0>(sum);
}

__device__ void store(const float (&sum)[1][kColumns / 2], const Maps& maps, Shared& shared,
                      Bug bug) {
  const unsigned t = threadIdx.x;
  for (unsigned i = 0; i < kColumns / 2; i += 2) {
    const unsigned row = t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + t % 4 * 2;
    const unsigned byte = row * kColumns * 2 + column * 2;
    store_shared(shared.out + (byte ^ (byte >> 7 & 1) << 4),
                 to_bf16(sum[0][i]).bits | unsigned{to_bf16(sum[0][i + 1]).bits} << 16);
  }
  if (bug != kForgetsProxyFence) fence_async_proxy();
  named_barrier(1, kWarpgroup);
  if (t != 0) return;
  const int first_row = static_cast<int>(blockIdx.x) * kRows;
  store_box(maps.out, shared.out, bug == kNegativeStore ? -8 : 0, first_row, 0, 0);
  commit_stores();
  if (bug != kForgetsStores) wait_for_stores<0>();
}

__global__ void hopper_product(const Maps maps, Bug bug) {
  auto& shared = simt::shared_storage<Shared>();
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      init_barrier(shared.full[i], 1);
      init_barrier(shared.empty[i], 1);
    }
    if (bug != kForgetsInitFence) fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x >= kWarpgroup) {
    if (bug != kTakesRegisters && (bug != kOneWarpDrops || threadIdx.x < kWarpgroup + 32)) {
      drop_registers<40>();
    }
    if (threadIdx.x == kWarpgroup) produce(maps, shared, bug);
    return;
  }
  take_registers<256>();
  float sum[1][kColumns / 2];
  consume(sum, shared, bug);
  store(sum, maps, shared, bug);
}

PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                   &result);
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

/// Of [rows, columns] bf16 as a tensor of `rank` dimensions, all but two of them 1.
CUresult encode(CUtensorMap& map, const void* p, int rank, std::uint64_t columns,
                std::uint64_t rows, unsigned box_columns, unsigned box_rows, std::uint64_t stride) {
  const cuuint64_t size[] = {columns, rows, 1, 1},
                   strides[] = {stride, stride * rows, stride * rows};
  const cuuint32_t box[] = {box_columns, box_rows, 1, 1}, step[] = {1, 1, 1, 1};
  return encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank),
                   const_cast<void*>(p), size, strides, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                   box_columns == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_32B,
                   CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

struct Matrix {
  Matrix(int rows_, int columns_) : rows(rows_), columns(columns_), values(rows_ * columns_) {
    cudaMalloc(&device, values.size() * sizeof(bf16));
  }
  ~Matrix() { cudaFree(device); }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  CUtensorMap map(int rank, int box_columns, int box_rows) const {
    CUtensorMap map;
    const auto stride = static_cast<std::uint64_t>(columns) * 2;
    const CUresult code = encode(map, device, rank, columns, rows, box_columns, box_rows, stride);
    if (code != CUDA_SUCCESS) std::exit(4);
    return map;
  }
  void copy(cudaMemcpyKind kind) {
    const bool to_device = kind == cudaMemcpyHostToDevice;
    cudaMemcpy(to_device ? device : values.data(), to_device ? values.data() : device,
               values.size() * sizeof(bf16), kind);
  }
  int rows, columns;
  std::vector<bf16> values;
  void* device = nullptr;
};

/// Small integers, whose sums are exact.
void run_product(Bug bug) {
  Matrix a(kBlocks * kRows, kSlices * kDepth), b(kColumns, kSlices * kDepth);
  Matrix out(kBlocks * kRows, kColumns);
  int i = 0;
  for (Matrix* m : {&a, &b}) {
    for (bf16& value : m->values) value = to_bf16(static_cast<float>(i++ * 7 % 5 - 2));
    m->copy(cudaMemcpyHostToDevice);
  }
  Maps maps{a.map(3, kDepth, kRows), b.map(3, kDepth, kColumns), out.map(4, kColumns, kRows)};
  if (bug == kNoMap) std::memset(&maps.b, 0, sizeof maps.b);
  START(hopper_product, kBlocks, kThreads, sizeof(Shared), maps, bug);
  out.copy(cudaMemcpyDeviceToHost);
  for (int m = 0; m < out.rows; ++m) {
    for (int n = 0; n < kColumns; ++n) {
      float sum = 0;
      for (int k = 0; k < a.columns; ++k) {
        sum += to_float(a.values[m * a.columns + k]) * to_float(b.values[n * b.columns + k]);
      }
      const float got = to_float(out.values[m * kColumns + n]);
      if (got == to_float(to_bf16(sum))) continue;
      std::fprintf(stderr, "hopper_product: D[%d, %d] is %g\n", m, n, got);
      std::exit(3);
    }
  }
}

/// Says how many of the maps that break a rule were refused.
void bad_maps() {
  const Matrix m(64, 64);
  CUtensorMap map;
  int refused = 0;
  const auto* p = static_cast<const char*>(m.device);
  for (const CUresult code :
       {encode(map, nullptr, 3, 64, 64, 64, 64, 128), encode(map, p + 8, 3, 64, 64, 64, 64, 128),
        encode(map, p, 3, 64, 64, 64, 64, 120), encode(map, p, 3, 64, 0, 64, 64, 128),
        encode(map, p, 3, 64, 64, 64, 257, 128), encode(map, p, 3, 64, 64, 128, 64, 128)}) {
    refused += code == CUDA_ERROR_INVALID_VALUE;
  }
  std::fprintf(stderr, "refused %d maps\n", refused);
  std::exit(1);
}

#define BUG(name, bug)             \
  {                                \
    name, [] { run_product(bug); } \
  }
const planted::Register registered{CASE(bad_maps),
                                   BUG("clean_hopper", kNone),
                                   BUG("forgets_proxy_fence", kForgetsProxyFence),
                                   BUG("refills_after_load", kRefillsAfterLoad),
                                   BUG("releases_early", kReleasesEarly),
                                   BUG("misaligned_box", kMisalignedBox),
                                   BUG("unshifted_stride", kUnshiftedStride),
                                   BUG("expects_more", kExpectsMore),
                                   BUG("expects_less", kExpectsLess),
                                   BUG("keeps_parity", kKeepsParity),
                                   BUG("starts_with_other_parity", kStartsWithOtherParity),
                                   BUG("every_lane_arrives", kEveryLaneArrives),
                                   BUG("forgets_init_fence", kForgetsInitFence),
                                   BUG("forgets_full", kForgetsFull),
                                   BUG("loads_unwaited", kLoadsUnwaited),
                                   BUG("loads_unwritten", kLoadsUnwritten),
                                   BUG("takes_registers", kTakesRegisters),
                                   BUG("one_warp_drops", kOneWarpDrops),
                                   BUG("forgets_product_fence", kForgetsProductFence),
                                   BUG("forgets_products", kForgetsProducts),
                                   BUG("reads_sums_early", kReadsSumsEarly),
                                   BUG("leaves_box", kLeavesBox),
                                   BUG("forgets_stores", kForgetsStores),
                                   BUG("negative_store", kNegativeStore),
                                   BUG("no_map", kNoMap)};

}  // namespace
