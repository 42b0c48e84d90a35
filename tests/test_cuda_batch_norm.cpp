// Batch norm's kernels against the oracle. The bounds are a few roundings of what is added and
// subtracted; with a mean far larger than the deviation, what counts is the rounding of the mean.
#include <array>
#include <cmath>
#include <memory>

#include "catch.h"
#include "compare.h"
#include "device_array.h"
#include "kernels/channel_sums.h"
#include "kernels/kernels.h"

using namespace wrn;
using namespace wrn::test;

namespace {

constexpr float kEpsilon = 1e-5F;
/// Roundings in a row that a result may have collected: sums are trees over short runs.
constexpr double kFew = 16 * kRounding;

struct Case {
  ImageShape shape;
  float mean = 0;  // of x, whose deviation is 1
};

/// Every width and number of lanes; rows that fill no block, no tile; columns that fill no block.
std::vector<Case> cases() {
  return {{{1, 1, 1, 1}},          {{1, 1, 1, 4}},       {{1, 1, 2, 3}},   {{2, 3, 5, 3}, 1000},
          {{3, 8, 8, 16}},         {{2, 4, 4, 20}, 100}, {{5, 7, 3, 36}},  {{1, 2, 2, 64}},
          {{7, 32, 32, 16}, 1000}, {{1, 3, 3, 130}},     {{2, 3, 3, 160}}, {{3, 3, 3, 8}},
          {{1, 1, 3, 768}},        {{65, 32, 32, 3}, 10}};
}

std::string name_of(const Case& c) {
  return fmt::format("n={} h={} w={} c={} mean={}", c.shape.n, c.shape.h, c.shape.w, c.shape.c,
                     c.mean);
}

/// All of a case on the host.
struct Data {
  std::vector<float> x, dy, gamma, beta;
  oracle::Statistics statistics;

  template <typename Real>
  Data(const Case& c, Real)
      : x(stored<Real>(random_floats(static_cast<std::size_t>(c.shape.size()), 1, c.mean))),
        dy(stored<Real>(random_floats(x.size(), 2))),
        gamma(random_floats(static_cast<std::size_t>(c.shape.c), 3, 1)),
        beta(random_floats(gamma.size(), 4)),
        statistics(oracle::statistics(to_double(x), gamma.size())) {}

  std::size_t channels() const { return gamma.size(); }
  double deviation(std::size_t c) const { return std::sqrt(statistics.variance[c] + kEpsilon); }
};

/// The bound of y, of which `error_of_mean` roundings of the mean are part.
Values allowed_y(const Data& d) {
  Values allowed(d.x.size());
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    const std::size_t c = i % d.channels();
    const double slope = std::abs(d.gamma[c]) / d.deviation(c);
    allowed[i] =
        kFew * (slope * (std::abs(d.statistics.mean[c]) + std::abs(d.x[i] - d.statistics.mean[c])) +
                std::abs(d.beta[c]));
  }
  return allowed;
}

struct Forward {
  std::vector<float> y, mean, variance;
  std::vector<std::uint8_t> mask;
};

template <typename Real>
Forward forward(const Case& c, const Data& d, bool relu, bool in_place, Context& context) {
  const ImageShape& s = c.shape;
  const Workspace workspace(cuda::batch_norm_forward_workspace(s, kEpsilon, relu, context),
                            context);
  DeviceArray<Real> x(to_reals<Real>(d.x)), y(in_place ? 0 : d.x.size());
  DeviceArray<float> gamma(d.gamma), beta(d.beta), mean(d.channels()), variance(d.channels());
  DeviceArray<std::uint8_t> mask(relu ? cuda::batch_norm_mask_bytes(s, context) : 0);
  cuda::batch_norm_forward<Real>(x, gamma, beta, in_place ? x : y, mean, variance,
                                 relu ? mask.data() : nullptr, s, kEpsilon, relu, context);
  return {to_floats((in_place ? x : y).read()), mean.read(), variance.read(), mask.read()};
}

struct Backward {
  std::vector<float> dx, dgamma, dbeta;
};

template <typename Real>
Backward backward(const Case& c, const Data& d, const Forward& f, bool relu, bool in_place,
                  Context& context) {
  const ImageShape& s = c.shape;
  const Workspace workspace(cuda::batch_norm_backward_workspace(s, kEpsilon, relu, context),
                            context);
  DeviceArray<Real> x(to_reals<Real>(d.x)), dy(to_reals<Real>(d.dy)), dx(in_place ? 0 : d.x.size());
  DeviceArray<float> gamma(d.gamma), mean(f.mean), variance(f.variance), dgamma(d.channels()),
      dbeta(d.channels());
  DeviceArray<std::uint8_t> mask(f.mask);
  cuda::batch_norm_backward<Real>(x, dy, gamma, mean, variance, relu ? mask.data() : nullptr,
                                  in_place ? dy : dx, dgamma, dbeta, s, kEpsilon, relu, context);
  return {to_floats((in_place ? dy : dx).read()), dgamma.read(), dbeta.read()};
}

template <typename Real>
void check_forward(const Data& d, const Forward& f, bool relu) {
  Values mean_allowed(d.channels()), variance_allowed(d.channels());
  for (std::size_t c = 0; c < d.channels(); ++c) {
    const double mean = std::abs(d.statistics.mean[c]), variance = d.statistics.variance[c];
    mean_allowed[c] = kFew * (mean + std::sqrt(variance));
    // A rounding of the mean is an error of the distances from it.
    variance_allowed[c] = kFew * (variance + mean * std::sqrt(variance));
  }
  CHECK(mismatch(f.mean, d.statistics.mean, mean_allowed) == "");
  CHECK(mismatch(f.variance, d.statistics.variance, variance_allowed) == "");
  Values y = oracle::batch_norm(to_double(d.x), to_double(d.gamma), to_double(d.beta));
  if (relu) y = oracle::relu(y);
  CHECK(mismatch(f.y, y, allowed_stored<Real>(allowed_y(d), y), d.channels()) == "");
}

template <typename Real>
void check_backward(const Data& d, const Forward& f, const Backward& b, bool relu) {
  // Through the ReLU as it was: a value near zero may fall on the other side of it in double.
  Values dy = to_double(d.dy);
  for (std::size_t i = 0; relu && i < dy.size(); ++i) dy[i] = f.y[i] > 0 ? dy[i] : 0;
  // The statistics as they were given, which on their own are checked by check_forward.
  const oracle::Statistics given{to_double(f.mean), to_double(f.variance)};
  const oracle::NormGradient g =
      oracle::batch_norm_gradient(to_double(d.x), dy, given, to_double(d.gamma));
  const std::size_t channels = d.channels();
  const double rows = static_cast<double>(dy.size() / channels);
  Values of_beta(channels), of_gamma(channels), of_x(dy.size());
  for (std::size_t i = 0; i < dy.size(); ++i) {
    const std::size_t c = i % channels;
    of_beta[c] += kFew * std::abs(dy[i]);
    of_gamma[c] += kFew * std::abs(dy[i] * (d.x[i] - given.mean[c])) / d.deviation(c);
  }
  for (std::size_t i = 0; i < dy.size(); ++i) {
    const std::size_t c = i % channels;
    const double x = std::abs(d.x[i] - given.mean[c]) / d.deviation(c);
    of_x[i] = std::abs(d.gamma[c]) / d.deviation(c) *
              (kFew * std::abs(dy[i]) + of_beta[c] / rows + x * of_gamma[c] / rows);
  }
  CHECK(mismatch(b.dbeta, g.dbeta, of_beta) == "");
  CHECK(mismatch(b.dgamma, g.dgamma, of_gamma) == "");
  CHECK(mismatch(b.dx, g.dx, allowed_stored<Real>(of_x, g.dx), channels) == "");
}

void check_same(const Forward& a, const Forward& b) {
  CHECK(difference(a.y, b.y) == "");
  CHECK(difference(a.mean, b.mean) == "");
  CHECK(difference(a.variance, b.variance) == "");
  CHECK(difference(a.mask, b.mask) == "");
}

void check_same(const Backward& a, const Backward& b) {
  CHECK(difference(a.dx, b.dx) == "");
  CHECK(difference(a.dgamma, b.dgamma) == "");
  CHECK(difference(a.dbeta, b.dbeta) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("batch norm's training passes, alone and with a ReLU, in place and not", "",
                   float, bf16) {
  Context context(Device::kCuda);
  for (const Case& c : cases()) {
    const Data d(c, TestType{});
    for (const bool relu : {false, true}) {
      INFO(name_of(c) << " relu=" << relu);
      const Forward f = forward<TestType>(c, d, relu, false, context);
      check_forward<TestType>(d, f, relu);
      check_same(forward<TestType>(c, d, relu, true, context), f);
      const Backward b = backward<TestType>(c, d, f, relu, false, context);
      check_backward<TestType>(d, f, b, relu);
      check_same(backward<TestType>(c, d, f, relu, true, context), b);
    }
  }
}

TEMPLATE_TEST_CASE("batch norm with given statistics, in place and not", "", float, bf16) {
  Context context(Device::kCuda);
  for (const Case& c : cases()) {
    Data d(c, TestType{});
    // The statistics as floats, and not those of x.
    for (double& mean : d.statistics.mean) mean = static_cast<float>(mean + 0.5);
    for (double& variance : d.statistics.variance) variance = static_cast<float>(variance + 1);
    for (const bool relu : {false, true}) {
      INFO(name_of(c) << " relu=" << relu);
      const Workspace workspace(
          cuda::batch_norm_inference_workspace(c.shape, kEpsilon, relu, context), context);
      DeviceArray<TestType> x(to_reals<TestType>(d.x)), y(d.x.size());
      DeviceArray<float> gamma(d.gamma), beta(d.beta), mean(to_float(d.statistics.mean)),
          variance(to_float(d.statistics.variance));
      cuda::batch_norm_inference<TestType>(x, gamma, beta, mean, variance, y, c.shape, kEpsilon,
                                           relu, context);
      Values expected =
          oracle::normalise(to_double(d.x), d.statistics, to_double(d.gamma), to_double(d.beta));
      if (relu) expected = oracle::relu(expected);
      const Values allowed = allowed_stored<TestType>(allowed_y(d), expected);
      CHECK(mismatch(to_floats(y.read()), expected, allowed, d.channels()) == "");
      cuda::batch_norm_inference<TestType>(x, gamma, beta, mean, variance, x, c.shape, kEpsilon,
                                           relu, context);
      CHECK(difference(x.read(), y.read(), d.channels()) == "");
    }
  }
}

TEMPLATE_TEST_CASE("a NaN spoils its channel in batch norm, and no other", "", float, bf16) {
  Context context(Device::kCuda);
  for (const int channels : {3, 16}) {
    const Case c{{2, 3, 3, channels}};
    Data d(c, TestType{});
    const Forward clean = forward<TestType>(c, d, true, false, context);
    d.x[static_cast<std::size_t>(channels) * 5 + 1] = kNan;
    const Forward f = forward<TestType>(c, d, true, false, context);
    for (std::size_t i = 0; i < f.y.size(); ++i) {
      INFO(channels << " channels, element " << i);
      if (i % static_cast<std::size_t>(channels) == 1) {
        REQUIRE(std::isnan(f.y[i]));
      } else {
        REQUIRE(f.y[i] == clean.y[i]);
      }
    }
  }
}

/// A thread takes eight tiles at a time, a block has up to 128 rows of threads, and four channels:
/// numbers around these. Some tiles are of no rows.
TEST_CASE("batch norm's partial sums are merged, whatever their number") {
  Context context(Device::kCuda);
  for (const unsigned tiles : {1U, 7U, 8U, 9U, 17U, 65U, 512U, 513U, 1023U, 1024U, 1025U, 2049U}) {
    for (const int channels : {1, 4, 5}) {
      for (const float center : {0.0F, 1000.0F}) {
        INFO(tiles << " tiles, " << channels << " channels, means about " << center);
        const auto width = static_cast<std::size_t>(channels), size = tiles * width;
        std::vector<float> counts, pairs;  // pairs: mean, m2
        const std::vector<float> means = random_floats(size, 1, center),
                                 m2 = random_floats(size, 2);
        for (std::size_t t = 0; t < tiles; ++t) {
          counts.push_back(t % 4 == 1 ? 0.0F : static_cast<float>(1 + t * 37 % 256));
          for (std::size_t i = t * width; i < (t + 1) * width; ++i) {
            pairs.push_back(counts[t] > 0 ? means[i] : 0);
            pairs.push_back(counts[t] * std::abs(m2[i]));
          }
        }
        double rows = 0;
        for (const float count : counts) rows += count;
        Values mean(width), variance(width), mean_allowed(width), variance_allowed(width);
        for (std::size_t i = 0; i < size; ++i) {
          mean[i % width] += double{counts[i / width]} * pairs[2 * i] / rows;
        }
        for (std::size_t i = 0; i < size; ++i) {
          const double distance = pairs[2 * i] - mean[i % width];
          variance[i % width] +=
              (pairs[2 * i + 1] + counts[i / width] * distance * distance) / rows;
        }
        for (std::size_t c = 0; c < width; ++c) {
          const double deviation = std::sqrt(variance[c]);
          mean_allowed[c] = kFew * (std::abs(mean[c]) + deviation);
          variance_allowed[c] = kFew * (variance[c] + std::abs(mean[c]) * deviation);
        }
        std::vector<float> moments = pairs;
        moments.insert(moments.end(), counts.begin(), counts.end());
        REQUIRE(moments.size() * sizeof(float) == cuda::moments_bytes(tiles, channels));
        const DeviceArray<float> partial(moments), got_mean(width), got_variance(width);
        cuda::merge_moments(partial, tiles, channels, got_mean, got_variance, context);
        CHECK(mismatch(got_mean.read(), mean, mean_allowed) == "");
        CHECK(mismatch(got_variance.read(), variance, variance_allowed) == "");

        REQUIRE(pairs.size() * sizeof(float) == cuda::gradient_sums_bytes(tiles, channels));
        Values dbeta(width), dgamma(width), of_beta(width), of_gamma(width);
        const std::vector<float> spread = to_float(variance);
        for (std::size_t i = 0; i < size; ++i) {
          const double r = 1 / std::sqrt(double{spread[i % width]} + kEpsilon);
          dbeta[i % width] += pairs[2 * i];
          dgamma[i % width] += pairs[2 * i + 1] * r;
          of_beta[i % width] += kFew * std::abs(pairs[2 * i]);
          of_gamma[i % width] += kFew * std::abs(pairs[2 * i + 1] * r);
        }
        const DeviceArray<float> sums(pairs), given(spread), got_dgamma(width), got_dbeta(width);
        cuda::merge_gradient_sums(sums, tiles, channels, given, kEpsilon, got_dgamma, got_dbeta,
                                  context);
        CHECK(mismatch(got_dbeta.read(), dbeta, of_beta) == "");
        CHECK(mismatch(got_dgamma.read(), dgamma, of_gamma) == "");
      }
    }
  }
}

/// More than go into one launch.
TEST_CASE("the running statistics of many norms, which a loss that is not finite leaves alone") {
  Context context(Device::kCuda);
  struct Norm {
    explicit Norm(std::size_t channels, unsigned seed)
        : mean(random_floats(channels, seed)),
          variance(random_floats(channels, seed + 1, 9)),
          old_mean(random_floats(channels, seed + 2)),
          old_variance(channels, 2.0F),
          batch_mean(mean),
          batch_variance(variance),
          running_mean(old_mean),
          running_variance(old_variance) {}
    std::vector<float> mean, variance, old_mean, old_variance;
    DeviceArray<float> batch_mean, batch_variance, running_mean, running_variance;
  };
  constexpr std::int64_t kRows = 6;
  std::vector<std::unique_ptr<Norm>> norms;
  std::vector<RunningStatistics> statistics;
  for (unsigned i = 0; i < 67; ++i) {
    const std::size_t channels = std::array{1, 3, 640}[i % 3];
    const Norm& norm = *norms.emplace_back(std::make_unique<Norm>(channels, 3 * i));
    statistics.push_back({norm.batch_mean, norm.batch_variance, norm.running_mean,
                          norm.running_variance, static_cast<int>(channels), kRows + i, 0.1F});
  }
  DeviceArray<Metrics> finite(std::vector<Metrics>{{1, 2, 3, 4, 0}}),
      not_finite(std::vector<Metrics>{{1, 2, 3, 4, 1}});
  cuda::update_running_statistics(statistics, not_finite, context);
  for (const auto& norm : norms) {
    CHECK(difference(norm->running_mean.read(), norm->old_mean) == "");
    CHECK(difference(norm->running_variance.read(), norm->old_variance) == "");
  }
  for (const Metrics* metrics : {finite.data(), static_cast<Metrics*>(nullptr)}) {
    cuda::update_running_statistics(statistics, metrics, context);
    for (std::size_t i = 0; i < norms.size(); ++i) {
      Norm& norm = *norms[i];
      const std::size_t size = norm.mean.size();
      const double rows = static_cast<double>(statistics[i].rows);
      Values mean(size), variance(size), allowed(size);
      for (std::size_t c = 0; c < size; ++c) {
        mean[c] = (1 - 0.1F) * norm.old_mean[c] + double{0.1F} * norm.mean[c];
        variance[c] =
            (1 - 0.1F) * norm.old_variance[c] + double{0.1F} * norm.variance[c] * rows / (rows - 1);
        allowed[c] = 4 * kRounding *
                     (std::abs(norm.old_mean[c]) + std::abs(norm.mean[c]) + norm.old_variance[c] +
                      std::abs(norm.variance[c]));
      }
      CHECK(mismatch(norm.running_mean.read(), mean, allowed) == "");
      CHECK(mismatch(norm.running_variance.read(), variance, allowed) == "");
      norm.running_mean.write(norm.old_mean);
      norm.running_variance.write(norm.old_variance);
    }
  }
}

TEST_CASE("batch norm refuses what has no meaning") {
  Context context(Device::kCuda);
  DeviceArray<float> a(4), b(4);
  const auto run = [&](const ImageShape& shape, float epsilon, bool relu) {
    cuda::batch_norm_forward<float>(a, a, a, b, b, b, nullptr, shape, epsilon, relu, context);
  };
  CHECK_THROWS_AS(run({0, 1, 1, 4}, kEpsilon, false), Error);
  CHECK_THROWS_AS(run({1, 1, 1, 0}, kEpsilon, false), Error);
  CHECK_THROWS_AS(run({1, 1, 1, 4}, 0, false), Error);
  CHECK_THROWS_AS(run({1, 1, 1, 4}, kEpsilon, true), Error);  // no mask
  CHECK_THROWS_AS(
      cuda::update_running_statistics({{a, a, b.data(), b.data(), 4, 1, 0.1F}}, nullptr, context),
      Error);
}
