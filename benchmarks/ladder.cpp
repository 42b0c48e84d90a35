// bench_ladder: every version of the convolution on every convolution of a WRN, on the GPU.
//
// A time is that of the replay of a CUDA graph of many launches, divided by their number, so that
// launching costs nothing: as cudnn_ladder.py times cuDNN. The launches take turns over copies of
// the tensors that together exceed the L2 cache twice. The data are random, of numbers that bf16
// has, too, so that all versions multiply the same. After timing, the output is compared with v0's;
// one that is wrong is said to be, and the others go on.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <deque>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "apps/history.h"
#include "apps/options.h"
#include "benchmarks/stopwatch.h"
#include "kernels/error.h"
#include "kernels/graph.h"
#include "kernels/runtime.h"
#include "tests/conv_cases.h"
#include "tests/device_array.h"

namespace {

using namespace wrn;
using Memory = DeviceArray<std::byte>;

std::vector<float> random_values(std::size_t size, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(size);
  for (float& value : values) {
    value = to_float(to_bf16(static_cast<float>(generator()) * 0x1p-31F - 1));
  }
  return values;
}

/// A direction's three tensors, as a version holds them, in as many copies as it takes to leave
/// none of them in the L2.
struct Tensors {
  struct Copy {
    Copy(const std::vector<std::byte>& a, const std::vector<std::byte>& b, std::size_t size)
        : in0(a), in1(b), out(size) {}
    Memory in0, in1, out;
  };
  Tensors(const cuda::ConvVersion& version, const ConvDirection& direction, const ConvShape& shape,
          Context& context) {
    std::vector<std::byte> tensor[3];
    std::size_t total = 0;
    for (int i = 0; i < 3; ++i) {
      const auto size = static_cast<std::size_t>((shape.*direction.sizes[i])());
      tensor[i] = to_elements(i < 2 ? random_values(size, i + 1) : std::vector<float>(size),
                              holds_bf16(version, direction, i));
      total += tensor[i].size();
    }
    const auto cache = static_cast<std::size_t>(context.runtime().device.l2CacheSize);
    const std::size_t count = std::clamp<std::size_t>(2 * cache / total + 1, 2, 64);
    while (copies.size() < count) copies.emplace_back(tensor[0], tensor[1], tensor[2].size());
  }
  std::deque<Copy> copies;
};

/// Microseconds of a launch, by `launch(i)` for i = 0, 1, ...
template <typename F>
double median_time(F launch, double seconds, Stopwatch& watch, Context& context) {
  const auto timed = [&](int launches, int replays) {
    const cuda::Graph graph(
        [&] {
          for (int i = 0; i < launches; ++i) launch(i);
        },
        context);
    watch.mark();
    for (int i = 0; i < replays; ++i) {
      graph.launch(context);
      watch.mark();
    }
    return 1e6 * median(watch.laps()) / launches;
  };
  launch(0);  // loads the kernel
  const double rough = std::max(timed(2, 1), 1.0);
  const int replays = seconds > 0 ? 10 : 1;
  return timed(static_cast<int>(std::clamp(1e6 * seconds / replays / rough, 2.0, 200.0)), replays);
}

/// As the tests: off by at most 1e-6 of the products' magnitudes, 1/4 each on average; 1e-5 on
/// tensor cores, and by the rounding of what is stored as bf16. Says what is wrong, or nothing.
std::string compare(const std::vector<float>& got, const std::vector<float>& expected, double depth,
                    const cuda::ConvVersion& version, bool stored_as_bf16) {
  const double sum = version.inputs == cuda::ConvInputs::kFp32 ? 1e-6 : 1e-5;
  const double store = stored_as_bf16 ? 0x1p-8 : 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double{got[i]} - expected[i]);
    if (!(std::isfinite(got[i]) && error <= sum * depth / 4 + store * std::abs(expected[i]))) {
      return fmt::format("element {} is {}, of v0 {}", i, got[i], expected[i]);
    }
  }
  return "";
}

struct Options {
  int batch = 128, widen = 10;
  double seconds = 0.2;
  std::string only, json;
};

void run_shape(const NamedConv& conv, const Options& options, Context& context, Stopwatch& watch,
               nlohmann::json& records) {
  const ConvShape& s = conv.shape;
  const double flop = 2 * static_cast<double>(s.macs());
  for (const ConvDirection& direction : kConvDirections) {
    const bool wgrad = direction.launch == &cuda::ConvVersion::wgrad;
    std::vector<float> expected;
    for (const cuda::ConvVersion& version : cuda::kConvLadder) {
      const bool first = &version == cuda::kConvLadder;
      if (!first && std::string(version.name).find(options.only) == std::string::npos) continue;
      if (!version.supports(s, context)) continue;
      const Tensors tensors(version, direction, s, context);
      const Memory workspace(wgrad ? version.wgrad_workspace(s, context) : 0);
      context.workspace = workspace.data();
      const auto launch = [&](int i) {
        const auto& copy = tensors.copies[i % tensors.copies.size()];
        (version.*direction.launch)(copy.in0.data(), copy.in1.data(), copy.out.data(), s, context);
      };
      const double time = median_time(launch, options.seconds, watch, context);
      const bool bf16_output = holds_bf16(version, direction, 2);
      const std::vector<float> output = from_elements(tensors.copies[0].out.read(), bf16_output);
      if (first) expected = output;
      const std::string wrong = compare(
          output, expected, flop / 2 / static_cast<double>(output.size()), version, bf16_output);
      fmt::print("{:22} {:5} {:16} {:>10.1f} us {:>7.2f} TFLOP/s{}{}\n", version.name,
                 direction.name, conv.name, time, flop / time * 1e-6,
                 wrong.empty() ? "" : " WRONG: ", wrong);
      records.push_back({{"version", version.name},
                         {"direction", direction.name},
                         {"convolution", conv.name},
                         {"shape", {s.n, s.h, s.w, s.c, s.k, s.r, s.stride}},
                         {"microseconds", time},
                         {"tflops", flop / time * 1e-6}});
      if (!wrong.empty()) records.back()["wrong"] = wrong;
    }
  }
}

/// With what has been measured so far.
void write(const Options& options, const nlohmann::json& times, Context& context) {
  if (options.json.empty()) return;
  std::ofstream file(options.json);
  file << nlohmann::json{{"device", device_name(Device::kCuda)},
                         {"library", library_version(context)},
                         {"batch", options.batch},
                         {"widen", options.widen},
                         {"times", times}}
              .dump(1)
       << '\n';
  if (!file.flush()) fail("{}: cannot be written", options.json);
}

int run(int argc, char** argv) {
  CLI::App app("Times every version of the convolution.", "bench_ladder");
  Options options;
  app.add_option("--batch", options.batch)->check(whole(1, kMostBatch))->capture_default_str();
  app.add_option("--widen", options.widen, "The network's k")
      ->check(whole(1, 9999))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "For each time")
      ->check(real(0, 3600))
      ->capture_default_str();
  app.add_option("--only", options.only, "Versions whose name has this, beside v0: v3");
  app.add_option("--json", options.json, "Where to write all times, for ladder_table.py");
  if (const auto status = parse_command_line(app, argc, argv)) return *status;
  check_available(Device::kCuda);
  Context context(Device::kCuda);
  const std::unique_ptr<Stopwatch> watch = make_stopwatch(context);
  nlohmann::json times = nlohmann::json::array();
  for (const NamedConv& conv : wrn_convolutions(options.batch, options.widen)) {
    run_shape(conv, options, context, *watch, times);
    write(options, times, context);
  }
  for (const nlohmann::json& time : times) {
    if (time.contains("wrong")) fail("some results differ from v0's: see above");
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return wrn::guarded_main("bench_ladder", [&] { return run(argc, argv); });
}
