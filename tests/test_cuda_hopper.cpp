// v5 of the convolution: every width of tile, ring position and channel remainder that it has, in
// every direction, against the double-precision oracle; and the same bits with every seed. The
// ladder's test (test_cuda_conv.cpp) holds it to the other versions' shapes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <set>

#include "catch.h"
#include "device_array.h"
#include "devices.h"
#include "kernels/conv3x3/ladder.h"
#include "kernels/conv3x3/v5_tiles.h"
#include "kernels/error.h"
#include "kernels/tensor_map.h"
#include "oracle.h"
#if defined(WRN_EMULATED)
#include "simt/simt.h"
#endif

using namespace wrn;
using oracle::Values;

namespace {

/// Random inputs as bf16, the exact result, and the sum of the products' magnitudes.
struct Problem {
  Problem(ConvProduct product_, const ConvShape& shape_) : product(product_), shape(shape_) {
    const std::int64_t sizes[] = {product == ConvProduct::kDgrad ? shape.y_size() : shape.x_size(),
                                  product == ConvProduct::kWgrad ? shape.y_size() : shape.w_size()};
    std::mt19937 generator(static_cast<unsigned>(shape.macs() + shape.c));
    std::normal_distribution<float> normal;
    Values exact[2], magnitude[2];
    for (int i = 0; i < 2; ++i) {
      for (std::int64_t j = 0; j < sizes[i]; ++j) {
        input[i].push_back(to_bf16(normal(generator)));
        exact[i].push_back(to_float(input[i].back()));
        magnitude[i].push_back(std::abs(exact[i].back()));
      }
    }
    expected = compute(exact);
    magnitudes = compute(magnitude);
  }
  Values compute(const Values (&in)[2]) const {
    if (product == ConvProduct::kFprop) return oracle::conv(in[0], in[1], shape);
    if (product == ConvProduct::kDgrad) return oracle::conv_dgrad(in[0], in[1], shape);
    return oracle::conv_wgrad(in[0], in[1], shape);
  }

  ConvProduct product;
  ConvShape shape;
  std::vector<bf16> input[2];
  Values expected, magnitudes;
};

/// What computes the three directions.
struct Launchers {
  cuda::TypedConvLauncher<bf16, bf16>*fprop, *dgrad;
  cuda::TypedConvLauncher<bf16, float>* wgrad;
  cuda::ConvWorkspace* wgrad_workspace;
};
constexpr Launchers kV5{cuda::v5::fprop, cuda::v5::dgrad, cuda::v5::wgrad,
                        cuda::v5::wgrad_workspace};
constexpr Launchers kProgram{cuda::conv_fprop<bf16>, cuda::conv_dgrad<bf16>, cuda::conv_wgrad<bf16>,
                             cuda::conv_wgrad_workspace};

std::vector<float> run(const Problem& problem, const Launchers& launchers, Context& context) {
  const DeviceArray<bf16> a(problem.input[0]), b(problem.input[1]);
  const std::size_t size = problem.expected.size();
  if (problem.product == ConvProduct::kWgrad) {
    const DeviceArray<float> dw(size);
    const Workspace workspace(launchers.wgrad_workspace(problem.shape, context), context);
    launchers.wgrad(a, b, dw, problem.shape, context);
    return dw.read();
  }
  const DeviceArray<bf16> out(size);
  const bool forward = problem.product == ConvProduct::kFprop;
  (forward ? launchers.fprop : launchers.dgrad)(a, b, out, problem.shape, context);
  std::vector<float> result;
  for (const bf16 value : out.read()) result.push_back(to_float(value));
  return result;
}

/// fp32 sums, in an order and with a rounding that tensor cores choose, and the rounding to bf16.
void check(const std::vector<float>& got, const Problem& problem) {
  const double store = problem.product == ConvProduct::kWgrad ? 0 : 0x1p-8;
  REQUIRE(got.size() == problem.expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double allowed = store * std::abs(problem.expected[i]) + 1e-5 * problem.magnitudes[i];
    if (std::isfinite(got[i]) && std::abs(got[i] - problem.expected[i]) <= allowed) continue;
    FAIL("first bad " << i << ": " << got[i] << " instead of " << problem.expected[i]);
  }
}

/// n, h, w, c, k, r, stride: on one multiprocessor, every width of tile in every direction;
/// channels of every box, with and without a rest; images of every cut (several blocks an image,
/// one, small ones together, wider than 64, a last block that reaches beyond); ragged batches;
/// several tiles in a block of threads; phases of dgrad without taps; tall chunks of wgrad, of an
/// odd number of threes and an even one, in images of several blocks, one, and one that reaches
/// beyond.
const ConvShape kShapes[] = {
    {1, 8, 8, 64, 64, 3, 1},    {3, 8, 8, 160, 160, 3, 1},  {2, 8, 8, 192, 192, 1, 1},
    {1, 16, 16, 192, 32, 3, 2}, {5, 4, 4, 128, 256, 1, 1},  {1, 8, 8, 256, 16, 3, 1},
    {1, 8, 8, 16, 256, 3, 1},   {1, 32, 32, 16, 16, 3, 1},  {2, 16, 16, 16, 160, 3, 2},
    {5, 8, 8, 24, 40, 3, 1},    {3, 8, 8, 32, 96, 3, 1},    {1, 10, 16, 32, 16, 3, 1},
    {2, 16, 16, 96, 32, 1, 2},  {1, 3, 128, 8, 16, 3, 1},   {1, 30, 32, 16, 24, 3, 2},
    {1, 2, 64, 40, 8, 3, 2},    {9, 16, 16, 16, 24, 3, 1},  {1, 2, 2, 8, 8, 3, 2},
    {1, 32, 32, 64, 40, 3, 1},  {2, 16, 16, 128, 96, 3, 1}, {3, 8, 8, 64, 128, 3, 1},
    {1, 10, 16, 64, 64, 3, 1},  {1, 3, 64, 64, 48, 3, 1}};

/// The result with one seed, which only the emulation has, as a device of so many multiprocessors
/// has it: one does all tiles in one block, and its tiles are the widest that save any work.
std::vector<float> run_with(const Problem& problem, [[maybe_unused]] unsigned seed,
                            int multiprocessors) {
#if defined(WRN_EMULATED)
  cuda::simt::set_seed(seed);
#endif
  Context context(Device::kCuda);
  context.runtime().device.multiProcessorCount = multiprocessors;
  return run(problem, kV5, context);
}

bool device_is_hopper() {
  Context context(Device::kCuda);
  const cudaDeviceProp& device = context.runtime().device;
  return device.major == 9 && device.minor == 0 && !cuda::without("hopper");
}

void check_all(ConvProduct product) {
  if (!device_is_hopper()) {
    WARN("skipped: not compute capability 9.0");
    return;
  }
  REQUIRE(cuda::v5::supports(kShapes[0], *std::make_unique<Context>(Device::kCuda)));
  for (const ConvShape& s : kShapes) {
    const std::string what = fmt::format("{} n={} h={} w={} c={} k={} r={} stride={}",
                                         name_of(product), s.n, s.h, s.w, s.c, s.k, s.r, s.stride);
    INFO(what);
    test::announce(what);
    const Problem problem(product, s);
    const std::vector<float> first = run_with(problem, 1, 1);
    check(first, problem);
    for (const unsigned seed : {5, 6}) {  // the other poisons and moments of effects
      const std::vector<float> again = run_with(problem, seed, 1);
      REQUIRE(std::memcmp(again.data(), first.data(), first.size() * sizeof(float)) == 0);
    }
    check(run_with(problem, 3, 4), problem);
  }
}

}  // namespace

TEST_CASE("v5's fprop is right, and the same with every seed") { check_all(ConvProduct::kFprop); }
TEST_CASE("v5's dgrad is right, and the same with every seed") { check_all(ConvProduct::kDgrad); }
TEST_CASE("v5's wgrad is right, and the same with every seed") { check_all(ConvProduct::kWgrad); }

TEST_CASE("the program computes a convolution as was chosen, v4's or v5's, in any tiles") {
  if (!device_is_hopper()) {
    WARN("skipped: not compute capability 9.0");
    return;
  }
  Context context(Device::kCuda, 0, Precision::kBf16);
  const int multiprocessors = context.runtime().target().multiprocessors;
  for (const ConvShape& s : {ConvShape{5, 8, 8, 160, 64, 1, 1}, {3, 16, 16, 24, 40, 3, 2}}) {
    for (const auto product : {ConvProduct::kFprop, ConvProduct::kDgrad, ConvProduct::kWgrad}) {
      const Problem problem(product, s);
      const std::vector<cuda::Choice> all = cuda::candidates(product, s, multiprocessors);
      REQUIRE(all.size() > 3);
      for (const cuda::Choice& choice : all) {
        INFO(name_of(product) << " c=" << s.c << ": v" << choice.version << ", " << choice.columns
                              << " columns, " << choice.parts << " parts");
        context.runtime().choices = {&choice, 1};
        const int before = test::launches_of("tensor_core_kernel");
        check(run(problem, kProgram, context), problem);
        if (test::kKnowsLaunches)
          CHECK(test::launches_of("tensor_core_kernel") - before == (choice.version == 4));
      }
      const cuda::Choice impossible{product, s, 5, 96, 1};
      context.runtime().choices = {&impossible, 1};
      CHECK_THROWS_AS(run(problem, kProgram, context), Error);
    }
  }
}

TEST_CASE("where no tap sees an image, dgrad is 0, whatever dy is") {
  if (!device_is_hopper()) return;
  const ConvShape s{1, 16, 16, 16, 16, 1, 2};
  Problem problem(ConvProduct::kDgrad, s);
  for (bf16& dy : problem.input[0]) dy = to_bf16(INFINITY);
  const std::vector<float> dx = run_with(problem, 1, 1);
  for (std::size_t i = 0; i < dx.size(); ++i) {
    const std::size_t pixel = i / 16, row = pixel / 16, column = pixel % 16;
    const bool seen = row % 2 == 0 && column % 2 == 0;
    if (!seen && dx[i] != 0) FAIL("element " << i << " is " << dx[i]);
  }
}

TEST_CASE("v5 refuses what it cannot do") {
  Context context(Device::kCuda);
  const DeviceArray<bf16> tensor(4096);
  const auto refused = [&](const ConvShape& s, std::size_t shift = 0) {
    CHECK_THROWS_AS(cuda::v5::fprop(tensor + shift, tensor, tensor, s, context), Error);
    CHECK_THROWS_AS(cuda::v5::dgrad(tensor + shift, tensor, tensor, s, context), Error);
    DeviceArray<float> dw(4096);
    CHECK_THROWS_AS(cuda::v5::wgrad(tensor + shift, tensor, dw, s, context), Error);
  };
  refused({1, 8, 8, 12, 8, 3, 1});
  refused({1, 8, 8, 8, 20, 3, 1});
  refused({1, 7, 5, 8, 8, 3, 1});   // 5 does not divide 64
  refused({1, 3, 16, 8, 8, 3, 1});  // 3 rows of 16 are no part of 64 pixels
  refused({1, 15, 16, 8, 8, 3, 2});
  refused({1, 16, 15, 8, 8, 3, 2});
  refused({1, 8, 8, 8, 8, 5, 1});
  refused({1, 8, 8, 8, 8, 3, 1}, 4);
  CHECK_FALSE(cuda::v5::supports({1, 7, 5, 8, 8, 3, 1}, context));
}

TEST_CASE("the shapes take every width of tile in every direction") {
  std::set<int> widths[3];
  for (const ConvShape& s : kShapes) {
    widths[0].insert(cuda::v5::gather_plan(ConvProduct::kFprop, s, {1}).columns);
    widths[1].insert(cuda::v5::gather_plan(ConvProduct::kDgrad, s, {1}).columns);
    widths[2].insert(cuda::v5::wgrad_plan(s, {1}).columns);
  }
  std::set<int> all(cuda::v5::kWidths.begin(), cuda::v5::kWidths.end());
  CHECK(widths[0] == all);
  CHECK(widths[2] == all);
  all.erase(256);  // wider than widest_of(kDgrad)
  CHECK(widths[1] == all);
}

TEST_CASE("v5 names the GPU that it is not for") {
  Context context(Device::kCuda);
  context.runtime().device.major = 8;
  const DeviceArray<bf16> tensor(4096);
  const ConvShape shape{1, 8, 8, 8, 8, 3, 1};
  std::string message;
  try {
    cuda::v5::fprop(tensor, tensor, tensor, shape, context);
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(message.starts_with("v5 of the convolutions is for compute capability 9.0, and the "));
  CHECK(message.find(" has 8.") != std::string::npos);
  CHECK_FALSE(cuda::v5::supports(shape, context));
}

TEST_CASE("a tensor map that the driver refuses is an error that names it") {
  if (!device_is_hopper()) return;  // whose drivers alone know maps
  const DeviceArray<bf16> tensor(4096);
  CUtensorMap map;
  std::string message;
  try {
    cuda::make_tensor_map(map, tensor, {{64, 2, 64}, {64, 120, 64}});
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(message.starts_with("cuTensorMapEncodeTiled: error 1 for 0x"));
  CHECK_THROWS_AS(cuda::make_tensor_map(map, tensor, {{64, 2, 48}, {64, 128, 64}}), Error);
}
