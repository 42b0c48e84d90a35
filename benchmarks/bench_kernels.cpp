// bench_kernels: every kernel of a wide residual network's training, at every shape, one by one.
//
//   bench_kernels                                          of the GPU in bf16, where there is one
//   bench_kernels --device cpu --benchmark_filter='k=2/.*conv'
//
// A benchmark is a step of the training of WRN-10-k, whose three blocks have every convolution and
// batch norm that deeper networks of that width have. Its tensors hold what a training step leaves
// there, each in memory of its own, so that a step repeated does the same again. A GPU's L2 cache
// is flushed before each launch, and the time is that between two events around it. Counters:
// TFLOP/s, GB/s (each tensor once), and the model's time (apps/plan.h) in % of the measured one.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "benchmarks/stopwatch.h"
#include "benchmarks/training_step.h"

namespace wrn {
namespace {

struct Arguments : StepArguments {
  std::vector<int> widen;
};

WideResNetSpec network(int widen) { return parse_model(fmt::format("wrn-10-{}", widen)); }

/// Makes the training step of the width that runs, and only that one: the wide ones are large.
class Networks {
 public:
  Networks(int batch, Stopwatch& watch, Context& context)
      : batch_(batch), watch_(watch), context_(context) {}
  Program& at(int widen) {
    if (widen != widen_) {
      training_.reset();
      training_.emplace(network(widen), batch_, Placing::kSeparate, context_);
      warm_up(training_->program(), watch_, context_);
      widen_ = widen;
    }
    return training_->program();
  }

 private:
  int batch_, widen_ = 0;
  Stopwatch& watch_;
  Context& context_;
  std::optional<TrainingStep> training_;
};

void run_step(benchmark::State& state, Program& program, std::size_t i, Stopwatch& watch,
              const std::optional<Ceilings>& ceilings, Context& context) {
  for (auto _ : state) {
    watch.flush_cache();
    watch.mark();
    program.run_step(i, context);
    watch.mark();
    state.SetIterationTime(watch.laps().front());
  }
  const Step& step = program.steps()[i];
  const auto count = [&](const char* name, double amount) {
    state.counters[name] =
        benchmark::Counter(amount, benchmark::Counter::kIsIterationInvariantRate);
  };
  if (step.macs > 0) count("TFLOP/s", 2e-12 * static_cast<double>(step.macs));
  count("GB/s", 1e-9 * static_cast<double>(step.bytes()));
  if (ceilings) count("%", 100 * model_seconds(step, *ceilings));
}

/// The shape of what the step writes: "128x32x32x160".
std::string shape_of(const Step& step) {
  return step.writes.empty() ? "" : fmt::format("{}", fmt::join(step.writes[0].shape(), "x"));
}

/// The steps' names, without running anything.
std::vector<std::string> step_names(int widen, int batch, Context& context) {
  const WideResNet model(network(widen), context.device(), context.precision());
  const ResidentData none({}, {}, context.device());
  const Tensor order = Tensor::persistent("order", {batch}, DType::kI32, context.device());
  std::vector<std::string> names;
  const Program program =
      record_step(model, none, {order, batch, {}, true}, RunState(context.device()), context);
  for (const Step& step : program.steps()) names.push_back(step.name + " " + shape_of(step));
  return names;
}

int run(Arguments& arguments) {
  Context context = arguments.context();
  const bool on_gpu = context.device() == Device::kCuda;
  if (arguments.widen.empty()) {
    arguments.widen = on_gpu ? std::vector{1, 2, 4, 8, 10, 12} : std::vector{1, 2, 4};
  }
  const std::optional<Ceilings> ceilings = arguments.ceilings_of(context);
  const std::unique_ptr<Stopwatch> watch = make_stopwatch(context);
  Networks networks(arguments.batch, *watch, context);
  for (const int widen : arguments.widen) {
    const std::vector<std::string> names = step_names(widen, arguments.batch, context);
    for (std::size_t i = 0; i < names.size(); ++i) {
      benchmark::RegisterBenchmark(fmt::format("k={}/{}", widen, names[i]).c_str(),
                                   [&, widen, i](benchmark::State& state) {
                                     run_step(state, networks.at(widen), i, *watch, ceilings,
                                              context);
                                   })
          ->Unit(benchmark::kMicrosecond)
          ->UseManualTime()
          ->Iterations(on_gpu ? 100 : 10);
    }
  }
  benchmark::AddCustomContext("device", device_name(context.device()));
  benchmark::AddCustomContext("precision", arguments.precision);
  benchmark::AddCustomContext("library", library_version(context));
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Times every kernel of a network's training; Google Benchmark does the counting.",
               "bench_kernels");
  Arguments arguments;
  arguments.add_flags(app);
  app.add_option("--widen", arguments.widen, "The networks' k (1 2 4, on a GPU also 8 10 12)")
      ->check(whole(1, 9999));
  app.allow_extras();
  app.footer(
      "Other flags are Google Benchmark's: --benchmark_filter=REGEX, --benchmark_out=FILE, ...");
  if (const auto status = parse_command_line(app, argc, argv)) return *status;
  std::vector<std::string> rest = app.remaining();
  std::vector<char*> flags{argv[0]};
  for (std::string& flag : rest) flags.push_back(flag.data());
  int count = static_cast<int>(flags.size());
  flags.push_back(nullptr);
  benchmark::Initialize(&count, flags.data());
  if (count > 1) throw Error(fmt::format("{}: no such flag; see --help", flags[1]), Status::kUsage);
  return run(arguments);
}

}  // namespace
}  // namespace wrn

int main(int argc, char** argv) {
  return wrn::guarded_main("bench_kernels", [&] { return wrn::parse_and_run(argc, argv); });
}
