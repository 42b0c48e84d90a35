// The yardstick of the tests: every op in double precision, as plainly as it can be said.
// Images are NHWC, filters KRSC, all flat.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/philox.h"

namespace wrn::oracle {

using Values = std::vector<double>;

/// Visits the products of a convolution, for each element of y and each tap inside of x, as runs of
/// c channels: f(first element in x, first element in w, element of y).
template <typename F>
void conv_products(const ConvShape& s, F f) {
  std::size_t i = 0;
  for (int n = 0; n < s.n; ++n)
    for (int p = 0; p < s.p(); ++p)
      for (int q = 0; q < s.q(); ++q)
        for (int k = 0; k < s.k; ++k, ++i)
          for (int r = 0; r < s.r; ++r)
            for (int t = 0; t < s.r; ++t) {
              const int h = p * s.stride + r - s.pad(), v = q * s.stride + t - s.pad();
              if (h < 0 || h >= s.h || v < 0 || v >= s.w) continue;
              f(((static_cast<std::size_t>(n) * s.h + h) * s.w + v) * s.c,
                ((static_cast<std::size_t>(k) * s.r + r) * s.r + t) * s.c, i);
            }
}

inline Values conv(const Values& x, const Values& w, const ConvShape& s) {
  Values y(static_cast<std::size_t>(s.y_size()));
  conv_products(s, [&](std::size_t pixel, std::size_t tap, std::size_t i) {
    double sum = 0;
    for (int c = 0; c < s.c; ++c) sum += x[pixel + c] * w[tap + c];
    y[i] += sum;
  });
  return y;
}

inline Values conv_dgrad(const Values& dy, const Values& w, const ConvShape& s) {
  Values dx(static_cast<std::size_t>(s.x_size()));
  conv_products(s, [&](std::size_t pixel, std::size_t tap, std::size_t i) {
    for (int c = 0; c < s.c; ++c) dx[pixel + c] += dy[i] * w[tap + c];
  });
  return dx;
}

inline Values conv_wgrad(const Values& x, const Values& dy, const ConvShape& s) {
  Values dw(static_cast<std::size_t>(s.w_size()));
  conv_products(s, [&](std::size_t pixel, std::size_t tap, std::size_t i) {
    for (int c = 0; c < s.c; ++c) dw[tap + c] += dy[i] * x[pixel + c];
  });
  return dw;
}

struct Statistics {
  Values mean, variance;
};

inline Statistics statistics(const Values& x, std::size_t channels) {
  const std::size_t rows = x.size() / channels;
  Statistics s{Values(channels), Values(channels)};
  for (std::size_t i = 0; i < x.size(); ++i) s.mean[i % channels] += x[i] / rows;
  for (std::size_t i = 0; i < x.size(); ++i) {
    s.variance[i % channels] += std::pow(x[i] - s.mean[i % channels], 2) / rows;
  }
  return s;
}

inline Values normalise(const Values& x, const Statistics& s, const Values& gamma,
                        const Values& beta, double epsilon = 1e-5F) {
  Values y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % gamma.size();
    y[i] = gamma[c] * (x[i] - s.mean[c]) / std::sqrt(s.variance[c] + epsilon) + beta[c];
  }
  return y;
}

inline Values batch_norm(const Values& x, const Values& gamma, const Values& beta) {
  return normalise(x, statistics(x, gamma.size()), gamma, beta);
}

struct NormGradient {
  Values dx, dgamma, dbeta;
};

/// dy is the gradient of batch_norm's result, and s the statistics of x.
inline NormGradient batch_norm_gradient(const Values& x, const Values& dy, const Statistics& s,
                                        const Values& gamma, double epsilon = 1e-5F) {
  const std::size_t channels = gamma.size();
  const double rows = static_cast<double>(x.size() / channels);
  NormGradient g{Values(x.size()), Values(channels), Values(channels)};
  const auto normalised = [&](std::size_t i) {
    return (x[i] - s.mean[i % channels]) / std::sqrt(s.variance[i % channels] + epsilon);
  };
  for (std::size_t i = 0; i < x.size(); ++i) {
    g.dbeta[i % channels] += dy[i];
    g.dgamma[i % channels] += dy[i] * normalised(i);
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t c = i % channels;
    g.dx[i] = gamma[c] / std::sqrt(s.variance[c] + epsilon) *
              (dy[i] - g.dbeta[c] / rows - normalised(i) * g.dgamma[c] / rows);
  }
  return g;
}

inline Values relu(Values x) {
  for (double& value : x) value = std::max(value, 0.0);
  return x;
}

inline Values add(Values a, const Values& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}

/// Uniform in [0, 1), a multiple of 2^-24.
inline double uniform(std::uint32_t word) { return (word >> 8) * 0x1p-24; }

inline Values dropout(Values x, std::size_t rows, double p, std::uint32_t layer,
                      const StepState& state) {
  const std::size_t row_size = x.size() / rows;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const auto row = static_cast<std::uint32_t>(i / row_size);
    const auto element = static_cast<std::uint32_t>(i % row_size);
    const PhiloxWords random = philox(state.seed, element / 4, row, state.step, 0x10000 + layer);
    x[i] = uniform(random.word[element % 4]) >= double{static_cast<float>(p)} ? x[i] / (1 - p) : 0;
  }
  return x;
}

/// pick(window values) -> output
template <typename Pick>
Values pool(const Values& x, const PoolShape& s, Pick pick) {
  Values y;
  for (int n = 0; n < s.n; ++n)
    for (int p = 0; p < s.h / s.side; ++p)
      for (int q = 0; q < s.w / s.side; ++q)
        for (int c = 0; c < s.c; ++c) {
          Values window;
          for (int i = 0; i < s.side * s.side; ++i) {
            const int h = p * s.side + i / s.side, w = q * s.side + i % s.side;
            window.push_back(x[((static_cast<std::size_t>(n) * s.h + h) * s.w + w) * s.c + c]);
          }
          y.push_back(pick(window));
        }
  return y;
}

inline Values average_pool(const Values& x, const PoolShape& s) {
  return pool(x, s, [](const Values& window) {
    double sum = 0;
    for (const double value : window) sum += value;
    return sum / static_cast<double>(window.size());
  });
}

inline Values max_pool(const Values& x, const PoolShape& s) {
  return pool(x, s,
              [](const Values& window) { return *std::max_element(window.begin(), window.end()); });
}

inline Values linear(const Values& x, const Values& w, const Values& b) {
  const std::size_t in = w.size() / b.size(), rows = x.size() / in;
  Values y;
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t k = 0; k < b.size(); ++k) {
      double sum = b[k];
      for (std::size_t i = 0; i < in; ++i) sum += x[row * in + i] * w[k * in + i];
      y.push_back(sum);
    }
  return y;
}

/// The logarithm of the sum of the exponentials.
inline double log_sum_exp(const double* z, std::size_t size) {
  const double largest = *std::max_element(z, z + size);
  double sum = 0;
  for (std::size_t k = 0; k < size; ++k) sum += std::exp(z[k] - largest);
  return std::log(sum) + largest;
}

/// The mean over the rows with a label >= 0.
inline double cross_entropy(const Values& logits, const std::vector<std::int32_t>& labels) {
  const std::size_t classes = logits.size() / labels.size();
  double total = 0;
  int images = 0;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] < 0) continue;
    const double* z = &logits[row * classes];
    total += log_sum_exp(z, classes) - z[labels[row]];
    ++images;
  }
  return total / images;
}

/// Of the mean loss, for all rows: zero where the label is negative.
inline Values cross_entropy_gradient(const Values& logits,
                                     const std::vector<std::int32_t>& labels) {
  const std::size_t classes = logits.size() / labels.size();
  double images = 0;
  for (const std::int32_t label : labels) images += label >= 0 ? 1 : 0;
  Values gradient(logits.size());
  for (std::size_t row = 0; row < labels.size(); ++row) {
    if (labels[row] < 0) continue;
    const double* z = &logits[row * classes];
    const double log_sum = log_sum_exp(z, classes);
    for (std::size_t k = 0; k < classes; ++k) {
      const double hot = static_cast<std::size_t>(labels[row]) == k ? 1 : 0;
      gradient[row * classes + k] = (std::exp(z[k] - log_sum) - hot) / images;
    }
  }
  return gradient;
}

}  // namespace wrn::oracle
