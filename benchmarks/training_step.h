// A network's training step, ready to be run and timed, as a whole or step by step.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/plan.h"
#include "apps/trainer.h"
#include "benchmarks/stopwatch.h"

namespace wrn {

class TrainingStep {
 public:
  /// Of `batch` random images, with weights as at the start of training, which stay: the learning
  /// rate is zero. It is run once, so that every tensor holds what a step leaves there. Without
  /// `fuse`, of plain ops in every precision.
  TrainingStep(const WideResNetSpec&, int batch, Placing, Context&, bool fuse = true);

  Program& program() { return program_; }
  /// The same step once more, by the kernels that the context chooses now (Runtime::choices). It is
  /// to be bound to other memory, and run by the same choices.
  Program record(Context&) const;
  const Parameters& parameters() const { return model_.parameters(); }

 private:
  WideResNet model_;
  RunState state_;
  ResidentData data_;
  Input input_;
  Program program_;
  Buffer arena_;
};

/// Runs a Program's steps one by one, with a mark between any two: seconds of each.
std::vector<double> time_steps(Program&, Stopwatch&, Context&);

/// Runs a Program for a second, so that a GPU's clocks are what they are in training.
void warm_up(Program&, Stopwatch&, Context&);

/// On what a step runs, from the command line.
struct StepArguments {
  std::string device = "auto", precision = "auto";
  int batch = 128, threads = 0;
  std::vector<double> ceilings;

  void add_flags(CLI::App&);
  /// Leaves in `device` and `precision` what auto came to.
  Context context();
  /// What the model reckons with: `ceilings`, in TFLOP/s and TB/s, without tiles and waves; else
  /// what was measured on an H100 or H200 where the context is a Hopper's, in waves of its
  /// multiprocessors; else nothing.
  std::optional<Ceilings> ceilings_of(Context&) const;
};

/// The name without the part of the network that it stands in: "block1.layer.0.bn2 forward" is a
/// "bn forward".
std::string kind_of(const Step&);

}  // namespace wrn
