// The loss with its gradient and the counts of an epoch, and the optimiser's step.
//
//   loss = mean over images of log(sum over k of exp(z[k] - max)) - (z[label] - max)
//   dlogits = (softmax(z) - one-hot(label)) / images
//
// where a row with a negative label is padding: no image, no loss, a gradient of zero.
//
// The loss is one block, so that it can know the number of images before it writes a gradient and
// add up the rows in a fixed order without a second launch: a batch has about 128 x 100 logits. A
// warp takes a row at a time, a lane every 32nd class. Sums over classes are fp32 by butterfly, the
// same in all lanes; sums over rows are double, first of each warp's rows, then of the warps.
//
// A kernel cannot throw. A label that is no class makes the loss NaN, which stops training as any
// loss does that is not finite: `not_finite` counts it, and sgd_step and update_running_statistics
// then change nothing until the host has looked.
#include <cmath>

#include "kernels/device.cuh"

namespace wrn::cuda {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFF;
constexpr int kLanes = 32;
constexpr int kWarps = 32;

template <typename Combine>
__device__ float over_lanes(float value, Combine combine) {
#pragma unroll
  for (int other = kLanes / 2; other > 0; other /= 2) {
    value = combine(value, __shfl_xor_sync(kAllLanes, value, other));
  }
  return value;
}

/// The number of rows with an image. Every warp counts them all: it needs no barrier, and no time.
__device__ int count_images(const std::int32_t* labels, int rows, int lane) {
  int images = 0;
  for (int first = 0; first < rows; first += kLanes) {
    const bool image = first + lane < rows && labels[first + lane] >= 0;
    images += __popc(__ballot_sync(kAllLanes, image));
  }
  return images;
}

struct Totals {
  double loss;
  int wrong, wrong_top5;
};

struct WarpTotals {
  Totals of[kWarps];
};

/// One row by one warp: adds to the totals, the same in every lane, and writes dz unless it is
/// null.
__device__ void classify(const float* z, float* dz, std::int32_t label, int classes, int images,
                         int lane, Totals& totals) {
  const float of_label = label < classes ? z[label] : NAN;
  float largest = -INFINITY;
  int before = 0;  // classes before the label's, of equal logits the first; a NaN counts too
  for (int k = lane; k < classes; k += kLanes) {
    largest = fmaxf(largest, z[k]);
    before += (k < label ? z[k] < of_label : z[k] <= of_label) ? 0 : 1;
  }
  largest = over_lanes(largest, [](float a, float b) { return fmaxf(a, b); });
  float sum = 0;  // between 1 and classes, so its logarithm is safe
  for (int k = lane; k < classes; k += kLanes) sum += expf(z[k] - largest);
  sum = over_lanes(sum, [](float a, float b) { return a + b; });
#pragma unroll
  for (int other = kLanes / 2; other > 0; other /= 2) {
    before += __shfl_xor_sync(kAllLanes, before, other);
  }
  totals.loss += static_cast<double>(logf(sum) - (of_label - largest));
  totals.wrong += before >= 1 ? 1 : 0;
  totals.wrong_top5 += before >= 5 ? 1 : 0;
  if (dz == nullptr) return;
  __syncwarp();  // in place, z[label] is overwritten: not before every lane has read it
  for (int k = lane; k < classes; k += kLanes) {
    const float softmax = expf(z[k] - largest) / sum;
    dz[k] = (softmax - (k == label ? 1 : 0)) / static_cast<float>(images);
  }
}

__global__ void __launch_bounds__(kWarps* kLanes, 1)
    softmax_cross_entropy_kernel(const float* logits, const std::int32_t* labels, float* loss,
                                 float* dlogits, Metrics* metrics, int rows, int classes) {
  wait_for_previous_kernels();
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const int images = count_images(labels, rows, lane);
  Totals mine{};
  for (int row = warp; row < rows; row += kWarps) {
    const float* z = logits + std::int64_t{row} * classes;
    float* dz = dlogits == nullptr ? nullptr : dlogits + std::int64_t{row} * classes;
    const std::int32_t label = labels[row];
    if (label >= 0) {
      classify(z, dz, label, classes, images, lane, mine);
    } else {
      for (int k = lane; dz != nullptr && k < classes; k += kLanes) dz[k] = 0;
    }
  }
  WarpTotals& shared = shared_storage<WarpTotals>();
  if (lane == 0) shared.of[warp] = mine;
  __syncthreads();
  if (warp > 0 || lane > 0) return;
  for (int other = 1; other < kWarps; ++other) {
    mine.loss += shared.of[other].loss;
    mine.wrong += shared.of[other].wrong;
    mine.wrong_top5 += shared.of[other].wrong_top5;
  }
  *loss = static_cast<float>(mine.loss / (images > 0 ? images : 1));
  metrics->loss_sum += mine.loss;
  metrics->wrong += mine.wrong;
  metrics->wrong_top5 += mine.wrong_top5;
  metrics->images += images;
  metrics->not_finite += mine.loss - mine.loss == 0 ? 0 : 1;  // NaN where it is not finite
}

constexpr unsigned kUpdateThreads = 256;

__device__ void update(float& w, float gradient, float& m, const StepState& s) {
  const float g = gradient + s.weight_decay * w;
  m = s.momentum * m + g;
  w -= s.learning_rate * (g + s.momentum * m);
}

/// Whole groups of four in 16-byte accesses, the last elements one by one. `copy` may be null.
__global__ void sgd_kernel(float* w, const float* gradient, float* m, bf16* copy, std::int64_t size,
                           const StepState* state, const Metrics* metrics) {
  wait_for_previous_kernels();
  if (metrics->not_finite > 0) return;
  const StepState s = *state;
  const std::int64_t thread = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  auto *w4 = grouped<4>(w), *m4 = grouped<4>(m);
  auto* copy4 = grouped<4>(copy);
  const auto* gradient4 = grouped<4>(gradient);
  for (std::int64_t i = thread; i < size / 4; i += stride) {
    Floats<4> a = w4[i], b = m4[i];
    const Floats<4> g = gradient4[i];
#pragma unroll
    for (int k = 0; k < 4; ++k) update(a.at[k], g.at[k], b.at[k], s);
    w4[i] = a;
    m4[i] = b;
    if (copy != nullptr) copy4[i] = from_floats<bf16>(a);
  }
  for (std::int64_t i = size / 4 * 4 + thread; i < size; i += stride) {
    update(w[i], gradient[i], m[i], s);
    if (copy != nullptr) copy[i] = to_bf16(w[i]);
  }
}

}  // namespace

void softmax_cross_entropy(const float* logits, const std::int32_t* labels, float* loss,
                           float* dlogits, Metrics* metrics, int rows, int classes,
                           Context& context) {
  WRN_CHECK(rows >= 0 && classes > 0, "the loss of rows={} classes={}", rows, classes);
  launch(WRN_KERNEL(softmax_cross_entropy_kernel), 1, dim3{kLanes, kWarps}, sizeof(WarpTotals),
         context, logits, labels, loss, dlogits, metrics, rows, classes);
}

void sgd_step(float* w, const float* gradient, float* m, bf16* copy, std::int64_t size,
              const StepState* state, const Metrics* metrics, Context& context) {
  WRN_CHECK(size >= 0, "{} parameters", size);
  if (size == 0) return;
  check_aligned(w, gradient, m, copy);
  launch(WRN_KERNEL(sgd_kernel), grid_stride_blocks(divide_up(size, 4), kUpdateThreads, context),
         kUpdateThreads, 0, context, w, gradient, m, copy, size, state, metrics);
}

}  // namespace wrn::cuda
