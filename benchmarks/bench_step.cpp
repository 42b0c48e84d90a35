// bench_step: how long a training step takes, as a whole and step by step, beside what the model
// of wrn_train --plan says.
//
//   bench_step --model wrn-28-10 --json step.json      on the GPU, in bf16, where there is one
//
// The whole is timed as wrn_train runs it, on a GPU by replays of one CUDA graph, after a second of
// them: its clocks have then settled. Then its steps are launched one by one, in order and upon
// each other's results, with a mark between any two: so caches are as warm as in training. They
// queue up behind a replay, and none waits for its launch. A time is the median over the runs.
// Where the steps' sum exceeds the whole, the difference is what gaps and marks between them cost,
// and what kernels overlap in the whole on a Hopper.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <fstream>

#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "apps/history.h"
#include "benchmarks/stopwatch.h"
#include "benchmarks/training_step.h"

namespace wrn {
namespace {

struct Arguments : StepArguments {
  std::string model = "wrn-28-10", json;
  int runs = 20;
  double dropout = 0;
  bool op_by_op = false;
};

/// Of all steps of a kind, or of one.
struct Time {
  int steps = 0;
  double seconds = 0, model = 0;
  double macs = 0, bytes = 0;
};

double time_whole(TrainingStep& training, Stopwatch& watch, int runs, Context& context) {
  training.program().use_graph();
  warm_up(training.program(), watch, context);  // which also records the graph
  watch.mark();
  for (int i = 0; i < runs; ++i) {
    training.program().run(context);
    watch.mark();
  }
  return median(watch.laps());
}

/// Seconds of each step.
std::vector<double> median_times(TrainingStep& training, Stopwatch& watch, int runs,
                                 Context& context) {
  std::vector<std::vector<double>> times(training.program().steps().size());
  for (int run = 0; run < runs; ++run) {
    training.program().run(context);
    const std::vector<double> laps = time_steps(training.program(), watch, context);
    for (std::size_t i = 0; i < times.size(); ++i) times[i].push_back(laps[i]);
  }
  std::vector<double> medians;
  for (const std::vector<double>& of_step : times) medians.push_back(median(of_step));
  return medians;
}

/// By kind, what takes longest first; and last the sum of all.
std::vector<std::pair<std::string, Time>> add_up(const std::vector<Step>& steps,
                                                 const std::vector<double>& seconds,
                                                 const std::optional<Ceilings>& ceilings) {
  std::vector<std::pair<std::string, Time>> kinds;
  Time all;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const std::string name = kind_of(steps[i]);
    auto kind = std::find_if(kinds.begin(), kinds.end(),
                             [&](const auto& other) { return other.first == name; });
    if (kind == kinds.end()) kind = kinds.insert(kind, {name, {}});
    for (Time* time : {&kind->second, &all}) {
      ++time->steps;
      time->seconds += seconds[i];
      time->model += ceilings ? model_seconds(steps[i], *ceilings) : 0;
      time->macs += static_cast<double>(steps[i].macs);
      time->bytes += static_cast<double>(steps[i].bytes());
    }
  }
  std::stable_sort(kinds.begin(), kinds.end(), [](const auto& a, const auto& b) {
    return a.second.seconds > b.second.seconds;
  });
  kinds.emplace_back("all, one by one", all);
  return kinds;
}

void print(const std::vector<std::pair<std::string, Time>>& kinds) {
  fmt::print("{:<36} {:>5} {:>9} {:>6} {:>9} {:>9} {:>8}\n", "kind", "steps", "ms", "share",
             "model ms", "TFLOP/s", "GB/s");
  const double all = kinds.back().second.seconds;
  for (const auto& [kind, time] : kinds) {
    fmt::print("{:<36} {:>5} {:>9.3f} {:>5.1f}% {:>9} {:>9} {:>8.0f}\n", kind, time.steps,
               1e3 * time.seconds, 100 * time.seconds / all,
               time.model > 0 ? fmt::format("{:.3f}", 1e3 * time.model) : "-",
               time.macs > 0 ? fmt::format("{:.2f}", 2e-12 * time.macs / time.seconds) : "-",
               1e-9 * time.bytes / time.seconds);
  }
}

/// A record for each step.
nlohmann::json to_json(const std::vector<Step>& steps, const std::vector<double>& seconds,
                       const std::optional<Ceilings>& ceilings) {
  nlohmann::json records = nlohmann::json::array();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    records.push_back({{"name", steps[i].name},
                       {"kind", kind_of(steps[i])},
                       {"part", steps[i].part},
                       {"macs", steps[i].macs},
                       {"bytes", steps[i].bytes()},
                       {"microseconds", 1e6 * seconds[i]}});
    if (!ceilings) continue;
    records.back()["model_microseconds"] = 1e6 * model_seconds(steps[i], *ceilings);
  }
  return records;
}

int run(Arguments& arguments) {
  Context context = arguments.context();
  WideResNetSpec spec = parse_model(arguments.model);
  spec.dropout = static_cast<float>(arguments.dropout);
  TrainingStep training(spec, arguments.batch, Placing::kShared, context, !arguments.op_by_op);
  const std::unique_ptr<Stopwatch> watch = make_stopwatch(context);
  const std::optional<Ceilings> ceilings = arguments.ceilings_of(context);

  const double whole = time_whole(training, *watch, arguments.runs, context);
  const std::vector<double> seconds = median_times(training, *watch, arguments.runs, context);
  const std::vector<Step>& steps = training.program().steps();
  const std::size_t arena = training.program().arena_bytes();
  const std::size_t state = training.parameters().bytes();
  fmt::print("{}, batch {}, {}, {}, {}\n", arguments.model, arguments.batch, arguments.precision,
             device_name(context.device()), library_version(context));
  print(add_up(steps, seconds, ceilings));
  fmt::print(
      "as one: {:.3f} ms, {:.1f} images/s; {:.1f} MiB of activations, {:.1f} MiB of "
      "parameters\n",
      1e3 * whole, arguments.batch / whole, static_cast<double>(arena) / 0x1p20,
      static_cast<double>(state) / 0x1p20);
  if (arguments.json.empty()) return 0;
  std::ofstream file(arguments.json);
  file << nlohmann::json{{"model", arguments.model},
                         {"batch", arguments.batch},
                         {"dropout", arguments.dropout},
                         {"precision", arguments.precision},
                         {"op_by_op", arguments.op_by_op},
                         {"overlaps_kernels", context.overlaps_kernels},
                         {"device", device_name(context.device())},
                         {"library", library_version(context)},
                         {"runs", arguments.runs},
                         {"step_milliseconds", 1e3 * whole},
                         {"images_per_second", arguments.batch / whole},
                         {"activation_bytes", arena},
                         {"parameter_bytes", state},
                         {"steps", to_json(steps, seconds, ceilings)}}
              .dump(1)
       << '\n';
  if (!file.flush()) fail("{}: cannot be written", arguments.json);
  return 0;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Times a network's training step, as a whole and step by step.", "bench_step");
  Arguments arguments;
  arguments.add_flags(app);
  app.add_option("--model", arguments.model)->capture_default_str();
  app.add_option("--dropout", arguments.dropout)->capture_default_str();
  app.add_option("--runs", arguments.runs, "The median is over so many")
      ->check(whole(1, INT_MAX))
      ->capture_default_str();
  app.add_flag("--op-by-op", arguments.op_by_op, "Without fused ops");
  app.add_option("--json", arguments.json, "Where to write every step's time");
  if (const auto status = parse_command_line(app, argc, argv)) return *status;
  return run(arguments);
}

}  // namespace
}  // namespace wrn

int main(int argc, char** argv) {
  return wrn::guarded_main("bench_step", [&] { return wrn::parse_and_run(argc, argv); });
}
