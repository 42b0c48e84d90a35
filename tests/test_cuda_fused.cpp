// The launchers that fuse batch norm into the convolutions (kernels/fused.h), against the oracle
// and against those that they replace.
#include <bit>
#include <cmath>
#include <set>

#include "catch.h"
#include "compare.h"
#include "device_array.h"
#include "devices.h"
#include "kernels/conv3x3/ladder.h"
#include "kernels/conv3x3/v5_tiles.h"
#include "kernels/fused.h"

using namespace wrn;
using namespace wrn::test;

namespace {

constexpr float kEpsilon = 1e-5F;
constexpr double kFew = 16 * kRounding;
/// Of a convolution's products, as in test_cuda_conv.cpp.
constexpr double kProducts = 1e-5;

/// Channels in whole 16 bytes and not, of every width of tile; sizes that fill no tile, or several;
/// both strides and filters; phases of dgrad that are cut off, or have no taps.
const ConvShape kShapes[] = {
    {2, 7, 5, 16, 24, 3, 1},  {1, 9, 7, 24, 160, 3, 2}, {2, 6, 6, 160, 32, 1, 2},
    {3, 8, 8, 32, 16, 3, 2},  {2, 5, 4, 20, 20, 3, 1},  {1, 6, 5, 160, 160, 1, 1},
    {5, 8, 8, 64, 128, 1, 1}, {2, 9, 9, 128, 64, 1, 2}, {1, 8, 8, 3, 16, 3, 1},
    {2, 16, 32, 3, 16, 3, 1}, {1, 1, 1, 8, 8, 3, 1}};
/// For v5, on one multiprocessor: every width of tile both ways, as one of the tests below says;
/// panels that have columns in part, blocks that reach beyond an image or the batch, several tiles
/// to a block of threads, phases without taps.
const ConvShape kHopperShapes[] = {
    {3, 8, 8, 160, 160, 3, 1},  {2, 8, 8, 192, 192, 1, 1}, {5, 4, 4, 128, 256, 1, 1},
    {1, 8, 8, 256, 16, 1, 1},   {5, 8, 8, 24, 40, 3, 1},   {2, 16, 16, 16, 160, 3, 2},
    {1, 10, 16, 32, 16, 3, 1},  {2, 16, 16, 96, 32, 1, 2}, {1, 3, 128, 8, 16, 3, 1},
    {1, 30, 32, 16, 24, 3, 2},  {1, 8, 8, 64, 64, 3, 1},   {1, 2, 2, 8, 8, 3, 2},
    {9, 16, 16, 16, 128, 1, 2}, {8, 8, 8, 160, 160, 1, 1}, {5, 8, 8, 32, 160, 1, 1}};

/// A convolution that is added to that of shape s, number i of a list: of the same y, or of the
/// same dx. Of both strides in turn, images that a stride of 2 leaves a row of, and 1x1 or 3x3; of
/// more and of fewer channels than s. With `any` not all are for v5: of 20 channels, of odd sides.
ConvShape beside_fprop(const ConvShape& s, std::size_t i, bool any) {
  const int stride = i % 2 == 0 ? 2 : 1, cut = any && stride == 2 && i % 4 == 0 ? 1 : 0;
  const int channels[] = {16, 40, any ? 20 : 24, 160, 8, 96, 32};
  return {s.n, s.p() * stride - cut, s.q() * stride, channels[i % 7],
          s.k, i % 5 == 4 ? 3 : 1,   stride};
}
ConvShape beside_dgrad(const ConvShape& s, std::size_t i, bool any) {
  const int channels[] = {16, 40, any ? 20 : 24, 160, 8, 96, 32};
  return {s.n, s.h, s.w, s.c, channels[i % 7], i % 5 == 4 ? 3 : 1, s.stride};
}
std::string text(const ConvShape& s) {
  return fmt::format("n={} h={} w={} c={} k={} r={} stride={}", s.n, s.h, s.w, s.c, s.k, s.r,
                     s.stride);
}

template <typename Real>
constexpr Precision kPrecision = std::is_same_v<Real, bf16> ? Precision::kBf16 : Precision::kTf32;

/// As the tensor cores take it: bf16 as it is stored, fp32 in the ten bits of tf32.
template <typename Real>
Values operand(const std::vector<float>& values, bool magnitude = false) {
  Values result;
  for (float x : values) {
    if constexpr (std::is_same_v<Real, float>) {
      x = std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + 0x1000U) & ~0x1FFFU);
    }
    result.push_back(magnitude ? std::abs(x) : x);
  }
  return result;
}

template <typename Real>
std::vector<float> random_stored(std::int64_t size, unsigned seed, float mean = 0) {
  return stored<Real>(random_floats(static_cast<std::size_t>(size), seed, mean));
}

void check_statistics(const std::vector<float>& y, const std::vector<float>& mean,
                      const std::vector<float>& variance) {
  const oracle::Statistics s = oracle::statistics(to_double(y), mean.size());
  Values mean_allowed(mean.size()), variance_allowed(mean.size());
  for (std::size_t c = 0; c < mean.size(); ++c) {
    const double center = std::abs(s.mean[c]), deviation = std::sqrt(s.variance[c]);
    mean_allowed[c] = kFew * (center + deviation);
    variance_allowed[c] = kFew * (s.variance[c] + center * deviation);
  }
  CHECK(mismatch(mean, s.mean, mean_allowed) == "");
  CHECK(mismatch(variance, s.variance, variance_allowed) == "");
}

/// The values of a projection: `image` is its x or its dy. Without elements there is none.
struct Added {
  ConvShape shape = {};
  std::vector<float> image = {}, w = {};
};
template <typename Real>
struct AddedOnDevice {
  explicit AddedOnDevice(const Added& added)
      : shape(added.shape), image(to_reals<Real>(added.image)), w(to_reals<Real>(added.w)) {}
  cuda::Projection<Real> launched() const {
    if (shape.n == 0) return {};
    return {image, w, shape};
  }
  ConvShape shape;
  DeviceArray<Real> image, w;
};

struct Fprop {
  std::vector<float> y, mean, variance;
};

/// A residual of no elements is none.
template <typename Real>
Fprop fprop(const ConvShape& s, const std::vector<float>& x, const std::vector<float>& w,
            const Added& added, const std::vector<float>& residual, bool in_place,
            Context& context) {
  const AddedOnDevice<Real> projection(added);
  const Workspace workspace(cuda::conv_fprop_statistics_workspace(s, context), context);
  DeviceArray<Real> images(to_reals<Real>(x)), filters(to_reals<Real>(w)),
      more(to_reals<Real>(residual)), y(in_place ? 0 : static_cast<std::size_t>(s.y_size()));
  const auto k = static_cast<std::size_t>(s.k);
  DeviceArray<float> mean(k), variance(k);
  cuda::conv_fprop_statistics<Real>(images, filters, projection.launched(),
                                    residual.empty() ? nullptr : more.data(), in_place ? more : y,
                                    mean, variance, s, context);
  return {to_floats((in_place ? more : y).read()), mean.read(), variance.read()};
}

void check_same(const Fprop& a, const Fprop& b) {
  CHECK(difference(a.y, b.y) == "");
  CHECK(difference(a.mean, b.mean) == "");
  CHECK(difference(a.variance, b.variance) == "");
}

/// Alone, with a residual, in place too, with a projection, and with both.
template <typename Real>
void check_fprop(const ConvShape& s, const ConvShape& of_added, Context& context) {
  // The residual's mean is large, so that squares would cancel.
  const std::vector<float> x = random_stored<Real>(s.x_size(), 1),
                           w = random_stored<Real>(s.w_size(), 2),
                           residual = random_stored<Real>(s.y_size(), 3, 300);
  const Added projection{of_added, random_stored<Real>(of_added.x_size(), 4),
                         random_stored<Real>(of_added.w_size(), 5)};
  Values own[2], both[2];  // products, and their magnitudes
  for (const bool magnitude : {false, true}) {
    own[magnitude] = oracle::conv(operand<Real>(x, magnitude), operand<Real>(w, magnitude), s);
    both[magnitude] =
        oracle::add(own[magnitude], oracle::conv(operand<Real>(projection.image, magnitude),
                                                 operand<Real>(projection.w, magnitude), of_added));
  }
  for (const auto& [adds, projects] :
       {std::pair(false, false), {true, false}, {false, true}, {true, true}}) {
    INFO(text(s) << " residual=" << adds << " projection=" << projects);
    Values expected = (projects ? both : own)[0], allowed = (projects ? both : own)[1];
    if (adds) expected = oracle::add(std::move(expected), to_double(residual));
    for (std::size_t i = 0; i < allowed.size(); ++i) {
      allowed[i] = kProducts * allowed[i] + (adds ? kFew * std::abs(expected[i]) : 0);
    }
    const std::vector<float> more = adds ? residual : std::vector<float>();
    const Added added = projects ? projection : Added();
    const Fprop got = fprop<Real>(s, x, w, added, more, false, context);
    CHECK(mismatch(got.y, expected, allowed_stored<Real>(allowed, expected),
                   static_cast<std::size_t>(s.k)) == "");
    check_statistics(got.y, got.mean, got.variance);
    if (adds && !projects) check_same(fprop<Real>(s, x, w, added, more, true, context), got);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("fprop with a residual and the statistics of what it stores", "", bf16, float) {
  Context context(Device::kCuda, 0, kPrecision<TestType>);
  context.runtime().device.major = std::min(context.runtime().device.major, 8);
  for (std::size_t i = 0; i < std::size(kShapes); ++i) {
    check_fprop<TestType>(kShapes[i], beside_fprop(kShapes[i], i, true), context);
  }
}

namespace {

struct Activation {
  std::vector<float> y;
  std::vector<std::uint8_t> mask;
};

/// A batch norm of an image, and its statistics, which need not be the image's own.
struct Norm {
  template <typename Real>
  Norm(const ImageShape& s, Real)
      : x(random_stored<Real>(s.size(), 4, 3)),
        gamma(random_floats(static_cast<std::size_t>(s.c), 5, 1)),
        beta(random_floats(gamma.size(), 6)),
        mean(random_floats(gamma.size(), 7, 3)),
        variance(random_floats(gamma.size(), 8, 2)) {
    for (float& value : variance) value = std::abs(value) + 0.5F;
  }
  oracle::Statistics statistics() const { return {to_double(mean), to_double(variance)}; }

  std::vector<float> x, gamma, beta, mean, variance;
};

StepState step_state() {
  StepState state{};
  state.seed = 11;
  state.step = 5;
  return state;
}

template <typename Real>
Activation activation(const ImageShape& s, const Norm& n, float p, bool in_place,
                      Context& context) {
  DeviceArray<Real> x(to_reals<Real>(n.x)), y(in_place ? 0 : n.x.size());
  DeviceArray<float> gamma(n.gamma), beta(n.beta), mean(n.mean), variance(n.variance);
  DeviceArray<std::uint8_t> mask(cuda::batch_norm_mask_bytes(s, context));
  DeviceArray<StepState> state(std::vector<StepState>{step_state()});
  cuda::batch_norm_activation<Real>(x, gamma, beta, mean, variance, in_place ? x : y, mask, s,
                                    kEpsilon, {p, 3, state}, context);
  return {to_floats((in_place ? x : y).read()), mask.read()};
}

bool is_set(const std::vector<std::uint8_t>& mask, std::size_t i, int channels) {
  const auto c = static_cast<std::size_t>(channels);
  return (mask[i / c * ((c + 7) / 8) + i % c / 8] >> (i % c % 8) & 1) != 0;
}

}  // namespace

TEMPLATE_TEST_CASE("an activation is batch norm, ReLU and dropout, and its mask is of both", "",
                   bf16, float) {
  Context context(Device::kCuda);
  for (const ImageShape& s : {ImageShape{2, 7, 5, 16},
                              {3, 4, 4, 24},
                              {2, 3, 3, 160},
                              {1, 8, 8, 32},
                              {2, 3, 5, 20},
                              {2, 3, 5, 3},
                              {5, 16, 16, 8}}) {
    const Norm n(s, TestType{});
    const auto rows = static_cast<std::size_t>(s.n);
    const Values normalised =
        oracle::normalise(to_double(n.x), n.statistics(), to_double(n.gamma), to_double(n.beta));
    const std::vector<float> ones(n.x.size(), 1);
    for (const float p : {0.0F, 0.3F}) {
      INFO(fmt::format("n={} h={} w={} c={} p={}", s.n, s.h, s.w, s.c, p));
      const Activation got = activation<TestType>(s, n, p, false, context);
      const Values kept = oracle::dropout(to_double(ones), rows, double{p}, 3, step_state());
      const Values expected =
          oracle::dropout(oracle::relu(normalised), rows, double{p}, 3, step_state());
      Values allowed(expected.size());
      for (std::size_t i = 0; i < allowed.size(); ++i) {
        const std::size_t c = i % n.gamma.size();
        const double slope = std::abs(n.gamma[c]) / std::sqrt(n.variance[c] + kEpsilon);
        allowed[i] =
            2 * kFew *
            (slope * (std::abs(n.mean[c]) + std::abs(n.x[i] - n.mean[c])) + std::abs(n.beta[c]));
        // The mask may only differ where rounding decides.
        const bool passed = normalised[i] > 0 && kept[i] > 0;
        if (std::abs(normalised[i]) > allowed[i] && is_set(got.mask, i, s.c) != passed) {
          FAIL("the mask of element " << i);
        }
        if (is_set(got.mask, i, s.c) != (got.y[i] > 0)) FAIL("element " << i << " and its mask");
      }
      CHECK(mismatch(got.y, expected, allowed_stored<TestType>(allowed, expected),
                     n.gamma.size()) == "");
      const Activation in_place = activation<TestType>(s, n, p, true, context);
      CHECK(difference(in_place.y, got.y) == "");
      CHECK(difference(in_place.mask, got.mask) == "");
    }
    // The launcher that this one is half of, with the statistics that it computes.
    Norm measured = n;
    DeviceArray<TestType> x(to_reals<TestType>(n.x)), y(n.x.size());
    DeviceArray<float> gamma(n.gamma), beta(n.beta), mean(n.gamma.size()), variance(n.gamma.size());
    DeviceArray<std::uint8_t> mask(cuda::batch_norm_mask_bytes(s, context));
    const Workspace workspace(cuda::batch_norm_forward_workspace(s, kEpsilon, true, context),
                              context);
    cuda::batch_norm_forward<TestType>(x, gamma, beta, y, mean, variance, mask, s, kEpsilon, true,
                                       context);
    measured.mean = mean.read();
    measured.variance = variance.read();
    const Activation half = activation<TestType>(s, measured, 0, false, context);
    CHECK(difference(half.y, to_floats(y.read())) == "");
    CHECK(difference(half.mask, mask.read()) == "");
  }
}

namespace {

struct Dgrad {
  std::vector<float> d, dgamma, dbeta;
};

template <typename Real>
Dgrad dgrad(const ConvShape& s, const Norm& n, const std::vector<float>& dy,
            const std::vector<float>& w, const Added& added,
            const std::vector<std::uint8_t>& mask_bytes, float p, Context& context) {
  const AddedOnDevice<Real> projection(added);
  const Workspace workspace(cuda::conv_dgrad_activation_workspace(s, context), context);
  DeviceArray<Real> gradient(to_reals<Real>(dy)), filters(to_reals<Real>(w)),
      x(to_reals<Real>(n.x)), d(n.x.size());
  DeviceArray<float> mean(n.mean), variance(n.variance), dgamma(n.mean.size()),
      dbeta(n.mean.size());
  DeviceArray<std::uint8_t> mask(mask_bytes);
  cuda::conv_dgrad_activation<Real>(gradient, filters, projection.launched(),
                                    {x, mean, variance, kEpsilon, mask, p}, d, dgamma, dbeta, s,
                                    context);
  return {to_floats(d.read()), dgamma.read(), dbeta.read()};
}

/// dgamma and dbeta are those of the d that was stored.
void check_sums(const Norm& n, const Dgrad& got) {
  const std::size_t channels = n.mean.size();
  Values dgamma(channels), dbeta(channels), of_gamma(channels), of_beta(channels);
  for (std::size_t i = 0; i < got.d.size(); ++i) {
    const std::size_t c = i % channels;
    const double x = (double{n.x[i]} - n.mean[c]) / std::sqrt(double{n.variance[c]} + kEpsilon);
    dbeta[c] += got.d[i];
    dgamma[c] += got.d[i] * x;
    of_beta[c] += kFew * std::abs(got.d[i]);
    of_gamma[c] += kFew * std::abs(got.d[i] * x);
  }
  CHECK(mismatch(got.dbeta, dbeta, of_beta) == "");
  CHECK(mismatch(got.dgamma, dgamma, of_gamma) == "");
}

/// With and without a projection and dropout.
template <typename Real>
void check_dgrad(const ConvShape& s, const ConvShape& of_added, Context& context) {
  const ImageShape image{s.n, s.h, s.w, s.c};
  const Norm n(image, Real{});
  const std::vector<float> dy = random_stored<Real>(s.y_size(), 1),
                           w = random_stored<Real>(s.w_size(), 2);
  const Added projection{of_added, random_stored<Real>(of_added.y_size(), 3),
                         random_stored<Real>(of_added.w_size(), 4)};
  Values own[2], both[2];  // products, and their magnitudes
  for (const bool magnitude : {false, true}) {
    own[magnitude] =
        oracle::conv_dgrad(operand<Real>(dy, magnitude), operand<Real>(w, magnitude), s);
    both[magnitude] = oracle::add(
        own[magnitude], oracle::conv_dgrad(operand<Real>(projection.image, magnitude),
                                           operand<Real>(projection.w, magnitude), of_added));
  }
  for (const bool projects : {false, true}) {
    const auto& [sums, magnitudes] = projects ? both : own;
    for (const float p : {0.0F, 0.25F}) {
      INFO(text(s) << " p=" << p << " projection=" << projects);
      const std::vector<std::uint8_t> mask = activation<Real>(image, n, p, false, context).mask;
      const Dgrad got = dgrad<Real>(s, n, dy, w, projects ? projection : Added(), mask, p, context);
      Values expected(sums.size()), allowed(sums.size());
      for (std::size_t i = 0; i < sums.size(); ++i) {
        if (!is_set(mask, i, s.c)) continue;
        expected[i] = sums[i] / (1 - p);
        allowed[i] = 2 * kProducts * magnitudes[i] + kFew * std::abs(expected[i]);
      }
      CHECK(mismatch(got.d, expected, allowed_stored<Real>(allowed, expected),
                     static_cast<std::size_t>(s.c)) == "");
      check_sums(n, got);
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("dgrad through an activation, and the sums of batch norm's backward pass", "",
                   bf16, float) {
  Context context(Device::kCuda, 0, kPrecision<TestType>);
  context.runtime().device.major = std::min(context.runtime().device.major, 8);
  for (std::size_t i = 0; i < std::size(kShapes); ++i) {
    check_dgrad<TestType>(kShapes[i], beside_dgrad(kShapes[i], i, true), context);
  }
}

/// On one multiprocessor and on four, whose tiles are others.
TEST_CASE("so are v5's fprop and dgrad") {
  for (const int multiprocessors : {1, 4}) {
    for (std::size_t i = 0; i < std::size(kHopperShapes); ++i) {
      const ConvShape& s = kHopperShapes[i];
      INFO(text(s) << " multiprocessors=" << multiprocessors);
      announce("fused " + text(s));
      Context context(Device::kCuda, 0, Precision::kBf16);
      context.runtime().device.multiProcessorCount = multiprocessors;
      if (!cuda::v5::supports(s, context)) {
        WARN("skipped: not compute capability 9.0");
        return;
      }
      check_fprop<bf16>(s, beside_fprop(s, i, false), context);
      check_dgrad<bf16>(s, beside_dgrad(s, i, false), context);
    }
  }
}

/// One multiprocessor's 260 tiles of 16 columns: what stays from one to the next must not become
/// so much that a small variance about a large mean is lost.
TEST_CASE("v5's sums are of many pixels, too") {
  Context context(Device::kCuda, 0, Precision::kBf16);
  context.runtime().device.multiProcessorCount = 1;
  const ConvShape s{260, 16, 16, 8, 8, 1, 1};
  if (!cuda::v5::supports(s, context)) {
    WARN("skipped: not compute capability 9.0");
    return;
  }
  std::vector<float> x = random_floats(static_cast<std::size_t>(s.x_size()), 1), w(64);
  for (float& value : x) value = 1.375F + value / 64;
  for (std::size_t i = 0; i < 8; ++i) w[i * 9] = 1;
  x = stored<bf16>(x);
  const Fprop got = fprop<bf16>(s, x, w, {}, {}, false, context);
  CHECK(difference(got.y, x) == "");
  const oracle::Statistics exact = oracle::statistics(to_double(x), 8);
  Values mean_allowed, variance_allowed;
  for (std::size_t c = 0; c < 8; ++c) {
    mean_allowed.push_back(kFew * exact.mean[c]);
    variance_allowed.push_back(0.002 * exact.variance[c]);  // 4 roundings of a square of the mean
  }
  CHECK(mismatch(got.mean, exact.mean, mean_allowed) == "");
  CHECK(mismatch(got.variance, exact.variance, variance_allowed) == "");
  const ConvShape more_than_stay{67, 16, 16, 8, 8, 1, 1};
  check_dgrad<bf16>(more_than_stay, beside_dgrad(more_than_stay, 0, false), context);
}

TEST_CASE("so are they as they were chosen, v4's or v5's, in tiles of any width") {
  Context context(Device::kCuda, 0, Precision::kBf16);
  const ConvShape s{3, 8, 8, 160, 40, 1, 1};
  if (!cuda::v5::supports(s, context)) {
    WARN("skipped: not compute capability 9.0");
    return;
  }
  const int multiprocessors = context.runtime().target().multiprocessors;
  for (const auto product : {ConvProduct::kFprop, ConvProduct::kDgrad}) {
    for (const cuda::Choice& choice : cuda::candidates(product, s, multiprocessors)) {
      INFO("v" << choice.version << ", " << choice.columns << " columns");
      context.runtime().choices = {&choice, 1};
      const int before = test::launches_of("tensor_core_kernel");
      if (product == ConvProduct::kFprop) check_fprop<bf16>(s, beside_fprop(s, 0, false), context);
      if (product == ConvProduct::kDgrad) check_dgrad<bf16>(s, beside_dgrad(s, 0, false), context);
      if (test::kKnowsLaunches) {
        CHECK((test::launches_of("tensor_core_kernel") > before) == (choice.version == 4));
      }
    }
  }
}

TEST_CASE("what v5 cannot take on a Hopper v4 does, and v5 itself refuses it") {
  Context context(Device::kCuda, 0, Precision::kBf16);
  const ConvShape s{2, 8, 8, 32, 24, 3, 1};
  if (!cuda::v5::supports(s, context)) return;
  check_fprop<bf16>(s, beside_fprop(s, 2, true), context);  // 20 channels
  check_dgrad<bf16>(s, beside_dgrad(s, 2, true), context);
  const DeviceArray<bf16> t(8192);
  const DeviceArray<float> sums(8192);
  const DeviceArray<std::uint8_t> mask(8192);
  const auto fprop = [&](const bf16* projected, const bf16* addend, float* partial) {
    cuda::v5::fprop(t, t, {projected, t, s}, t, s, cuda::WithMoments<bf16>{addend, partial},
                    context);
  };
  const auto dgrad = [&](const bf16* projected, const std::uint8_t* m, const bf16* x,
                         float* partial) {
    cuda::v5::dgrad(t, t, {projected, t, s}, t, s, cuda::ThroughRelu<bf16>{m, 1, x, sums, partial},
                    context);
  };
  CHECK_THROWS_AS(fprop(t, t, nullptr), Error);
  CHECK_THROWS_AS(fprop(t, t + 1, sums), Error);
  CHECK_THROWS_AS(fprop(t + 1, t, sums), Error);
  CHECK_THROWS_AS(dgrad(t, mask, t, nullptr), Error);
  CHECK_THROWS_AS(dgrad(t + 1, mask, t, sums), Error);
  CHECK_THROWS_AS(dgrad(t, mask + 1, t, sums), Error);
  CHECK_THROWS_AS(dgrad(t, mask, t + 1, sums), Error);
}

TEST_CASE("v5's shapes take every width of tile both ways") {
  std::set<int> widths[2];
  for (const ConvShape& s : kHopperShapes) {
    widths[0].insert(cuda::v5::gather_plan(ConvProduct::kFprop, s, {1}).columns);
    widths[1].insert(cuda::v5::gather_plan(ConvProduct::kDgrad, s, {1}).columns);
  }
  std::set<int> all(cuda::v5::kWidths.begin(), cuda::v5::kWidths.end());
  CHECK(widths[0] == all);
  all.erase(256);  // wider than widest_of(kDgrad)
  CHECK(widths[1] == all);
}

TEMPLATE_TEST_CASE("batch norm's dx with what skipped it, in place and not", "", bf16, float) {
  Context context(Device::kCuda);
  for (const ImageShape& s :
       {ImageShape{2, 7, 5, 16}, {3, 4, 4, 24}, {2, 3, 3, 160}, {2, 3, 5, 20}, {2, 3, 5, 3}}) {
    const Norm n(s, TestType{});
    const std::size_t channels = n.mean.size();
    const std::vector<float> d = random_stored<TestType>(s.size(), 1),
                             skip = random_stored<TestType>(s.size(), 2);
    const oracle::NormGradient g = oracle::batch_norm_gradient(to_double(n.x), to_double(d),
                                                               n.statistics(), to_double(n.gamma));
    const double rows = static_cast<double>(s.rows());
    for (const bool skips : {false, true}) {
      INFO(fmt::format("n={} h={} w={} c={} skip={}", s.n, s.h, s.w, s.c, skips));
      Values expected = skips ? oracle::add(g.dx, to_double(skip)) : g.dx, allowed(d.size());
      for (std::size_t i = 0; i < d.size(); ++i) {
        const std::size_t c = i % channels;
        const double r = 1 / std::sqrt(n.variance[c] + kEpsilon);
        const double x = std::abs(n.x[i] - n.mean[c]) * r;
        allowed[i] =
            kFew *
            (std::abs(n.gamma[c]) * r *
                 (std::abs(d[i]) + std::abs(g.dbeta[c]) / rows + x * std::abs(g.dgamma[c]) / rows) +
             (skips ? std::abs(skip[i]) : 0));
      }
      std::vector<float> first;
      for (const int place : {0, 1, 2}) {  // dx on its own, or where d or skip is
        if (place == 2 && !skips) continue;
        DeviceArray<TestType> x(to_reals<TestType>(n.x)), gradient(to_reals<TestType>(d)),
            past(to_reals<TestType>(skip)), dx(d.size());
        DeviceArray<float> gamma(n.gamma), mean(n.mean), variance(n.variance),
            dgamma(to_float(g.dgamma)), dbeta(to_float(g.dbeta));
        const auto& out = place == 0 ? dx : place == 1 ? gradient : past;
        cuda::batch_norm_dx<TestType>(x, gradient, gamma, mean, variance, dgamma, dbeta,
                                      skips ? past.data() : nullptr, out, s, kEpsilon, context);
        const std::vector<float> got = to_floats(out.read());
        if (place == 0) first = got;
        CHECK(mismatch(got, expected, allowed_stored<TestType>(allowed, expected), channels) == "");
        CHECK(difference(got, first) == "");
      }
    }
  }
}

TEST_CASE("the fused launchers refuse what they cannot do") {
  Context tf32(Device::kCuda, 0, Precision::kTf32), fp32(Device::kCuda);
  const ConvShape s{1, 4, 4, 8, 8, 3, 1};
  DeviceArray<float> a(1024), b(1024);
  DeviceArray<std::uint8_t> mask(1024);
  const auto forward = [&](Context& context) {
    cuda::conv_fprop_statistics<float>(a, a, {}, nullptr, b, b, b, s, context);
  };
  const auto backward = [&](float epsilon, float p, Context& context) {
    cuda::conv_dgrad_activation<float>(a, a, {}, {a, a, a, epsilon, mask, p}, b, b, b, s, context);
  };
  const auto activate = [&](std::uint8_t* m, float epsilon, const cuda::Dropout& dropout) {
    cuda::batch_norm_activation<float>(a, a, a, a, a, b, m, {1, 4, 4, 8}, epsilon, dropout, fp32);
  };
  CHECK_THROWS_AS(forward(tf32), Error);  // no workspace
  CHECK_THROWS_AS(backward(kEpsilon, 0, tf32), Error);
  const Workspace of_fp32(1 << 16, fp32), of_tf32(1 << 16, tf32);
  CHECK_THROWS_AS(forward(fp32), Error);
  const DeviceArray<bf16> c(1024);
  CHECK_THROWS_AS(cuda::conv_fprop_statistics<bf16>(c, c, {}, nullptr, c, b, b, s, tf32), Error);
  CHECK_THROWS_AS(backward(kEpsilon, 0, fp32), Error);
  CHECK_THROWS_AS(backward(0, 0, tf32), Error);
  CHECK_THROWS_AS(backward(kEpsilon, 1, tf32), Error);
  // Projections of another y, and of another dx.
  for (const ConvShape& other : {ConvShape{2, 4, 4, 8, 8, 1, 1}, ConvShape{1, 3, 4, 8, 8, 1, 1},
                                 ConvShape{1, 4, 3, 8, 8, 1, 1}, ConvShape{1, 4, 4, 8, 4, 1, 1}}) {
    CHECK_THROWS_AS(
        cuda::conv_fprop_statistics<float>(a, a, {a, a, other}, nullptr, b, b, b, s, tf32), Error);
  }
  for (const ConvShape& other : {ConvShape{2, 4, 4, 8, 8, 1, 1}, ConvShape{1, 3, 4, 8, 8, 1, 1},
                                 ConvShape{1, 4, 3, 8, 8, 1, 1}, ConvShape{1, 4, 4, 4, 8, 1, 1},
                                 ConvShape{1, 4, 4, 8, 8, 1, 2}}) {
    CHECK_THROWS_AS(cuda::conv_dgrad_activation<float>(
                        a, a, {a, a, other}, {a, a, a, kEpsilon, mask, 0}, b, b, b, s, tf32),
                    Error);
  }
  // Tensors that do not begin at a multiple of 16 bytes.
  for (int shifted = 0; shifted < 3; ++shifted) {
    const auto at = [&](int i) { return a.data() + (i == shifted ? 1 : 0); };
    CHECK_THROWS_AS(
        cuda::conv_fprop_statistics<float>(a, a, {at(0), at(1), s}, at(2), b, b, b, s, tf32),
        Error);
    CHECK_THROWS_AS(
        cuda::conv_dgrad_activation<float>(a, a, {at(0), at(1), s},
                                           {at(2), a, a, kEpsilon, mask, 0}, b, b, b, s, tf32),
        Error);
  }
  CHECK_THROWS_AS(activate(nullptr, kEpsilon, {}), Error);
  CHECK_THROWS_AS(activate(mask, 0, {}), Error);
  CHECK_THROWS_AS(activate(mask, kEpsilon, {0.5F, 0, nullptr}), Error);
  CHECK_THROWS_AS(
      cuda::batch_norm_dx<float>(a, a, a, a, a, a, a, nullptr, b, {1, 4, 4, 8}, 0, fp32), Error);
}
