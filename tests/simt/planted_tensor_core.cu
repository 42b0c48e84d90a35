// Bugs with cp.async, ldmatrix and mma, one each, and correct uses of them.
#include <cstring>

#include "kernels/tensor_core.cuh"
#include "simt/planted_bugs.h"

namespace {

using namespace wrn::cuda;
using namespace planted;
using wrn::bf16;

constexpr int kWarp = 32;
__device__ int lane() { return static_cast<int>(threadIdx.x); }

// --- Correct ------------------------------------------------------------------------------------
/// Element i is i, but the last of each piece of a copy is not read.
struct Pieces {
  alignas(16) float value[3][kWarp * 4];
};
__global__ void copies(const float* x, float* y) {
  auto& shared = simt::shared_storage<Pieces>();
  const int i = lane();
  copy_async<4>(&shared.value[0][i], x + i, i % 2 * 4);
  copy_async<8>(&shared.value[1][i * 2], x + i * 2, 4);
  commit_copies();
  copy_async<16>(&shared.value[2][i * 4], x + i * 4, 12);
  commit_copies();
  wait_for_copies<1>();  // the first group
  y[i] = shared.value[0][i] + shared.value[1][i * 2] + shared.value[1][i * 2 + 1];
  wait_for_copies<0>();
  __syncthreads();
  const float* other = &shared.value[2][(kWarp - 1 - i) * 4];
  y[kWarp + i] = other[0] + other[1] + other[2] + other[3];
}
void clean_copies() {
  const Device x = counting(kWarp * 4), y = allocate(kWarp * 2);
  START(copies, 1, kWarp, sizeof(Pieces), x.get(), y.get());
  const std::vector<float> values = to_host(y, kWarp * 2);
  for (int i = 0; i < kWarp; ++i) {
    const int other = (kWarp - 1 - i) * 4;
    if (values[i] != static_cast<float>(i % 2 * i + i * 2)) std::exit(3);
    if (values[kWarp + i] != static_cast<float>(3 * other + 3)) std::exit(3);
  }
}

/// Small integers, whose products and sums are exact: A is 16 x 16, B is 16 x 8.
float a_of(int row, int k) { return static_cast<float>((row * 7 + k * 3) % 11 - 5); }
float b_of(int k, int column) { return static_cast<float>((k * 5 + column * 2) % 13 - 6); }

template <typename T>
struct Operands {
  alignas(16) T a[16][16], a_across[16][16], b[8][16], b_across[16][8];  // across: depth first
};
void put(float x, float& y) { y = x; }
void put(float x, bf16& y) { y = wrn::to_bf16(x); }

/// Two products of one warp: operands from rows along the depth, then (bf16) from rows across it.
template <typename T>
__global__ void products(float* d) {
  auto& shared = simt::shared_storage<Operands<T>>();
  for (int i = lane(); i < 256; i += kWarp) {
    put(a_of(i / 16, i % 16), shared.a[i / 16][i % 16]);
    put(a_of(i / 16, i % 16), shared.a_across[i % 16][i / 16]);
    if (i < 128) put(b_of(i / 8, i % 8), shared.b[i % 8][i / 8]);
    if (i < 128) put(b_of(i / 8, i % 8), shared.b_across[i / 8][i % 8]);
  }
  __syncthreads();
  constexpr int kGroup = 16 / sizeof(T), kDeep = 2 * kGroup, kWays = sizeof(T) == 2 ? 2 : 1;
  const int matrix = lane() / 8, row = lane() % 8;
  for (int way = 0; way < kWays; ++way) {
    float sum[1][1][4] = {};
    for (int k = 0; k < 16; k += kDeep) {
      unsigned a[1][4], b[4];  // of b the upper two matrices are the lower ones again
      if (way == 0) {
        load_matrices(a[0], &shared.a[matrix % 2 * 8 + row][k + matrix / 2 * kGroup]);
        load_matrices(b, &shared.b[row][k + matrix % 2 * kGroup]);
      } else {
        load_matrices_transposed(a[0], &shared.a_across[matrix / 2 * 8 + row][matrix % 2 * 8]);
        load_matrices_transposed(b, &shared.b_across[matrix % 2 * 8 + row][0]);
      }
      mma<T>(sum, a, {{b[0], b[1]}});
    }
    for (int j = 0; j < 4; ++j) {
      d[way * 128 + (lane() / 4 + j / 2 * 8) * 8 + lane() % 4 * 2 + j % 2] = sum[0][0][j];
    }
  }
}
template <typename T>
void check_product() {
  constexpr int kWays = sizeof(T) == 2 ? 2 : 1;
  const Device d = allocate(kWays * 128);
  START(products<T>, 1, kWarp, sizeof(Operands<T>), d.get());
  const std::vector<float> values = to_host(d, kWays * 128);
  for (int i = 0; i < kWays * 128; ++i) {
    float expected = 0;
    for (int k = 0; k < 16; ++k) expected += a_of(i % 128 / 8, k) * b_of(k, i % 8);
    if (values[i] != expected) std::exit(3);
  }
}
void clean_products() {
  check_product<bf16>();
  check_product<float>();
}

// --- Copies -------------------------------------------------------------------------------------
struct Stages {
  alignas(16) float value[2][kWarp * 4];
};

__global__ void never_waits(const float* x, float* y) {
  auto& shared = simt::shared_storage<Stages>();
  copy_async<16>(&shared.value[0][lane() * 4], x + lane() * 4, 16);
  commit_copies();
  __syncthreads();
  y[lane()] = shared.value[0][lane()];
}
void missing_wait() {
  const Device x = counting(kWarp * 4), y = allocate(kWarp);
  START(never_waits, 1, kWarp, sizeof(Stages), x.get(), y.get());
  CHECK(cudaDeviceSynchronize());
}

/// One group more may be under way than the stages allow.
__global__ void waits_for_too_few(const float* x, float* y) {
  auto& shared = simt::shared_storage<Stages>();
  for (int stage = 0; stage < 2; ++stage) {
    copy_async<16>(&shared.value[stage][lane() * 4], x + lane() * 4, 16);
    commit_copies();
  }
  wait_for_copies<2>();
  __syncthreads();
  unsigned fragment[4];
  load_matrices(fragment, &shared.value[0][lane() * 4]);
  y[lane()] = static_cast<float>(fragment[0]);
  wait_for_copies<0>();
}
void wait_off_by_one() {
  const Device x = counting(kWarp * 4), y = allocate(kWarp);
  START(waits_for_too_few, 1, kWarp, sizeof(Stages), x.get(), y.get());
  CHECK(cudaDeviceSynchronize());
}

/// Waits for its own copies alone, and reads its neighbour's.
__global__ void waits_without_barrier(const float* x, float* y) {
  auto& shared = simt::shared_storage<Stages>();
  copy_async<16>(&shared.value[0][lane() * 4], x + lane() * 4, 16);
  commit_copies();
  wait_for_copies<0>();
  y[lane()] = shared.value[0][(lane() ^ 1) * 4];
}
void missing_barrier_after_wait() {
  const Device x = counting(kWarp * 4), y = allocate(kWarp);
  START(waits_without_barrier, 1, kWarp, sizeof(Stages), x.get(), y.get());
  CHECK(cudaDeviceSynchronize());
}

/// Fills a stage while others may still read what it held: the barrier comes after.
__global__ void fills_stage_too_soon(const float* x, float* y) {
  auto& shared = simt::shared_storage<Stages>();
  float sum = 0;
  for (int slice = 0; slice < 4; ++slice) {
    copy_async<16>(&shared.value[0][lane() * 4], x + (slice * kWarp + lane()) * 4, 16);
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    sum += shared.value[0][(kWarp - 1 - lane()) * 4] * static_cast<float>(slice + 1);
  }
  y[lane()] = sum;
}
void stage_reused() {
  const Device x = counting(kWarp * 16), y = allocate(kWarp);
  START(fills_stage_too_soon, 1, kWarp, sizeof(Stages), x.get(), y.get());
  CHECK(cudaDeviceSynchronize());
}

/// Fills the stage that this thread itself reads next.
__global__ void overwrites_before_reading(const float* x, float* y) {
  auto& shared = simt::shared_storage<Stages>();
  float* mine = &shared.value[0][lane() * 4];
  copy_async<16>(mine, x + lane() * 4, 16);
  commit_copies();
  wait_for_copies<0>();
  copy_async<16>(mine, x + (kWarp + lane()) * 4, 16);
  commit_copies();
  y[lane()] = mine[0];
  wait_for_copies<0>();
}
void stage_overwritten() {
  check_deterministic(kWarp, [] {
    const Device x = counting(kWarp * 8);
    Device y = allocate(kWarp);
    START(overwrites_before_reading, 1, kWarp, sizeof(Stages), x.get(), y.get());
    CHECK(cudaDeviceSynchronize());
    return y;
  });
}

__global__ void copies_past_the_end(const float* x) {
  auto& shared = simt::shared_storage<Stages>();
  copy_async<16>(&shared.value[0][lane() * 4], x + (lane() + 1) * 4, 16);
  commit_copies();
  wait_for_copies<0>();
}
void copy_source() {
  const Device x = counting(kWarp * 4);
  START(copies_past_the_end, 1, kWarp, sizeof(Stages), x.get());
  CHECK(cudaDeviceSynchronize());
}
__global__ void copies_past_shared(const float* x) {
  auto& shared = simt::shared_storage<Stages>();
  copy_async<16>(&shared.value[1][lane() * 4] + 4, x + lane() * 4, 16);
  commit_copies();
  wait_for_copies<0>();
}
void copy_target() {
  const Device x = counting(kWarp * 4);
  START(copies_past_shared, 1, kWarp, sizeof(Stages), x.get());
  CHECK(cudaDeviceSynchronize());
}
__global__ void copies_between(const float* x) {
  auto& shared = simt::shared_storage<Stages>();
  copy_async<16>(&shared.value[0][lane() * 4], x + lane() * 4 + 2, 8);
}
void copy_misaligned() {
  const Device x = counting(kWarp * 8);
  START(copies_between, 1, kWarp, sizeof(Stages), x.get());
  CHECK(cudaDeviceSynchronize());
}

// --- Products -----------------------------------------------------------------------------------
__global__ void loads_between() {
  auto& shared = simt::shared_storage<Stages>();
  unsigned fragment[4];
  load_matrices(fragment, &shared.value[0][lane() * 4 + 2]);
}
void ldmatrix_misaligned() {
  START(loads_between, 1, kWarp, sizeof(Stages));
  CHECK(cudaDeviceSynchronize());
}

/// Rows that others wrote, with no barrier in between: ldmatrix orders no memory.
__global__ void loads_without_barrier() {
  auto& shared = simt::shared_storage<Stages>();
  for (int i = 0; i < 4; ++i) shared.value[0][lane() + i * kWarp] = 0;
  unsigned fragment[4];
  load_matrices(fragment, &shared.value[0][lane() * 4]);
}
void missing_barrier_before_ldmatrix() {
  START(loads_without_barrier, 1, kWarp, sizeof(Stages));
  CHECK(cudaDeviceSynchronize());
}

__global__ void multiplies_in_branch(float* y) {
  float sum[1][1][4] = {};
  if (lane() < 16) mma<bf16>(sum, {{0, 0, 0, 0}}, {{0, 0}});
  y[lane()] = sum[0][0][0];
}
void divergent_product() {
  const Device y = allocate(kWarp);
  START(multiplies_in_branch, 1, kWarp, 0, y.get());
  CHECK(cudaDeviceSynchronize());
}

__global__ void multiplies_unrounded(const float* x) {
  float sum[1][1][4] = {};
  const unsigned a = __float_as_uint(1 + x[lane()] * 0x1p-20F);
  mma<float>(sum, {{a, a, a, a}}, {{0, 0}});
}
void unrounded_operand() {
  const Device x = counting(kWarp);
  START(multiplies_unrounded, 1, kWarp, 0, x.get());
  CHECK(cudaDeviceSynchronize());
}

const Register registered{CASE(clean_copies),
                          CASE(clean_products),
                          CASE(missing_wait),
                          CASE(wait_off_by_one),
                          CASE(missing_barrier_after_wait),
                          CASE(stage_reused),
                          CASE(stage_overwritten),
                          CASE(copy_source),
                          CASE(copy_target),
                          CASE(copy_misaligned),
                          CASE(ldmatrix_misaligned),
                          CASE(missing_barrier_before_ldmatrix),
                          CASE(divergent_product),
                          CASE(unrounded_operand)};

}  // namespace
