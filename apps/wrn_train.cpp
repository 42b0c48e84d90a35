// wrn_train: from images in a file to a trained, saved, reloadable network.
//
// Reading order: main() below; options (the flags); trainer (the loop); from there models/, engine/
// and kernels/.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "apps/guarded_main.h"
#include "apps/messages.h"
#include "apps/options.h"
#include "apps/plan.h"
#include "apps/predictions.h"
#include "apps/progress.h"
#include "apps/run_directory.h"
#include "apps/trainer.h"
#include "data/cifar.h"
#include "data/files.h"
#include "data/svhn.h"
#include "data/synthetic.h"
#include "engine/atomic_file.h"
#include "engine/checkpoint.h"

namespace wrn {
namespace {

volatile std::sig_atomic_t g_stop = 0;  // the signal that asked for an end

extern "C" void request_stop(int signal) { g_stop = signal; }

void install_signal_handlers() {
  struct sigaction action = {};
  action.sa_handler = request_stop;
  // The second signal of a kind ends the program at once.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
}

/// As a word of a shell's command.
std::string shell_word(const std::string& text) {
  const bool plain = std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::strchr("_-+=./:,@%", c) != nullptr;
  });
  if (plain) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

struct Data {
  Dataset train, test;
};

Dataset first(Dataset dataset, std::int64_t limit) {
  if (limit == 0 || limit >= dataset.size()) return dataset;
  dataset.labels.resize(static_cast<std::size_t>(limit));
  dataset.images.resize(static_cast<std::size_t>(limit) * kImageBytes);
  return dataset;
}

/// Draws the synthetic data set where it is missing, but only for a new run: what another was
/// trained on is somewhere else then.
Data read_data(const Settings& settings, bool new_run) {
  const std::filesystem::path path = settings.data_path;
  if (settings.dataset == "synthetic" && missing(path)) {
    if (!new_run) {
      fail("{}: no such directory; it is drawn for new runs only: say with --data-path where it is",
           path.string());
    }
    write_synthetic(path, 5000, 1000, 1);
  }
  const auto read = [&](Split split) {
    if (settings.dataset == "svhn") {
      return read_svhn(path, split,
                       settings.svhn_extra == "auto"  ? SvhnExtra::automatic
                       : settings.svhn_extra == "yes" ? SvhnExtra::yes
                                                      : SvhnExtra::no);
    }
    return settings.dataset == "cifar100" ? read_cifar100(path, split) : read_cifar10(path, split);
  };
  return {first(read(Split::train), settings.limit_train),
          first(read(Split::test), settings.limit_test)};
}

Normalisation normalisation_of(const Settings& settings, const Dataset& train) {
  if (settings.preprocess == "zca") return {{0, 0, 0}, {1, 1, 1}};  // of what is whitened already
  Normalisation n{{0, 0, 0}, {255, 255, 255}};
  if (settings.preprocess == "scale") return n;
  const ChannelStats stats = channel_stats(train);
  for (std::size_t c = 0; c < 3; ++c) {
    n.mean[c] = static_cast<float>(stats.mean[c]);
    // A channel that never changes has nothing to tell, whatever it is divided by.
    n.std[c] = stats.std[c] > 0 ? static_cast<float>(stats.std[c]) : 1;
  }
  return n;
}

std::optional<Whitening> whitening_of(const Settings& settings, const Dataset& train) {
  if (settings.preprocess != "zca") return std::nullopt;
  return cached_whitening(settings.data_path, train.images, kImageBytes,
                          [](const std::string& what) { warn("wrn_train", what); });
}

nlohmann::json config_of(const Checkpoint& checkpoint, const Data& data, const Trainer& trainer,
                         std::int64_t parameters) {
  const Settings& s = checkpoint.settings;
  nlohmann::json training = s;
  for (const char* key : {"model", "dataset", "data_path", "device", "precision", "threads"})
    training.erase(key);
  return {
      {"model", {{"name", s.model}, {"parameters", parameters}, {"classes", checkpoint.classes}}},
      {"dataset",
       {{"name", s.dataset},
        {"path", s.data_path},
        {"checksum", checkpoint.data_checksum},
        {"train_images", trainer.train_images()},
        {"validation_images", trainer.validation_images()},
        {"test_images", data.test.size()},
        {"mean", checkpoint.normalisation.mean},
        {"std", checkpoint.normalisation.std},
        {"whitening", checkpoint.whitening ? checkpoint.whitening->checksum() : "none"}}},
      {"training", training},
      {"device", s.device},
      {"device_name", device_name(trainer.context().device())},
      {"precision", s.precision},
      {"threads", s.threads},
      {"parameter_bytes", trainer.model().parameters().bytes()},
      {"activation_bytes", trainer.arena_bytes()},
      {"versions",
       {{"wrn_train", WRN_VERSION},
        {"library", library_version(trainer.context())},
        {"compiler", "g++ " __VERSION__}}}};
}

void export_weights(const std::string& path, const Checkpoint& checkpoint, const Trainer& trainer) {
  Safetensors file;
  file.metadata = {{"format", "pt"}, {"model", checkpoint.settings.model}};
  export_state(trainer.model().parameters(), checkpoint.total_steps(), false, file);
  write_safetensors(path, file);
}

void print_header(const Checkpoint& c, const Data& data, const Trainer& trainer) {
  std::cout << fmt::format(
      "{}: {} parameters; {}: {} training, {} validation, {} test images; {}, {}, {} threads; "
      "{:.0f} MiB of activations\n",
      c.settings.model, trainer.model().parameters().count(), c.settings.dataset,
      trainer.train_images(), trainer.validation_images(), data.test.size(), c.settings.device,
      c.settings.precision, c.settings.threads,
      static_cast<double>(trainer.arena_bytes()) / 0x1p20);
}

/// Neither reads data nor runs anything: a GPU that is not here, or in another precision, can be
/// planned for.
int plan(const Options& options) {
  Settings settings = options.settings;
  const Device device = resolve_device("wrn_train", settings.device);
  const Precision precision = precision_named(settings.precision).value_or(Precision::kBf16);
  Context context = supports(device, precision) ? Context(device, settings.threads, precision)
                                                : Context::for_plans(precision);
  const int batch = settings.batch_size;
  const WideResNet model(spec_of(settings, settings.dataset == "cifar100" ? 100 : 10),
                         context.device(), precision);
  Dataset blank;
  blank.images.resize(static_cast<std::size_t>(batch) * kImageBytes);
  blank.labels.resize(static_cast<std::size_t>(batch));
  const ResidentData data(blank, {}, context.device());
  const Tensor order = Tensor::persistent("order", {batch}, DType::kI32, context.device());
  const Program program = record_step(model, data, {order, batch, {}, !settings.no_augment},
                                      RunState(context.device()), context);
  std::optional<Ceilings> ceilings = measured_ceilings(precision);
  if (const std::vector<double>& given = options.ceilings; !given.empty()) {
    ceilings = {"as given", 1e12 * given[0], 1e12 * given[1]};
  }
  print_plan(std::cout,
             fmt::format("{}: a training step of {} images in {}, recorded for {}", settings.model,
                         batch, name_of(precision), device_name(context.device())),
             program, model.parameters(), batch, ceilings);
  return 0;
}

/// Whether two checkpoints can be of one run: the epochs that both have are the same, to the time
/// that each took.
bool may_be_one_run(const Checkpoint& a, const Checkpoint& b) {
  const auto both = static_cast<std::ptrdiff_t>(std::min(a.metrics.size(), b.metrics.size()));
  return std::equal(a.metrics.begin(), a.metrics.begin() + both, b.metrics.begin());
}

/// Refuses what would cost a run its files: another run, or this one's later epochs. `file`: where
/// the checkpoint to be resumed is from; empty where there is none.
void protect_runs(const Options& options, const RunDirectory& directory,
                  const std::filesystem::path& file, const Checkpoint& checkpoint) {
  const std::string place = directory.path().string();
  const bool own = !file.empty() && directory.contains(file);
  const std::filesystem::path found = directory.file_of_a_run();
  if (!found.empty() && !own && (options.test_only || !options.overwrite)) {
    const char* const advice =
        options.test_only ? "give another -o"
        : options.resume  ? "give another -o, or --resume without FILE to go on with that run"
        : missing(directory.latest())
            ? "give --overwrite to replace it, or another -o"
            : "give --resume to go on with it, --overwrite to replace it, or another -o";
    throw Error(fmt::format("{} holds {} run ({}): {}", place, options.resume ? "another" : "a",
                            found.filename().string(), advice),
                Status::kUsage);
  }
  std::error_code error;
  if (!own || std::filesystem::equivalent(file, directory.latest(), error)) return;
  Checkpoint latest;
  try {
    latest = checkpoint_of(read_safetensors(directory.latest()));
  } catch (const Error&) {
    // Missing or damaged: the run's best, or a lonely checkpoint, is what there is to go on from.
    if (found.empty() || std::filesystem::equivalent(file, directory.best(), error)) return;
    throw Error(fmt::format("{} may hold another run than {} ({}): give another -o", place,
                            file.string(), found.filename().string()),
                Status::kUsage);
  }
  if (!may_be_one_run(latest, checkpoint)) {
    throw Error(fmt::format("{} has other epochs behind it than {}: give another -o", file.string(),
                            directory.latest().string()),
                Status::kUsage);
  }
  const auto place_in_run = [](const Position& p) { return std::pair(p.epoch, p.step); };
  if (!options.test_only && place_in_run(latest.position) > place_in_run(checkpoint.position)) {
    throw Error(fmt::format("{} is further on than {} and would be lost: give --resume -o {} to go "
                            "on from there, or another -o to go back",
                            directory.latest().string(), file.string(), place),
                Status::kUsage);
  }
}

/// Whether the file is of a network that says the same of the same images.
bool holds(const std::filesystem::path& file, const Predictions& predictions) {
  try {
    const Predictions there = read_predictions(file);
    return there.labels == predictions.labels && there.predicted == predictions.predicted;
  } catch (const Error&) {
    return false;
  }
}

/// Refuses a place where weights cannot be exported to, or would cost a run a file, or `source`,
/// from where they come.
void check_export(const std::filesystem::path& path, const RunDirectory& directory,
                  const std::filesystem::path& source) {
  const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
  const RunDirectory other(parent);
  std::error_code error;
  if ((other.writes(path.filename()) &&
       (directory.contains(path) || !other.file_of_a_run().empty())) ||
      std::filesystem::equivalent(path, source, error)) {
    throw Error(fmt::format("--export-weights {}: would replace a file that is needed; give "
                            "another name",
                            path.string()),
                Status::kUsage);
  }
  check_replaceable(path);
  check_writable(parent, "--export-weights");
  if (std::filesystem::is_directory(path, error)) {
    fail("--export-weights {}: is a directory; give a file's name", path.string());
  }
}

/// The images: those that a resumed run was begun with, by its settings; of a new one the
/// checkpoint gets what it keeps of them.
Data data_of(Checkpoint& checkpoint, const std::optional<Settings>& begun, bool test_only) {
  const Settings& settings = checkpoint.settings;
  Data data = read_data(settings, !begun && !test_only);
  const std::string data_checksum = checksum(std::array{&data.train, &data.test});
  if (begun) {
    if (data.train.classes() != checkpoint.classes) {
      fail("the data has {} classes, the checkpoint {}", data.train.classes(), checkpoint.classes);
    }
    const bool as_many = settings.limit_test == begun->limit_test;  // test images
    if (as_many && data_checksum != checkpoint.data_checksum) {
      const std::string what = fmt::format(
          "the images of {} are not those that the run was begun with: their checksum is {} and "
          "not {}",
          settings.data_path, data_checksum, checkpoint.data_checksum);
      if (!test_only) throw Error(what);
      warn("wrn_train", what);
    }
  } else {
    checkpoint.classes = data.train.classes();
    checkpoint.class_names = data.train.class_names;
    checkpoint.normalisation = normalisation_of(settings, data.train);
    checkpoint.whitening = whitening_of(settings, data.train);
  }
  checkpoint.data_checksum = data_checksum;
  return data;
}

/// From where the checkpoint is to the last epoch.
void train(Trainer& trainer, Checkpoint& checkpoint, const Data& data, RunDirectory& directory,
           const Options& options) {
  // Who has stopped it before anything is written may want to keep what --overwrite replaces.
  if (g_stop != 0) throw Stopped{g_stop};
  checkpoint.steps_per_epoch = trainer.steps_per_epoch();
  // The best so far may have stayed in another directory.
  if (missing(directory.best())) checkpoint.best = {};
  // The checkpoint comes first: from then on the run can be resumed, and in place of a run that
  // is overwritten there is always one or the other.
  directory.save(checkpoint, trainer.model().parameters(), false);
  if (options.overwrite) directory.remove_leftovers();
  if (checkpoint.settings.tensorboard) directory.begin_events();
  const nlohmann::json config =
      config_of(checkpoint, data, trainer, trainer.model().parameters().count());
  directory.write_config(config);
  directory.write_metrics(config, checkpoint.metrics);
  Progress progress(options.quiet, checkpoint.settings.epochs, std::cout,
                    isatty(STDOUT_FILENO) != 0);
  try {
    trainer.train(checkpoint, directory, config, progress);
  } catch (const Stopped&) {
    progress.message(
        fmt::format("stopped in epoch {}, after step {}; go on with: wrn_train --resume "
                    "-o {}",
                    checkpoint.position.epoch + 1, checkpoint.position.step,
                    shell_word(directory.path().string())));
    throw;
  }
  const nlohmann::json& last = checkpoint.metrics.back();
  std::cout << fmt::format(
      "test error {:.2f}% after {} epochs ({}: {:.2f}% on the {} images, epoch {}); report: "
      "{}\n",
      last.at("test_error").get<double>(), checkpoint.settings.epochs,
      directory.best().filename().string(), checkpoint.best.error, checkpoint.best.split,
      checkpoint.best.epoch, directory.report().string());
}

int run(const Options& options) {
  RunDirectory directory(options.output_dir.empty()
                             ? fmt::format("runs/{}-{}-seed{}", options.settings.dataset,
                                           options.settings.model, options.settings.seed)
                             : options.output_dir);
  std::filesystem::path file;  // to be resumed
  if (options.resume) {
    file = options.resume->empty() ? directory.latest() : std::filesystem::path(*options.resume);
    if (std::error_code error; std::filesystem::is_directory(file, error)) {
      fail("{} is a directory: give --resume {}, or --resume -o {}", file.string(),
           shell_word(RunDirectory(file).latest().string()), shell_word(file.string()));
    }
    if (options.output_dir.empty()) {
      directory = RunDirectory(file.has_parent_path() ? file.parent_path() : ".");
    }
  }
  // Measuring the test error leaves a run's directory as it is, but for predictions that it lacks.
  const bool writes =
      !options.test_only || (!options.output_dir.empty() && missing(directory.predictions()));
  // First of all, so that what is found there stays so. A FILE that is missing makes no directory.
  if (writes && (file.empty() || !missing(file))) directory.prepare();

  Checkpoint checkpoint;
  std::optional<Safetensors> saved;
  std::optional<Settings> begun;  // what the resumed run was saved with
  if (options.resume) {
    saved = read_safetensors(file);
    checkpoint = checkpoint_of(*saved);
    begun = checkpoint.settings;
    checkpoint.settings = resumed_settings(checkpoint.settings, options);
  } else {
    checkpoint.settings = options.settings;
  }
  Settings& settings = checkpoint.settings;
  if (writes) protect_runs(options, directory, file, checkpoint);
  const bool finished = checkpoint.position.epoch >= settings.epochs;
  if (writes && (options.test_only || !finished)) {
    directory.check_writable(settings.tensorboard && !options.test_only, options.overwrite);
  }
  if (!options.export_weights.empty()) {
    check_export(options.export_weights, directory,
                 options.resume ? file : std::filesystem::path(options.import_weights));
  }

  const Device device = resolve_device("wrn_train", settings.device);
  if (options.nvtx && device == Device::kCpu) {
    throw Error("--nvtx: profilers see ranges of CUDA only, and this run is on the CPU",
                Status::kUsage);
  }
  // What only a resumed checkpoint asks for is not insisted on: a run may go on on another device.
  const bool insist = options.given.contains("precision");
  Context context(device, settings.threads, resolve_precision(settings.precision, device, insist));
  context.named_ranges = options.nvtx;
  settings.threads = context.threads();
  if (device == Device::kCpu) warn_of_threads("wrn_train", settings.threads);
  if (saved && settings.threads != begun->threads) {
    warn("wrn_train",
         fmt::format("resuming with {} threads a run begun with {}: the results will differ in "
                     "their last digits",
                     settings.threads, begun->threads));
  }
  if (saved && (settings.device != begun->device || settings.precision != begun->precision)) {
    warn("wrn_train",
         fmt::format("resuming on {} in {} a run begun on {} in {}: the results will differ",
                     settings.device, settings.precision, begun->device, begun->precision));
  }

  const Data data = data_of(checkpoint, begun, options.test_only);
  Trainer trainer(settings, data.train, data.test, checkpoint.normalisation,
                  checkpoint.whitening ? &*checkpoint.whitening : nullptr, context, g_stop,
                  options.test_only ? Purpose::kTest : Purpose::kTrain);
  if (saved) {
    import_state(*saved, true, trainer.model().parameters());
  } else {
    trainer.model().initialise(
        settings.seed, settings.gamma_init == "uniform" ? GammaInit::kUniform : GammaInit::kOne);
    if (!options.import_weights.empty()) {
      import_state(read_safetensors(options.import_weights), false, trainer.model().parameters());
    }
  }
  saved.reset();
  if (!options.quiet) print_header(checkpoint, data, trainer);

  if (options.test_only) {
    const std::optional<SplitResult> result = trainer.test();
    if (!result) throw Stopped{g_stop};
    if (!std::isfinite(result->loss)) {
      throw Error("the test loss is not finite: the weights are ruined", Status::kNotFinite);
    }
    if (!options.output_dir.empty()) {
      const Predictions predictions =
          predictions_of(data.test, result->answers, checkpoint.position.epoch);
      if (writes) {
        write_predictions(directory.predictions(), predictions);
      } else if (options.resume != "" && !holds(directory.predictions(), predictions)) {
        // Had --resume no FILE, -o would be no more than the name of the run, which has its own.
        warn("wrn_train", fmt::format("{} holds other predictions than these, and stays as it is: "
                                      "give another -o for these",
                                      directory.predictions().string()));
      }
    }
    std::cout << fmt::format("test error {:.2f}%, loss {:.4f}\n", result->error, result->loss);
  } else if (finished) {
    if (settings.tensorboard && !begun->tensorboard) {
      warn("wrn_train", "--tensorboard: the run is finished, and no curves are written");
    }
    std::cout << fmt::format("{}: the run is finished, {} of {} epochs\n", file.string(),
                             checkpoint.position.epoch, settings.epochs);
  } else {
    train(trainer, checkpoint, data, directory, options);
  }
  if (!options.export_weights.empty()) export_weights(options.export_weights, checkpoint, trainer);
  return 0;
}

}  // namespace
}  // namespace wrn

int main(int argc, char** argv) {
  return wrn::guarded_main("wrn_train", [&] {
    try {
      wrn::Options options;
      if (const auto status = wrn::parse_options(argc, argv, options)) return *status;
      wrn::install_signal_handlers();
      return options.plan ? wrn::plan(options) : wrn::run(options);
    } catch (const wrn::Stopped& stopped) {
      return 128 + stopped.signal;
    }
  });
}
