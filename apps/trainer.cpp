#include "apps/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

namespace wrn {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// On CUDA the host looks at the loss only now and then, so that it never keeps the device waiting.
constexpr std::int64_t kStepsBetweenLooks = 20;

double learning_rate(const Settings& settings, int epoch) {
  double rate = settings.lr;
  for (const int drop : settings.lr_drops) {
    if (drop <= epoch) rate *= settings.lr_drop_factor;
  }
  return rate;
}

SplitResult result_of(const Metrics& sums) {
  const double images = static_cast<double>(sums.images);
  return {sums.loss_sum / images,
          100.0 * static_cast<double>(sums.wrong) / images,
          100.0 * static_cast<double>(sums.wrong_top5) / images,
          {}};
}

/// Without the training images where nothing is trained: whitening them takes long.
ResidentData resident_data(const Dataset& train, const Dataset& test, const Whitening* whitening,
                           Context& context, Purpose purpose) {
  static const Dataset none;
  const Dataset& shown = purpose == Purpose::kTrain ? train : none;
  return whitening != nullptr ? ResidentData(shown, test, *whitening, context)
                              : ResidentData(shown, test, context.device());
}

[[noreturn]] void diverged(const std::string& what, double rate) {
  throw Error(fmt::format("the {}, at the learning rate {:g}: the last checkpoint is kept; try a "
                          "smaller --lr in a new run, with --overwrite or another -o",
                          what, rate),
              Status::kNotFinite);
}

}  // namespace

WideResNetSpec spec_of(const Settings& settings, int classes) {
  WideResNetSpec spec = parse_model(settings.model);
  spec.dropout = static_cast<float>(settings.dropout);
  spec.classes = classes;
  return spec;
}

Trainer::Trainer(const Settings& settings, const Dataset& train, const Dataset& test,
                 const Normalisation& normalisation, const Whitening* whitening, Context& context,
                 const volatile std::sig_atomic_t& stop, Purpose purpose)
    : settings_(settings),
      normalisation_(normalisation),
      context_(context),
      stop_(stop),
      test_data_(test),
      model_(spec_of(settings, train.classes()), context.device(), context.precision()),
      data_(resident_data(train, test, whitening, context, purpose)),
      split_(split_validation(train.size(), settings.val_split, settings.seed)),
      test_(static_cast<std::size_t>(test.size())),
      state_(context.device()) {
  std::iota(test_.begin(), test_.end(), static_cast<std::int32_t>(data_.train_size));
  if (purpose == Purpose::kTrain && train_images() < settings.batch_size &&
      !settings.keep_last_batch) {
    fail(
        "{} training images are fewer than a batch of {}: a run of them is begun with "
        "--batch-size {} or less, or --keep-last-batch",
        train_images(), settings.batch_size, train_images());
  }
  record_programs(purpose);
}

std::int64_t Trainer::steps_per_epoch() const {
  const std::int64_t full = train_images() / settings_.batch_size;
  return full + (partial_training_ ? 1 : 0);
}

Program record_step(const WideResNet& model, const ResidentData& data, const Input& input,
                    const RunState& state, Context& context) {
  Tape tape(Mode::kTraining, state, context);
  const Batch batch = load_images(tape, data, input);
  const Parameters& parameters = model.parameters();
  tape.backward(softmax_cross_entropy(tape, model.forward(tape, batch.images), batch.labels));
  for (const Parameter& parameter : parameters.all()) tape.check_gradient(parameter.value);
  sgd(tape, parameters);
  return tape.finish();
}

Program Trainer::record_training(int rows) const {
  const Input input{order_, rows, normalisation_, !settings_.no_augment};
  return record_step(model_, data_, input, state_, context_);
}

Trainer::Evaluation Trainer::record_evaluation(int rows) const {
  Tape tape(Mode::kInference, state_, context_);
  const Batch batch = load_images(tape, data_, {order_, rows, normalisation_, false});
  const Tensor logits = model_.forward(tape, batch.images);
  softmax_cross_entropy(tape, logits, batch.labels);
  tape.keep(logits);
  return {tape.finish(), logits};
}

void Trainer::record_programs(Purpose purpose) {
  const int rows = settings_.batch_size;
  // Evaluation pads its last batch, so there is room for whole batches of every split.
  const std::int64_t most = std::max({train_images(), validation_images(), std::ssize(test_)});
  order_ = Tensor::persistent("order of the images", {(most + rows - 1) / rows * rows}, DType::kI32,
                              context_.device());
  train_items_ =
      Tensor::persistent("training images", {train_images()}, DType::kI32, context_.device());
  train_items_.write<std::int32_t>(split_.train);
  if (purpose == Purpose::kTrain) {
    if (train_images() >= rows) training_ = record_training(rows);
    const int rest = static_cast<int>(train_images() % rows);
    if (settings_.keep_last_batch && rest > 0) partial_training_ = record_training(rest);
  }
  evaluation_ = record_evaluation(rows);

  std::size_t bytes = std::max(evaluation_->program.arena_bytes(), shuffle_workspace());
  for (const auto* program : {&training_, &partial_training_}) {
    if (*program) bytes = std::max(bytes, (*program)->arena_bytes());
  }
  if (const std::size_t free = available_memory(context_.device()); bytes > free) {
    const auto bytes_for = [&](int batch) {
      const std::size_t evaluation =
          std::max(record_evaluation(batch).program.arena_bytes(), shuffle_workspace());
      return purpose == Purpose::kTest ? evaluation
                                       : std::max(evaluation, record_training(batch).arena_bytes());
    };
    int fits = 0;
    for (int too_many = rows; too_many - fits > 1;) {
      const int middle = fits + (too_many - fits) / 2;
      (bytes_for(middle) <= free ? fits : too_many) = middle;
    }
    throw Error(
        fmt::format("out of memory: a batch of {} needs {:.1f} MiB, {:.1f} MiB are free; {}", rows,
                    static_cast<double>(bytes) / 0x1p20, static_cast<double>(free) / 0x1p20,
                    fits == 0 ? "not even one image fits: take a smaller model"
                    : purpose == Purpose::kTest
                        ? fmt::format("--batch-size {} fits", fits)
                        : fmt::format("a run begun with --batch-size {} fits", fits)),
        Status::kOutOfMemory);
  }
  arena_.emplace(bytes, "the tensors of a step", context_.device());
  for (auto* program : {&training_, &partial_training_}) {
    if (*program) (*program)->bind(arena_->data());
  }
  evaluation_->program.bind(arena_->data());
  // The odd batch of an epoch's end runs once in an epoch: not worth a graph.
  if (training_) training_->use_graph();
  evaluation_->program.use_graph();
}

std::size_t Trainer::shuffle_workspace() const {
  const int images = static_cast<int>(train_images());
  return WRN_ON(context_, shuffle_workspace(images, context_));
}

void Trainer::begin_epoch(const Position& position) {
  const std::vector<int>& drops = settings_.lr_drops;
  const bool drop = std::find(drops.begin(), drops.end(), position.epoch) != drops.end();
  if (drop && !settings_.keep_momentum && position.step == 0) {
    const Tensor& momenta = model_.parameters().momenta();
    momenta.write<float>(std::vector<float>(static_cast<std::size_t>(momenta.size()), 0.0F));
  }
  // Between two runs of Programs the arena is free for it.
  context_.workspace = arena_->data();
  WRN_ON(context_, shuffle(train_items_.data<std::int32_t>(), order_.data<std::int32_t>(),
                           static_cast<int>(train_images()), settings_.seed,
                           static_cast<std::uint32_t>(position.epoch), context_));
  state_.metrics.write<Metrics>(std::span(&position.sums, 1));
}

void Trainer::run(Program& program, const StepState& state) {
  WRN_ON(context_, upload(state_.step.data<StepState>(), &state, sizeof state, context_));
  program.run(context_);
}

bool Trainer::train_epoch(Checkpoint& checkpoint, Progress& progress) {
  Position& position = checkpoint.position;
  begin_epoch(position);
  const double rate = learning_rate(settings_, position.epoch);
  const std::int64_t steps = steps_per_epoch();
  const std::int64_t look_every = context_.device() == Device::kCuda ? kStepsBetweenLooks : 1;
  const Clock::time_point start = Clock::now();
  const double seconds_before = position.training_seconds;

  const auto look = [&] {
    position.sums = state_.metrics.read<Metrics>().front();
    if (position.sums.not_finite > 0) {
      diverged(fmt::format("loss is not finite in epoch {}, by step {} of {}", position.epoch + 1,
                           position.step, steps),
               rate);
    }
    position.training_seconds = seconds_before + seconds_since(start);
    const SplitResult sofar = result_of(position.sums);
    const double seconds_a_step = position.training_seconds / static_cast<double>(position.step);
    const double steps_left =
        static_cast<double>(steps * settings_.epochs - checkpoint.total_steps());
    progress.batch(position.epoch + 1, position.step, steps, sofar.loss, sofar.error,
                   static_cast<double>(position.sums.images) / position.training_seconds,
                   steps_left * seconds_a_step);
  };

  std::int64_t seen = position.step;
  while (position.step < steps && stop_ == 0) {
    const std::int64_t first = position.step * settings_.batch_size;
    const bool whole = train_images() - first >= settings_.batch_size;
    run(whole ? *training_ : *partial_training_,
        {.seed = settings_.seed,
         .epoch = static_cast<std::uint32_t>(position.epoch),
         .step = static_cast<std::uint32_t>(checkpoint.total_steps()),
         .first = first,
         .learning_rate = static_cast<float>(rate),
         .momentum = static_cast<float>(settings_.momentum),
         .weight_decay = static_cast<float>(settings_.weight_decay)});
    ++position.step;
    if (position.step % look_every == 0) {
      look();
      seen = position.step;
    }
  }
  if (seen != position.step) look();
  return stop_ == 0;
}

std::optional<SplitResult> Trainer::evaluate(const std::vector<std::int32_t>& indices,
                                             bool with_answers) {
  std::vector<std::int32_t> padded(indices);
  padded.resize(static_cast<std::size_t>(order_.size()), -1);
  order_.write<std::int32_t>(padded);
  state_.metrics.write<Metrics>(std::array<Metrics, 1>{});
  std::vector<Answer> answers;
  for (std::int64_t first = 0; first < std::ssize(indices); first += settings_.batch_size) {
    if (stop_ != 0) return std::nullopt;
    StepState state{};
    state.first = first;
    run(evaluation_->program, state);
    if (!with_answers) continue;
    const std::vector<float> logits = evaluation_->program.read(evaluation_->logits);
    const auto classes = static_cast<std::size_t>(evaluation_->logits.dim(1));
    for (std::size_t row = 0; row < logits.size() && std::ssize(answers) < std::ssize(indices);
         row += classes) {
      answers.push_back(most_probable(std::span(logits).subspan(row, classes), 1).front());
    }
  }
  SplitResult result = result_of(state_.metrics.read<Metrics>().front());
  result.answers = std::move(answers);
  return result;
}

void Trainer::train(Checkpoint& checkpoint, const RunDirectory& directory,
                    const nlohmann::json& config, Progress& progress) {
  Position& position = checkpoint.position;
  while (position.epoch < settings_.epochs) {
    const Clock::time_point start = Clock::now();
    const double seconds_before = position.seconds;
    const bool trained = train_epoch(checkpoint, progress);
    std::optional<SplitResult> validation, test;
    if (trained && !split_.validation.empty()) validation = evaluate(split_.validation, false);
    if (trained) test = evaluate(test_, true);
    position.seconds = seconds_before + seconds_since(start);
    if (!test || stop_ != 0) {
      directory.save(checkpoint, model_.parameters(), false);
      throw Stopped{stop_};
    }

    // The step before may be the one that ruined the weights.
    if (!std::isfinite(test->loss) || (validation && !std::isfinite(validation->loss))) {
      diverged(
          fmt::format("test or validation loss is not finite after epoch {}", position.epoch + 1),
          learning_rate(settings_, position.epoch));
    }

    const SplitResult train = result_of(position.sums);
    nlohmann::json line = {{"epoch", position.epoch + 1},
                           {"lr", learning_rate(settings_, position.epoch)},
                           {"train_loss", train.loss},
                           {"train_error", train.error},
                           {"test_loss", test->loss},
                           {"test_error", test->error},
                           {"test_top5_error", test->top5_error},
                           {"seconds", position.seconds},
                           {"training_seconds", position.training_seconds},
                           {"images_per_second",
                            static_cast<double>(position.sums.images) / position.training_seconds}};
    if (validation) {
      line["val_loss"] = validation->loss;
      line["val_error"] = validation->error;
    }
    checkpoint.metrics.push_back(line);
    position = {.epoch = position.epoch + 1};
    write_predictions(directory.predictions(),
                      predictions_of(test_data_, test->answers, position.epoch));
    directory.write_metrics(config, checkpoint.metrics);
    if (position.epoch % settings_.save_every == 0 || position.epoch == settings_.epochs) {
      const SplitResult& judge = validation ? *validation : *test;
      const bool is_best = judge.error < checkpoint.best.error;
      if (is_best) {
        checkpoint.best = {judge.error, position.epoch, validation ? "validation" : "test"};
      }
      directory.save(checkpoint, model_.parameters(), is_best);
    }
    progress.epoch_done(line);
  }
  progress.finish();
}

}  // namespace wrn
