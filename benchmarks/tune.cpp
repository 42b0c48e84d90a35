// tune: what computes each convolution of a training step fastest on this GPU, a Hopper, in bf16:
// v4 or v5 of the ladder, and in which tiles. Writes the table that programs choose by.
//
//   tune --out choices.json
//   WRN_CHOICES=choices.json wrn_train ...    or, as kernels/conv3x3/choices.json, in the next
//   build
//
// The step is recorded several times; in recording i every convolution is the i-th of its
// candidates (choices.h). So what is timed is what training runs, with epilogues, workspaces and
// neighbours. In each round the recordings take turns, as the clocks drift, each behind a replay of
// a whole step, so that the GPU does not wait for the host. A candidate's time is that of all
// convolutions of a step of its product and shape, the median over the rounds. What the model chose
// stays where nothing is faster by more than kMargin.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <climits>
#include <ctime>
#include <map>

#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "apps/history.h"
#include "benchmarks/stopwatch.h"
#include "benchmarks/training_step.h"
#include "engine/atomic_file.h"
#include "kernels/conv3x3/ladder.h"
#include "kernels/runtime.h"

namespace wrn {
namespace {

using cuda::Choice;
using Work = std::pair<ConvProduct, ConvShape>;

constexpr double kMargin = 0.02;

struct Arguments {
  std::vector<std::string> models{"wrn-28-10", "wrn-40-4"};
  int batch = 128, rounds = 10;
  std::string commit = "unknown", out;
};

struct Candidate {
  Choice choice;
  std::vector<double> seconds;  // of all convolutions of its product and shape, in each run
};
/// The first is the model's choice.
using Candidates = std::map<Work, std::vector<Candidate>>;

std::string text_of(const Choice& c) {
  if (c.version == 4) return "v4";
  const std::string columns = fmt::format("v5 x {}", c.columns);
  return c.parts > 0 ? fmt::format("{} / {}", columns, c.parts) : columns;
}

std::string text_of(const Work& work) {
  const auto& [product, s] = work;
  return fmt::format("{} {}x{}x{}x{} k={} r={} stride={}", name_of(product), s.n, s.h, s.w, s.c,
                     s.k, s.r, s.stride);
}

/// Of the program's convolutions that are not among `known` and that leave a choice.
Candidates candidates_of(const Program& program, const Candidates& known, int multiprocessors) {
  Candidates all;
  for (const Step& step : program.steps()) {
    if (!step.conv) continue;
    const Work work{step.conv->product, step.conv->shape};
    const auto choices = cuda::candidates(work.first, work.second, multiprocessors);
    if (choices.size() == 1 || known.contains(work) || all.contains(work)) continue;
    for (const Choice& choice : choices) all[work].push_back({choice, {}});
  }
  return all;
}

/// A training step with every convolution as its i-th candidate, counted in circles.
struct Recording {
  std::vector<Choice> choices;
  Program program;
};
std::vector<Recording> record_all(const TrainingStep& training, const Candidates& candidates,
                                  Context& context) {
  std::size_t most = 0;
  for (const auto& [work, of_work] : candidates) most = std::max(most, of_work.size());
  std::vector<Recording> recordings;
  for (std::size_t i = 0; i < most; ++i) {
    std::vector<Choice> choices;
    for (const auto& [work, of_work] : candidates) {
      choices.push_back(of_work[i % of_work.size()].choice);
    }
    context.runtime().choices = choices;
    Program program = training.record(context);
    recordings.push_back({std::move(choices), std::move(program)});
  }
  return recordings;
}

void add_times(Candidates& candidates, std::size_t i, const Program& program,
               const std::vector<double>& seconds) {
  std::map<Work, double> sums;
  for (std::size_t step = 0; step < seconds.size(); ++step) {
    const std::optional<ConvWork>& conv = program.steps()[step].conv;
    if (conv) sums[{conv->product, conv->shape}] += seconds[step];
  }
  for (auto& [work, of_work] : candidates) {
    of_work[i % of_work.size()].seconds.push_back(sums.at(work));
  }
}

/// The candidates, timed, of what `known` has not of a network.
Candidates measure(const WideResNetSpec& spec, const Candidates& known, const Arguments& arguments,
                   Context& context) {
  context.runtime().choices = {};
  TrainingStep training(spec, arguments.batch, Placing::kShared, context);
  Program& whole = training.program();
  whole.use_graph();
  Candidates candidates = candidates_of(whole, known, context.runtime().target().multiprocessors);
  std::vector<Recording> recordings = record_all(training, candidates, context);
  std::size_t bytes = 0;
  for (const Recording& r : recordings) bytes = std::max(bytes, r.program.arena_bytes());
  const Buffer arena(bytes, "the tensors of a step", Device::kCuda);
  for (Recording& r : recordings) r.program.bind(arena.data());

  for (Recording& r : recordings) {  // loads the kernels
    context.runtime().choices = r.choices;
    r.program.run(context);
  }
  const std::unique_ptr<Stopwatch> watch = make_stopwatch(context);
  for (int round = 0; round < arguments.rounds; ++round) {
    for (std::size_t i = 0; i < recordings.size(); ++i) {
      context.runtime().choices = {};
      whole.run(context);
      context.runtime().choices = recordings[i].choices;
      const std::vector<double> seconds = time_steps(recordings[i].program, *watch, context);
      add_times(candidates, i, recordings[i].program, seconds);
    }
  }
  context.runtime().choices = {};
  return candidates;
}

/// Prints what was found, and returns what is better than the model's choice.
std::vector<Choice> choose(const Candidates& candidates) {
  fmt::print("{:<44} {:>16} {:>9}   {:>16} {:>9} {:>7}\n", "product", "the model's", "us",
             "the fastest", "us", "");
  std::vector<Choice> better;
  for (const auto& [work, of_work] : candidates) {
    const Candidate* best = nullptr;
    double least = 0;
    for (const Candidate& candidate : of_work) {
      const double seconds = median(candidate.seconds);
      if (best != nullptr && seconds >= least) continue;
      best = &candidate;
      least = seconds;
    }
    const double before = median(of_work.front().seconds);
    const bool chosen = least < (1 - kMargin) * before;
    fmt::print("{:<44} {:>16} {:>9.1f}   {:>16} {:>9.1f} {:>6.1f}%{}\n", text_of(work),
               text_of(of_work.front().choice), 1e6 * before, text_of(best->choice), 1e6 * least,
               100 * (least / before - 1), chosen ? " chosen" : "");
    if (chosen) better.push_back(best->choice);
  }
  return better;
}

int run(const Arguments& arguments) {
  std::vector<WideResNetSpec> specs;
  for (const std::string& model : arguments.models) specs.push_back(parse_model(model));
  check_available(Device::kCuda);
  Context context(Device::kCuda, 0, Precision::kBf16);
  const std::string device = device_name(Device::kCuda);
  if (!cuda::v5::supports({1, 8, 8, 8, 8, 3, 1}, context)) {
    fail(
        "the {} has no kernels to choose from: v5 of the convolutions is for compute capability "
        "9.0, in a build for 90a",
        device);
  }
  const std::string on =
      fmt::format("{}, {}, {:%Y-%m-%d}, commit {}", device, library_version(context),
                  fmt::gmtime(std::time(nullptr)), arguments.commit);
  fmt::print("{}\n", on);
  const auto write = [&](const std::vector<cuda::MeasuredChoices>& table) {
    if (!arguments.out.empty()) write_file_atomically(arguments.out, text_of(table));
  };
  write(cuda::measured_choices());  // so that what cannot be written is known at once
  Candidates measured;
  for (const WideResNetSpec& spec : specs) {
    measured.merge(measure(spec, measured, arguments, context));
  }
  const int multiprocessors = context.runtime().target().multiprocessors;
  write(replaced(cuda::measured_choices(), {multiprocessors, on, choose(measured)}));
  return 0;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Chooses the fastest kernel of every convolution, in bf16 on a Hopper.", "tune");
  Arguments arguments;
  app.add_option("--model", arguments.models, "The networks whose convolutions are timed")
      ->capture_default_str();
  app.add_option("--batch-size", arguments.batch)
      ->check(whole(1, kMostBatch))
      ->capture_default_str();
  app.add_option("--rounds", arguments.rounds, "The median is over so many")
      ->check(whole(1, INT_MAX))
      ->capture_default_str();
  app.add_option("--commit", arguments.commit, "Of this build, for the record")
      ->check([](const std::string& text) -> std::string {
        const bool good =
            std::ranges::all_of(text, [](unsigned char c) { return std::isalnum(c); });
        return good ? "" : "'" + text + "' is no commit";
      });
  app.add_option("--out", arguments.out,
                 "Where to write the table, with what the one in use has of other GPUs");
  if (const auto status = parse_command_line(app, argc, argv)) return *status;
  return run(arguments);
}

}  // namespace
}  // namespace wrn

int main(int argc, char** argv) {
  return wrn::guarded_main("tune", [&] { return wrn::parse_and_run(argc, argv); });
}
