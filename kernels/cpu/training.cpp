// The loss with its gradient, and the optimiser's step.
#include <algorithm>
#include <cmath>

#include "kernels/error.h"
#include "kernels/kernels.h"

namespace wrn::cpu {

void softmax_cross_entropy(const float* logits, const std::int32_t* labels, float* loss,
                           float* dlogits, Metrics* metrics, int rows, int classes, Context&) {
  WRN_CHECK(rows >= 0 && classes > 0, "the loss of rows={} classes={}", rows, classes);
  const std::int64_t images =
      std::count_if(labels, labels + rows, [](std::int32_t label) { return label >= 0; });
  double loss_sum = 0;
  for (int row = 0; row < rows; ++row) {
    const float* z = logits + std::int64_t{row} * classes;
    float* dz = dlogits == nullptr ? nullptr : dlogits + std::int64_t{row} * classes;
    const std::int32_t label = labels[row];
    if (label < 0) {
      if (dz != nullptr) std::fill(dz, dz + classes, 0.0F);
      continue;
    }
    WRN_CHECK(label < classes, "label {} of {} classes", label, classes);
    const float largest = *std::max_element(z, z + classes);
    double sum = 0;  // of exp(z - largest): between 1 and classes, so its logarithm is safe
    for (int k = 0; k < classes; ++k) sum += std::exp(static_cast<double>(z[k] - largest));
    loss_sum += std::log(sum) - static_cast<double>(z[label] - largest);
    // The classes before the label's in the order of the logits, of equal ones the first; a NaN
    // counts too.
    const auto before =
        std::count_if(z, z + label, [&](float value) { return !(value < z[label]); }) +
        std::count_if(z + label, z + classes, [&](float value) { return !(value <= z[label]); });
    metrics->wrong += before >= 1 ? 1 : 0;
    metrics->wrong_top5 += before >= 5 ? 1 : 0;
    if (dz == nullptr) continue;
    for (int k = 0; k < classes; ++k) {
      const double softmax = std::exp(static_cast<double>(z[k] - largest)) / sum;
      dz[k] = static_cast<float>((softmax - (k == label ? 1 : 0)) / static_cast<double>(images));
    }
  }
  *loss = static_cast<float>(loss_sum / static_cast<double>(std::max<std::int64_t>(images, 1)));
  metrics->loss_sum += loss_sum;
  metrics->images += images;
  metrics->not_finite += std::isfinite(loss_sum) ? 0 : 1;
}

void sgd_step(float* w, const float* gradient, float* m, bf16* copy, std::int64_t size,
              const StepState* state, const Metrics* metrics, Context&) {
  WRN_CHECK(copy == nullptr, "a bf16 copy of the weights on the CPU");
  WRN_CHECK(size >= 0, "{} parameters", size);
  if (metrics->not_finite > 0) return;
  const StepState s = *state;
#pragma omp parallel for simd
  for (std::int64_t i = 0; i < size; ++i) {
    const float g = gradient[i] + s.weight_decay * w[i];
    m[i] = s.momentum * m[i] + g;
    w[i] -= s.learning_rate * (g + s.momentum * m[i]);
  }
}

}  // namespace wrn::cpu
