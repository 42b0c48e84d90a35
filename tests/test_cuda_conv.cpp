// Every version of the convolution, in every direction, against the double-precision oracle, on a
// pairwise cover of batches, channels, sizes, filters and strides. With WRN_FULL=1 in the
// environment, on all combinations (hours in the emulation, minutes on a GPU).
#include <bit>
#include <cmath>
#include <cstdlib>
#include <random>

#include "catch.h"
#include "conv_cases.h"
#include "device_array.h"
#include "kernels/divisor.h"
#include "kernels/error.h"
#include "oracle.h"
#if defined(WRN_EMULATED)
#include "simt/simt.h"
#endif

using namespace wrn;
using oracle::Values;

namespace {

using Direction = ConvDirection;
const Direction &kFprop = kConvDirections[0], &kDgrad = kConvDirections[1],
                &kWgrad = kConvDirections[2];

Values compute(const Direction& direction, const Values& a, const Values& b, const ConvShape& s) {
  if (&direction == &kFprop) return oracle::conv(a, b, s);
  if (&direction == &kDgrad) return oracle::conv_dgrad(a, b, s);
  return oracle::conv_wgrad(a, b, s);
}

/// Those of the program, as if they were three more versions.
struct Production {
  Precision precision;
  cuda::ConvVersion version;
};
constexpr Production kProduction[] = {
    {Precision::kFp32,
     cuda::conv_version<float, cuda::conv_fprop, cuda::conv_dgrad, cuda::conv_wgrad>(
         "production, fp32", cuda::ConvInputs::kFp32, cuda::conv_wgrad_workspace)},
    {Precision::kTf32,
     cuda::conv_version<float, cuda::conv_fprop, cuda::conv_dgrad, cuda::conv_wgrad>(
         "production, tf32", cuda::ConvInputs::kTf32, cuda::conv_wgrad_workspace)},
    {Precision::kBf16,
     cuda::conv_version<bf16, cuda::conv_fprop, cuda::conv_dgrad, cuda::conv_wgrad>(
         "production, bf16", cuda::ConvInputs::kBf16, cuda::conv_wgrad_workspace)}};

std::string text(const ConvShape& s) {
  return fmt::format("n={} h={} w={} c={} k={} r={} stride={}", s.n, s.h, s.w, s.c, s.k, s.r,
                     s.stride);
}

/// To bf16, or to the ten bits of tf32, of two nearest the one further from zero.
float rounded(float x, cuda::ConvInputs inputs) {
  if (inputs == cuda::ConvInputs::kFp32) return x;
  if (inputs == cuda::ConvInputs::kBf16) return to_float(to_bf16(x));
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + 0x1000U) & ~0x1FFFU);
}

/// A direction's inputs, its output in double precision, and the sum of the products' magnitudes:
/// the latter two of inputs as a version rounds them.
struct Problem {
  Problem(const Direction& direction_, const ConvShape& shape_, cuda::ConvInputs inputs_)
      : direction(direction_), shape(shape_), inputs(inputs_) {
    std::mt19937 generator(static_cast<unsigned>(shape.macs() + shape.c));
    std::normal_distribution<float> normal;
    Values exact[2], magnitude[2];
    for (int i = 0; i < 2; ++i) {
      input[i].resize(size(i));
      for (float& value : input[i]) value = normal(generator);
      for (const float value : input[i]) {
        exact[i].push_back(rounded(value, inputs));
        magnitude[i].push_back(std::abs(exact[i].back()));
      }
    }
    expected = compute(direction, exact[0], exact[1], shape);
    magnitudes = compute(direction, magnitude[0], magnitude[1], shape);
  }
  std::size_t size(int i) const { return static_cast<std::size_t>((shape.*direction.sizes[i])()); }

  const Direction& direction;
  ConvShape shape;
  cuda::ConvInputs inputs;
  std::vector<float> input[2];
  Values expected, magnitudes;
};

/// The direction's output.
std::vector<float> run(const cuda::ConvVersion& version, const Problem& problem, Context& context) {
  using Memory = DeviceArray<std::byte>;
  const auto input = [&](int i) {
    return to_elements(problem.input[i], holds_bf16(version, problem.direction, i));
  };
  const bool rounded = holds_bf16(version, problem.direction, 2);
  const Memory a(input(0)), b(input(1));
  const Memory out(problem.expected.size() * (rounded ? sizeof(bf16) : sizeof(float)));
  const Memory workspace(
      &problem.direction == &kWgrad ? version.wgrad_workspace(problem.shape, context) : 0);
  context.workspace = workspace.data();
  (version.*problem.direction.launch)(a, b, out, problem.shape, context);
  context.workspace = nullptr;
  return from_elements(out.read(), rounded);
}

/// Where element i of the output is, by its four coordinates.
std::string position(const Problem& problem, std::size_t i) {
  const ConvShape& s = problem.shape;
  const bool fprop = &problem.direction == &kFprop;
  const bool wgrad = &problem.direction == &kWgrad;
  const auto last = static_cast<std::size_t>(fprop ? s.k : s.c);
  const auto third = static_cast<std::size_t>(fprop ? s.q() : wgrad ? s.r : s.w);
  const auto second = static_cast<std::size_t>(fprop ? s.p() : wgrad ? s.r : s.h);
  return fmt::format("{} = ({},{},{},{})",
                     fprop   ? "(n,p,q,k)"
                     : wgrad ? "(k,r,s,c)"
                             : "(n,h,w,c)",
                     i / last / third / second, i / last / third % second, i / last % third,
                     i % last);
}

/// An fp32 sum of products is off by at most a few roundings of its largest partial sum, which is
/// far below 1e-6 of the products' magnitudes; tensor cores, which cut off what they do not add,
/// are allowed 1e-5. A product too many or too few is far above. What is stored as bf16 is rounded
/// to 8 bits.
double allowed(const cuda::ConvVersion& version, const Problem& problem, std::size_t i) {
  const double sum = version.inputs == cuda::ConvInputs::kFp32 ? 1e-6 : 1e-5;
  const double store = holds_bf16(version, problem.direction, 2) ? 0x1p-8 : 0;
  return store * std::abs(problem.expected[i]) + sum * problem.magnitudes[i];
}

void check(const cuda::ConvVersion& version, const std::vector<float>& got,
           const Problem& problem) {
  REQUIRE(got.size() == problem.expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - problem.expected[i]);
    if (std::isfinite(got[i]) && error <= allowed(version, problem, i)) continue;
    FAIL("first bad " << position(problem, i) << ": " << got[i] << " instead of "
                      << problem.expected[i]);
  }
}

/// Small, with every way of the main loops: odd sizes, channels in whole 16 bytes and not, every
/// width of tile in every direction, several tiles, several parts of wgrad, phases of dgrad without
/// taps.
const ConvShape kSmall[] = {
    {2, 7, 5, 20, 36, 3, 2},   {1, 5, 7, 3, 16, 3, 1},   {3, 9, 6, 6, 10, 3, 2},
    {1, 8, 8, 16, 72, 1, 2},   {8, 16, 12, 4, 8, 3, 1},  {1, 1, 1, 4, 4, 3, 2},
    {1, 6, 6, 8, 128, 3, 1},   {1, 6, 5, 72, 20, 3, 1},  {2, 5, 4, 36, 20, 1, 1},
    {1, 5, 3, 24, 160, 3, 2},  {1, 3, 2, 160, 24, 3, 1}, {6, 16, 12, 8, 8, 3, 1},
    {1, 5, 4, 128, 160, 1, 2}, {1, 3, 3, 32, 8, 3, 2},   {2, 8, 16, 3, 16, 3, 1},
    {2, 7, 5, 24, 40, 3, 2}};

/// ThreadSanitizer takes a minute for what else takes a second, so it gets the small shapes: where
/// threads race depends on a kernel's tile, not on the image.
#if defined(__SANITIZE_THREAD__)
constexpr bool kOnlySmall = true;
#else
constexpr bool kOnlySmall = false;
#endif

/// Of a case of the pairwise cover. The factors of tensor cores have about twice as many pairs, so
/// they meet in smaller cases.
constexpr std::int64_t most_macs(cuda::ConvInputs inputs) {
  return inputs == cuda::ConvInputs::kFp32 ? 4'000'000 : 1'000'000;
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && std::string(value) != "0";
}

/// WRN_FULL: the whole product of the factors, for hours. WRN_SMALL: a few, for slow tools.
std::vector<ConvShape> cases(cuda::ConvInputs inputs) {
  if (kOnlySmall || is_set("WRN_SMALL")) return {std::begin(kSmall), std::end(kSmall)};
  const ConvFactors factors = conv_factors(inputs);
  std::vector<ConvShape> shapes;
  for (const ConvLevels& levels :
       is_set("WRN_FULL") ? conv_product(factors) : conv_pairwise(factors, most_macs(inputs))) {
    shapes.push_back(conv_shape(levels));
  }
  return shapes;
}

constexpr cuda::ConvInputs kAllInputs[] = {cuda::ConvInputs::kFp32, cuda::ConvInputs::kTf32,
                                           cuda::ConvInputs::kBf16};

/// A problem, and each version that rounds its inputs so and takes its shape.
template <typename F>
void for_each_version(const Direction& direction, const ConvShape& shape, cuda::ConvInputs inputs,
                      Context& context, F f) {
  const Problem problem(direction, shape, inputs);
  for (const cuda::ConvVersion& version : cuda::kConvLadder) {
    if (version.inputs != inputs || !version.supports(shape, context)) continue;
    INFO(version.name << " " << direction.name << " " << text(shape));
    f(version, problem);
  }
}

void check_ladder(const Direction& direction) {
  Context context(Device::kCuda);
  for (const cuda::ConvInputs inputs : kAllInputs) {
    for (const ConvShape& shape : cases(inputs)) {
      const auto right = [&](const auto& version, const Problem& problem) {
        check(version, run(version, problem, context), problem);
      };
      for_each_version(direction, shape, inputs, context, right);
    }
  }
}

/// The same bits in any order of threads and blocks, with each poison, and with asynchronous work
/// done at once, late and in between: the result.
std::vector<float> run_with_seeds(const cuda::ConvVersion& version, const Problem& problem,
                                  Context& context) {
  std::vector<float> first;
  for (const unsigned seed : {0, 4, 8}) {
#if defined(WRN_EMULATED)
    cuda::simt::set_seed(seed);
#endif
    const std::vector<float> result = run(version, problem, context);
    if (seed == 0) first = result;
    REQUIRE(std::memcmp(result.data(), first.data(), result.size() * sizeof(float)) == 0);
  }
  return first;
}

}  // namespace

TEST_CASE("every version of fprop is right") { check_ladder(kFprop); }
TEST_CASE("every version of dgrad is right") { check_ladder(kDgrad); }
TEST_CASE("every version of wgrad is right") { check_ladder(kWgrad); }

TEST_CASE("the program's convolutions are right, in every precision") {
  for (const auto& [precision, version] : kProduction) {
    Context context(Device::kCuda, 0, precision);
    for (const Direction& direction : kConvDirections) {
      for (const ConvShape& shape : kSmall) {
        INFO(version.name << " " << direction.name << " " << text(shape));
        const Problem problem(direction, shape, version.inputs);
        check(version, run(version, problem, context), problem);
      }
    }
  }
}

TEST_CASE("convolutions give the same bits in any order of threads and blocks") {
  Context context(Device::kCuda);
  const auto repeated = [&](const auto& version, const Problem& problem) {
    run_with_seeds(version, problem, context);
  };
  for (const Direction& direction : kConvDirections) {
    for (const ConvShape& shape : kSmall) {
      for (const cuda::ConvInputs inputs : kAllInputs) {
        for_each_version(direction, shape, inputs, context, repeated);
      }
    }
  }
}

/// One band, many, and more of them than wgrad has blocks; few columns and the most.
TEST_CASE("the first layer's convolution is right, and the same bits in any order") {
  const auto& [precision, version] = kProduction[2];
  Context context(Device::kCuda, 0, precision);
  for (const ConvShape& shape : {ConvShape{1, 8, 16, 3, 16, 3, 1},
                                 {2, 24, 48, 5, 16, 3, 1},
                                 {1, 8, 64, 7, 16, 3, 1},
                                 {3, 32, 32, 3, 16, 3, 1},
                                 {11, 8, 16, 1, 16, 3, 1}}) {
    REQUIRE(cuda::first_layer::takes(shape));
    for (const Direction* direction : {&kFprop, &kWgrad}) {
      INFO(direction->name << " " << text(shape));
      const Problem problem(*direction, shape, version.inputs);
      check(version, run_with_seeds(version, problem, context), problem);
    }
  }
}

TEST_CASE("the first layer's convolution refuses what is none") {
  Context context(Device::kCuda, 0, Precision::kBf16);
  const DeviceArray<bf16> image(8 * 16 * 16), filters(16 * 9 * 8);
  const DeviceArray<float> dw(16 * 9 * 8);
  namespace first_layer = cuda::first_layer;
  const ConvShape good{1, 8, 16, 3, 16, 3, 1};
  CHECK(first_layer::takes(good));
  for (const ConvShape& bad : {ConvShape{1, 8, 16, 8, 16, 3, 1},
                               {1, 8, 16, 3, 8, 3, 1},
                               {1, 8, 16, 3, 16, 1, 1},
                               {1, 8, 16, 3, 16, 3, 2},
                               {1, 4, 16, 3, 16, 3, 1},
                               {1, 8, 8, 3, 16, 3, 1},
                               {1, 8, 80, 3, 16, 3, 1}}) {
    INFO(text(bad));
    CHECK_FALSE(first_layer::takes(bad));
    CHECK_THROWS_AS(first_layer::fprop(image, filters, image, bad, context), Error);
    CHECK_THROWS_AS(first_layer::wgrad(image, image, dw, bad, context), Error);
  }
  CHECK_THROWS_AS(first_layer::fprop(image, filters, image.data() + 4, good, context), Error);
  CHECK_THROWS_AS(first_layer::wgrad(image, image, dw, good, context), Error);  // no workspace
  const cuda::WithMoments<bf16> without{nullptr, nullptr};
  CHECK_THROWS_AS(first_layer::fprop(image, filters, image, good, without, context), Error);
  const cuda::WithMoments<bf16> added{image, dw};
  CHECK_THROWS_AS(first_layer::fprop(image, filters, image, good, added, context), Error);
}

TEST_CASE("convolutions refuse what they cannot do") {
  Context context(Device::kCuda);
  const DeviceArray<float> tensor(64);
  for (const cuda::ConvVersion& version : cuda::kConvLadder) {
    INFO(version.name);
    const auto launch = [&](const Direction& direction, const ConvShape& shape) {
      (version.*direction.launch)(tensor.data(), tensor.data(), tensor.data(), shape, context);
    };
    for (const Direction& direction : kConvDirections) {
      INFO(direction.name);
      CHECK_THROWS_AS(launch(direction, {1, 4, 4, 1, 1, 5, 1}), Error);
      CHECK_THROWS_AS(launch(direction, {1, 4, 4, 1, 1, 3, 3}), Error);
      CHECK_THROWS_AS(launch(direction, {0, 4, 4, 1, 1, 3, 1}), Error);
      CHECK_THROWS_AS(launch(direction, {1, 4, 4, 0, 1, 3, 1}), Error);
      CHECK_THROWS_AS(launch(direction, {1 << 22, 32, 32, 1, 1, 3, 1}), Error);
      CHECK_THROWS_AS(launch(direction, {1, 1024, 1024, 2048, 1, 3, 1}), Error);
      if (&version == cuda::kConvLadder) continue;  // v0 does not mind
      for (int shifted = 0; shifted < 3; ++shifted) {
        INFO("tensor " << shifted << " is not aligned");
        const ConvShape good{1, 2, 2, 8, 8, 1, 1};
        const auto at = [&](int i) { return tensor.data() + (i == shifted ? 1 : 0); };
        const Workspace workspace(4096, context);
        CHECK_THROWS_AS((version.*direction.launch)(at(0), at(1), at(2), good, context), Error);
      }
    }
    if (version.wgrad_workspace({1, 4, 4, 1, 1, 3, 1}, context) > 0) {
      CHECK_THROWS_AS(launch(kWgrad, {1, 4, 4, 1, 1, 3, 1}), Error);
    }
  }
}

TEST_CASE("a Divisor divides") {
  std::mt19937 generator(1);
  for (int i = 0; i < 100000; ++i) {
    // All magnitudes alike, and the neighbours of multiples, where a rounding would show.
    const int d = std::max(1, static_cast<int>(generator() >> 1 >> generator() % 31));
    const Divisor divisor(d);
    const std::int64_t x = static_cast<int>(generator() >> 1 >> generator() % 31);
    for (const std::int64_t near : {x, x / d * d - 1, x / d * d, x / d * d + d - 1, 0x7FFFFFFFL}) {
      if (near < 0 || near > 0x7FFFFFFF) continue;
      if (divisor.divide(static_cast<int>(near)) != near / d) FAIL(near << " / " << d);
    }
  }
}
