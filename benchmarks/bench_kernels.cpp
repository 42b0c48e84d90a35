// Every convolution and batch norm of a WRN at batch 128, one by one, on the CPU.
//
//   bench_kernels                                 all, with all cores
//   bench_kernels --benchmark_filter=conv.*k=2    as Google Benchmark understands it
//
// Prints the time of a launch and what it amounts to: GFLOP/s (2 per multiply-add) for
// convolutions, GB/s (each tensor once) for batch norms.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <memory>
#include <random>
#include <vector>

#include "kernels/kernels.h"

namespace {

using namespace wrn;

constexpr int kBatch = 128;

std::vector<float> random_values(std::int64_t size) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& value : values) value = normal(generator);
  return values;
}

struct Direction {
  const char* name;
  std::size_t (*workspace)(const ConvShape&, Context&);
  void (*launch)(const float*, const float*, float*, const ConvShape&, Context&);
  std::int64_t (ConvShape::*sizes[3])() const;  // of the launch's three tensors
};

constexpr auto kX = &ConvShape::x_size, kW = &ConvShape::w_size, kY = &ConvShape::y_size;
const Direction kDirections[] = {
    {"fprop", cpu::conv_fprop_workspace, cpu::conv_fprop, {kX, kW, kY}},
    {"dgrad", cpu::conv_dgrad_workspace, cpu::conv_dgrad, {kY, kW, kX}},
    {"wgrad", cpu::conv_wgrad_workspace, cpu::conv_wgrad, {kX, kY, kW}}};

void run_convolution(benchmark::State& state, const Direction& direction, const ConvShape& shape) {
  Context context;
  std::vector<float> tensors[3];
  for (int i = 0; i < 3; ++i) tensors[i] = random_values((shape.*direction.sizes[i])());
  std::vector<std::byte> workspace(direction.workspace(shape, context) + 64);
  void* aligned = workspace.data();
  std::size_t space = workspace.size();
  context.workspace = static_cast<std::byte*>(std::align(64, space - 64, aligned, space));
  for (auto _ : state) {
    direction.launch(tensors[0].data(), tensors[1].data(), tensors[2].data(), shape, context);
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(shape.macs()),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void run_batch_norm(benchmark::State& state, const ImageShape& shape, bool backward) {
  Context context;
  std::vector<float> x = random_values(shape.size()), y(x), dx(x), channels[6];
  for (auto& channel : channels) channel = random_values(shape.c);
  std::vector<std::uint8_t> mask(cpu::batch_norm_mask_bytes(shape, context));
  std::vector<std::byte> workspace(
      std::max(cpu::batch_norm_forward_workspace(shape, 1e-5F, true, context),
               cpu::batch_norm_backward_workspace(shape, 1e-5F, true, context)) +
      64);
  void* aligned = workspace.data();
  std::size_t space = workspace.size();
  context.workspace = static_cast<std::byte*>(std::align(64, space - 64, aligned, space));
  auto& [gamma, beta, mean, variance, dgamma, dbeta] = channels;
  const auto forward = [&] {
    cpu::batch_norm_forward(x.data(), gamma.data(), beta.data(), y.data(), mean.data(),
                            variance.data(), mask.data(), shape, 1e-5F, true, context);
  };
  forward();
  for (auto _ : state) {
    if (!backward) {
      forward();
      continue;
    }
    cpu::batch_norm_backward(x.data(), y.data(), gamma.data(), mean.data(), variance.data(),
                             mask.data(), dx.data(), dgamma.data(), dbeta.data(), shape, 1e-5F,
                             true, context);
  }
  const double bytes = 4.0 * static_cast<double>(shape.size()) * (backward ? 3 : 2);
  state.counters["GB/s"] =
      benchmark::Counter(1e-9 * bytes, benchmark::Counter::kIsIterationInvariantRate);
}

void register_all() {
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime()
        ->MinTime(0.2);
  };
  std::vector<std::pair<std::string, ConvShape>> convolutions = {
      {"conv1", {kBatch, 32, 32, 3, 16, 3, 1}}};
  for (const int widen : {1, 2, 4}) {
    const std::string k = fmt::format("k={}", widen);
    int in = 16;
    for (int group = 0; group < 3; ++group) {
      const int out = (16 << group) * widen, side = 32 >> group;
      const int stride = group == 0 ? 1 : 2, from = side * stride;
      convolutions.push_back({k + " first", {kBatch, from, from, in, out, 3, stride}});
      convolutions.push_back({k + " shortcut", {kBatch, from, from, in, out, 1, stride}});
      convolutions.push_back({k + " inner", {kBatch, side, side, out, out, 3, 1}});
      in = out;
      for (const bool backward : {false, true}) {
        const ImageShape shape{kBatch, side, side, out};
        add(fmt::format("batch norm + ReLU {} {} {}x{}x{}", k, backward ? "backward" : "forward",
                        side, side, out),
            [=](benchmark::State& state) { run_batch_norm(state, shape, backward); });
      }
    }
  }
  for (const auto& [name, shape] : convolutions) {
    for (const Direction& direction : kDirections) {
      add(fmt::format("conv {} {} {}x{}x{}->{} stride {}", name, direction.name, shape.h, shape.w,
                      shape.c, shape.k, shape.stride),
          [&direction, shape = shape](benchmark::State& state) {
            run_convolution(state, direction, shape);
          });
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
