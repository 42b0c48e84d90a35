// Kernels and host code with one bug each, and some with none: planted_bugs NAME runs one of them.
// test_planted_bugs.py runs them all and asserts that each bug is found and named.
#include <cstring>

#include "simt/planted_bugs.h"

namespace {

using namespace wrn::cuda;
using namespace planted;

constexpr int kThreads = 64;
struct Line {
  float value[kThreads];
};

// --- Correct ------------------------------------------------------------------------------------
struct Partial {
  float sum[kThreads / 32];
};
__global__ void block_sum(const float* x, float* sum) {
  auto& shared = simt::shared_storage<Partial>();
  float v = x[blockIdx.x * kThreads + threadIdx.x];
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xFFFFFFFF, v, d);
  if (threadIdx.x % 32 == 0) shared.sum[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) sum[blockIdx.x] = shared.sum[0] + shared.sum[1];
}
void clean_reduction() {
  const Device x = counting(8 * kThreads), sum = allocate(8);
  START(block_sum, 8, kThreads, sizeof(Partial), x.get(), sum.get());
  const std::vector<float> sums = to_host(sum, 8);
  for (int b = 0; b < 8; ++b) {
    if (sums[b] != kThreads * (b * kThreads + (kThreads - 1) / 2.0F)) std::exit(3);
  }
}

constexpr int kTile = 8;
struct Tile {
  float value[kTile][kTile + 1];
};
__global__ void transpose(const float* x, float* y, int n) {
  auto& tile = simt::shared_storage<Tile>();
  const int row = static_cast<int>(threadIdx.x) / kTile, column = threadIdx.x % kTile;
  const int tiles = n / kTile;
  const int top = static_cast<int>(blockIdx.x) / tiles * kTile, left = blockIdx.x % tiles * kTile;
  tile.value[row][column] = x[(top + row) * n + left + column];
  __syncthreads();
  y[(left + row) * n + top + column] = tile.value[column][row];
}
void clean_transpose() {
  constexpr int n = 4 * kTile;
  const Device x = counting(n * n), y = allocate(n * n);
  START(transpose, 16, kTile * kTile, sizeof(Tile), x.get(), y.get(), n);
  const std::vector<float> values = to_host(y, n * n);
  for (int i = 0; i < n * n; ++i) {
    if (values[i] != static_cast<float>(i % n * n + i / n)) std::exit(3);
  }
}

/// The last block to finish adds up what the others left: a counter and fences.
__global__ void last_block_sums(const float* x, float* partial, unsigned* finished, float* sum) {
  partial[blockIdx.x] = x[blockIdx.x];
  __threadfence();
  if (atomicAdd(finished, 1) + 1 < gridDim.x) return;
  __threadfence();
  *sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) *sum += partial[b];
}
void clean_last_block() {
  const Device x = counting(16), partial = allocate(16), finished = allocate(1), sum = allocate(1);
  CHECK(cudaMemset(finished.get(), 0, sizeof(unsigned)));
  START(last_block_sums, 16, 1, 0, x.get(), partial.get(),
        reinterpret_cast<unsigned*>(finished.get()), sum.get());
  if (to_host(sum, 1)[0] != 120) std::exit(3);
}

/// A captured graph, replayed, with its input in pinned memory that changes in between.
__global__ void add_one(float* x) {
  simt::wait_for_previous_kernels();
  x[threadIdx.x] += 1;
}
void clean_graph() {
  const Device x = counting(kThreads);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  void* pinned;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaMallocHost(&pinned, sizeof(float)));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  CHECK(cudaMemcpyAsync(x.get(), pinned, sizeof(float), cudaMemcpyHostToDevice, stream));
  CHECK(simt::launch("add_one", 1, kThreads, 0, stream, [p = x.get()] { add_one(p); }));
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&exec, graph, 0));
  CHECK(cudaGraphDestroy(graph));
  for (float first : {10.0F, 20.0F}) {
    std::memcpy(pinned, &first, sizeof first);
    CHECK(cudaGraphLaunch(exec, stream));
    CHECK(cudaStreamSynchronize(stream));
  }
  const std::vector<float> values = to_host(x, kThreads);
  if (values[0] != 21 || values[1] != 3 || !simt::launched_kernels().contains("add_one")) {
    std::exit(3);
  }
  CHECK(cudaGraphExecDestroy(exec));
  CHECK(cudaFreeHost(pinned));
  CHECK(cudaStreamDestroy(stream));
}

// --- Races
// ----------------------------------------------------------------------------------------
__global__ void forgets_barrier(const float* x, float* y) {
  auto& line = simt::shared_storage<Line>();
  line.value[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = line.value[kThreads - 1 - threadIdx.x];
}
void missing_barrier() {
  const Device x = counting(kThreads), y = allocate(kThreads);
  START(forgets_barrier, 1, kThreads, sizeof(Line), x.get(), y.get());
  CHECK(cudaDeviceSynchronize());
}

/// Shuffles order no memory: what a lane wrote before one, another may not read after it.
__global__ void shuffles_for_a_barrier(const float* x, float* y) {
  auto& line = simt::shared_storage<Line>();
  line.value[threadIdx.x] = x[threadIdx.x];
  const float v = __shfl_xor_sync(0xFFFFFFFF, x[threadIdx.x], 1);
  y[threadIdx.x] = line.value[threadIdx.x ^ 1] - v;
}
void missing_warp_barrier() {
  const Device x = counting(32), y = allocate(32);
  START(shuffles_for_a_barrier, 1, 32, sizeof(Line), x.get(), y.get());
  CHECK(cudaDeviceSynchronize());
}

__global__ void writes_of_all_blocks(float* y) {
  if (threadIdx.x == 0) *y = static_cast<float>(blockIdx.x);
}
void race_between_blocks() {
  const Device y = allocate(1);
  START(writes_of_all_blocks, 8, kThreads, 0, y.get());
  CHECK(cudaDeviceSynchronize());
}

__global__ void forgets_fence(const float* x, float* partial, unsigned* finished, float* sum) {
  partial[blockIdx.x] = x[blockIdx.x];
  if (atomicAdd(finished, 1) + 1 < gridDim.x) return;
  for (unsigned b = 0; b < gridDim.x; ++b) *sum += partial[b];
}
void missing_fence() {
  const Device x = counting(16), partial = allocate(16), finished = allocate(1), sum = allocate(1);
  CHECK(cudaMemset(finished.get(), 0, sizeof(unsigned)));
  START(forgets_fence, 16, 1, 0, x.get(), partial.get(),
        reinterpret_cast<unsigned*>(finished.get()), sum.get());
  CHECK(cudaDeviceSynchronize());
}

__global__ void counts(float* x) { x[blockIdx.x * kThreads + threadIdx.x] = 1; }
__global__ void reads_before_it_waits(const float* x, float* y) {
  const float value = x[blockIdx.x * kThreads + threadIdx.x];
  simt::wait_for_previous_kernels();
  y[blockIdx.x * kThreads + threadIdx.x] = value;
}
void read_too_soon() {
  const Device x = counting(8 * kThreads), y = allocate(8 * kThreads);
  START(counts, 8, kThreads, 0, x.get());
  CHECK(simt::launch("reads_before_it_waits", 8, kThreads, 0, nullptr,
                     [x = x.get(), y = y.get()] { reads_before_it_waits(x, y); }));
  CHECK(cudaDeviceSynchronize());
}

__global__ void never_waits_for_kernels(float* y) { y[threadIdx.x] = 1; }
void missing_kernel_wait() {
  const Device y = allocate(kThreads);
  CHECK(simt::launch("never_waits_for_kernels", 1, kThreads, 0, nullptr,
                     [y = y.get()] { never_waits_for_kernels(y); }));
  CHECK(cudaDeviceSynchronize());
}

/// The same bits for no two orders of the blocks.
void order_dependence() {
  check_deterministic(1, [] {
    Device y = allocate(1);
    START(writes_of_all_blocks, 64, 1, 0, y.get());
    return y;
  });
}

// --- Barriers and shuffles that not all reach
// -------------------------------------------------------
__global__ void exits_before_barrier() {
  if (threadIdx.x >= 40) return;
  __syncthreads();
}
void barrier_after_exit() {
  START(exits_before_barrier, 2, kThreads, 0);
  CHECK(cudaDeviceSynchronize());
}

__global__ void barriers_in_branches() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
void divergent_barrier() {
  START(barriers_in_branches, 1, kThreads, 0);
  CHECK(cudaDeviceSynchronize());
}

__global__ void shuffles_in_branch(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_down_sync(0xFFFFFFFF, y[threadIdx.x], 1);
}
void divergent_shuffle() {
  const Device y = counting(32);
  START(shuffles_in_branch, 1, 32, 0, y.get());
  CHECK(cudaDeviceSynchronize());
}

__global__ void shuffles_from_outside(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0x0000FFFF, y[threadIdx.x], 20);
}
void shuffle_outside_mask() {
  const Device y = counting(32);
  START(shuffles_from_outside, 1, 32, 0, y.get());
  CHECK(cudaDeviceSynchronize());
}

// --- Memory
// ---------------------------------------------------------------------------------------
__global__ void reads_past_shared(float* y) {
  auto& line = simt::shared_storage<Line>();
  line.value[threadIdx.x] = 0;
  __syncthreads();
  const float* p = line.value;
  y[threadIdx.x] = p[threadIdx.x + 1];
}
void shared_read() {
  const Device y = allocate(kThreads);
  START(reads_past_shared, 1, kThreads, sizeof(Line), y.get());
  CHECK(cudaDeviceSynchronize());
}
__global__ void writes_past_shared() {
  float* p = simt::shared_storage<Line>().value;
  p[threadIdx.x + 1] = 0;
}
void shared_write() {
  START(writes_past_shared, 1, kThreads, sizeof(Line));
  CHECK(cudaDeviceSynchronize());
}
__global__ void needs_more_shared() { simt::shared_storage<Line>().value[threadIdx.x] = 0; }
void shared_too_small() {
  START(needs_more_shared, 1, kThreads, sizeof(Line) - 4);
  CHECK(cudaDeviceSynchronize());
}
__global__ void reads_past_global(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
void global_read() {
  const Device x = counting(kThreads), y = allocate(kThreads);
  START(reads_past_global, 1, kThreads, 0, x.get(), y.get());
  CHECK(cudaDeviceSynchronize());
}
__global__ void writes_past_global(float* y) { y[threadIdx.x + 1] = 0; }
void global_write() {
  const Device y = allocate(kThreads);
  START(writes_past_global, 1, kThreads, 0, y.get());
  CHECK(cudaDeviceSynchronize());
}
__global__ void misaligned_vector(const float* x, float4* y) {
  y[threadIdx.x] = *reinterpret_cast<const float4*>(x + 4 * threadIdx.x + 1);
}
void misaligned() {
  const Device x = counting(4 * kThreads + 1), y = allocate(4 * kThreads);
  START(misaligned_vector, 1, kThreads, 0, x.get(), reinterpret_cast<float4*>(y.get()));
  CHECK(cudaDeviceSynchronize());
}

__global__ void reads_unwritten_shared(float* y) {
  auto& line = simt::shared_storage<Line>();
  if (threadIdx.x > 0) line.value[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = line.value[threadIdx.x];
}
void uninitialised_shared() {
  check_deterministic(kThreads, [] {
    Device y = allocate(kThreads);
    START(reads_unwritten_shared, 1, kThreads, sizeof(Line), y.get());
    return y;
  });
}

void use_after_free() {
  Device y = allocate(kThreads);
  float* p = y.get();
  y.reset();
  START(add_one, 1, kThreads, 0, p);
  CHECK(cudaDeviceSynchronize());
}
void double_free() {
  Device y = allocate(kThreads);
  float* p = y.get();
  y.reset();
  cudaFree(p);
}
void leak() { (void)allocate(256).release(); }

void host_access() {
  const Device y = counting(kThreads);
  if (y.get()[3] == 3) std::puts("read");
}

// --- Streams
// ----------------------------------------------------------------------------------------
/// Copies back without waiting for a stream that the copy does not wait for.
void missing_synchronisation() {
  const Device x = counting(kThreads);
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(simt::launch("add_one", 1, kThreads, 0, stream, [p = x.get()] { add_one(p); }));
  const float value = to_host(x, kThreads)[0];
  CHECK(cudaStreamDestroy(stream));
  if (value == 1) return;
  std::fprintf(stderr, "add_one has not run: %g\n", value);
  std::exit(1);
}
/// Changes pinned memory before the copy from it is done.
void pinned_reuse() {
  const Device x = allocate(1);
  void* pinned;
  CHECK(cudaMallocHost(&pinned, sizeof(float)));
  float value = 1;
  std::memcpy(pinned, &value, sizeof value);
  CHECK(cudaMemcpyAsync(x.get(), pinned, sizeof value, cudaMemcpyHostToDevice, nullptr));
  std::memset(pinned, 0, sizeof value);
  value = to_host(x, 1)[0];
  CHECK(cudaFreeHost(pinned));
  if (value == 1) return;
  std::fprintf(stderr, "cudaMemcpyAsync copied %g\n", value);
  std::exit(1);
}
void allocates_in_capture() {
  cudaStream_t stream;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  CHECK(cudaMalloc(reinterpret_cast<void**>(&stream), 1));
}

const Register registered{CASE(clean_reduction),
                          CASE(clean_transpose),
                          CASE(clean_last_block),
                          CASE(clean_graph),
                          CASE(missing_barrier),
                          CASE(missing_warp_barrier),
                          CASE(missing_fence),
                          CASE(read_too_soon),
                          CASE(missing_kernel_wait),
                          CASE(race_between_blocks),
                          CASE(order_dependence),
                          CASE(barrier_after_exit),
                          CASE(divergent_barrier),
                          CASE(divergent_shuffle),
                          CASE(shuffle_outside_mask),
                          CASE(shared_read),
                          CASE(shared_write),
                          CASE(shared_too_small),
                          CASE(global_read),
                          CASE(global_write),
                          CASE(misaligned),
                          CASE(uninitialised_shared),
                          CASE(use_after_free),
                          CASE(double_free),
                          CASE(leak),
                          CASE(host_access),
                          CASE(missing_synchronisation),
                          CASE(pinned_reuse),
                          CASE(allocates_in_capture)};

}  // namespace

int main(int argc, char** argv) {
  for (const auto& [name, run] : planted::cases()) {
    if (argc == 2 && std::strcmp(argv[1], name) == 0) {
      run();
      return 0;
    }
  }
  std::fprintf(stderr, "usage: planted_bugs NAME\n");
  return 2;
}
