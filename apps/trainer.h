// The training loop: a model, its data, its recorded Programs, and what happens in which order.
#pragma once

#include <csignal>
#include <optional>
#include <vector>

#include "apps/options.h"
#include "apps/predictions.h"
#include "apps/progress.h"
#include "apps/run_directory.h"
#include "data/dataset.h"
#include "data/input.h"
#include "data/order.h"
#include "engine/program.h"
#include "models/wide_resnet.h"

namespace wrn {

/// Thrown once a signal has asked for an end; by Trainer::train() when everything is saved.
struct Stopped {
  int signal;
};

struct SplitResult {
  double loss = 0, error = 0, top5_error = 0;  // mean, percent, percent
  std::vector<Answer> answers;                 // one an image
};

WideResNetSpec spec_of(const Settings&, int classes);

/// A training step: from the data set to the updated weights.
Program record_step(const WideResNet&, const ResidentData&, const Input&, const RunState&,
                    Context&);

enum class Purpose { kTrain, kTest };

class Trainer {
 public:
  /// `test` is kept, for its images. `whitening`: what whitens the images, or nullptr. `stop`: set
  /// to a signal's number by its handler; looked at between any two batches.
  Trainer(const Settings& settings, const Dataset& train, const Dataset& test,
          const Normalisation& normalisation, const Whitening* whitening, Context& context,
          const volatile std::sig_atomic_t& stop, Purpose purpose);

  const WideResNet& model() const { return model_; }
  WideResNet& model() { return model_; }
  Context& context() const { return context_; }
  std::int64_t steps_per_epoch() const;
  std::int64_t train_images() const { return std::ssize(split_.train); }
  std::int64_t validation_images() const { return std::ssize(split_.validation); }
  std::size_t arena_bytes() const { return arena_ ? arena_->bytes() : 0; }

  /// Trains from checkpoint.position to the last epoch, saving into `directory` at the end of every
  /// save_every-th epoch, and whenever it is asked to stop, before it throws Stopped. Throws an
  /// Error(kNotFinite), with the last checkpoint untouched, when the loss is not finite.
  void train(Checkpoint& checkpoint, const RunDirectory& directory, const nlohmann::json& config,
             Progress& progress);

  /// On the test images; no value when asked to stop in between.
  std::optional<SplitResult> test() { return evaluate(test_, true); }

 private:
  struct Evaluation {
    Program program;
    Tensor logits;  // [rows,classes], to be read after a run
  };
  void record_programs(Purpose purpose);
  Program record_training(int rows) const;
  Evaluation record_evaluation(int rows) const;
  std::size_t shuffle_workspace() const;
  /// Clears the momentum at a drop of the rate, and draws the epoch's order.
  void begin_epoch(const Position& position);
  void run(Program& program, const StepState& state);
  bool train_epoch(Checkpoint& checkpoint, Progress& progress);
  /// `with_answers`: also what the network said of each image, which the host waits for.
  std::optional<SplitResult> evaluate(const std::vector<std::int32_t>& indices, bool with_answers);

  Settings settings_;
  Normalisation normalisation_;
  Context& context_;
  const volatile std::sig_atomic_t& stop_;
  const Dataset& test_data_;
  WideResNet model_;
  ResidentData data_;
  ValidationSplit split_;
  std::vector<std::int32_t> test_;  // indices of the test images
  RunState state_;
  Tensor train_items_;  // i32 [train_images()]: split_.train, on the device
  Tensor order_;        // i32: the images of the epoch or the evaluation at hand, in order
  std::optional<Program> training_, partial_training_;
  std::optional<Evaluation> evaluation_;
  std::optional<Buffer> arena_;
};

}  // namespace wrn
