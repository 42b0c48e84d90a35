#include "apps/options.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <initializer_list>

#include "apps/command_line.h"
#include "apps/messages.h"
#include "apps/recipes.h"
#include "kernels/error.h"
#include "models/wide_resnet.h"

namespace wrn {
namespace {

constexpr const char* kDescription = R"(Train a wide residual network on CIFAR or SVHN.

Examples
  wrn_train --dataset synthetic --model wrn-10-1 --epochs 8 -o runs/first
  wrn_train --dataset cifar10 --data-path cifar --model wrn-28-10 --dropout 0.3
  wrn_train --resume -o runs/first                 go on where it stopped
  wrn_train --test-only --resume runs/first/best.safetensors)";

constexpr const char* kFooter = R"(A model is named wrn-DEPTH-WIDTH, perhaps followed by
  -B(M)  the block type: the kernel sizes of its convolutions, B(3,3) unless said otherwise;
         a group then has (DEPTH - 4) / 6 blocks whatever the type, as in the paper's table
  -lL    the deepening factor: L 3x3 convolutions a block, (DEPTH - 4) / (3 L) blocks a group
for example wrn-28-10, wrn-40-2-B(3,1), wrn-40-2-l3.

A recipe is the paper's. Its code also draws gamma (--gamma-init uniform), and counts epochs from 1,
so that its rate drops an epoch earlier (--lr-drops 59,119,159). The defaults above are those of the
first
  paper-cifar          200 epochs, the rate 0.1 multiplied by 0.2 at 30, 60 and 80% of them
  paper-cifar-dropout  the same with dropout 0.3
  paper-svhn           SVHN divided by 255, no augmentation, dropout 0.4, 160 epochs, the rate 0.01
                       multiplied by 0.1 at 50 and 75% of them

Files written to the output directory
  config.json          every setting, the versions, the device and the threads
  metrics.jsonl        a line an epoch; losses, and errors in percent
  report.html          curves, mistakes, network and configuration on one page
  predictions.safetensors  what it said of every test image, for wrn_report; with --test-only too,
                       where -o is given and has none yet
  latest.safetensors   everything needed to go on: weights, statistics, momentum, position
  best.safetensors     the checkpoint of the lowest error among the epochs saved (--save-every), on
                       the validation split if there is one
  tensorboard/         with --tensorboard: look at it with tensorboard --logdir DIRECTORY

Exit status: 0 done, 1 run-time error, 2 usage, 3 out of memory, 4 loss not finite,
128+n stopped by signal n (SIGINT, SIGTERM); in training, after saving.)";

std::string block_kernels(const std::string& block) {
  // "B(3,1)" or "3,1" -> "3,1"
  const std::size_t open = block.find('('), close = block.rfind(')');
  if (open == std::string::npos) return block;
  return block.substr(open + 1, close == std::string::npos ? close : close - open - 1);
}

/// The parts that --model is made of, for those who prefer flags.
struct ModelParts {
  int depth = 28, widen = 10, deepening = 2;
  std::string block = "3,3";
};

[[noreturn]] void usage(const std::string& what) { throw Error(what, Status::kUsage); }

constexpr int kMostImages = INT_MAX;

/// Epochs with a comma between any two, or the word none.
std::vector<int> lr_drops_of(const std::string& text) {
  if (text == "none") return {};
  std::vector<int> drops;
  for (std::size_t begin = 0, comma = 0; comma != std::string::npos; begin = comma + 1) {
    comma = text.find(',', begin);
    const std::string word = text.substr(begin, comma - begin);
    const std::string wrong = whole(0, kMostEpochs)(word);
    if (!wrong.empty()) usage(fmt::format("--lr-drops {}: {}", text, wrong));
    drops.push_back(std::stoi(word));
  }
  return drops;
}

/// What the recipe says of everything that the command line left open.
void apply_recipe(Settings& s, const std::set<std::string>& given) {
  if (s.dataset == "svhn" && !given.contains("recipe")) s.recipe = "paper-svhn";
  const Recipe& recipe = recipe_of(s.recipe);
  nlohmann::json settings = s;
  for (const auto& [name, value] : recipe.settings.items()) {
    if (!given.contains(name)) settings[name] = value;
  }
  s = settings.get<Settings>();
  if (!given.contains("lr_drops")) {
    for (const int percent : recipe.drop_percent) {
      const int epoch = static_cast<int>(std::int64_t{s.epochs} * percent / 100);
      // A drop at epoch 0 would be no drop.
      if (epoch > 0 && (s.lr_drops.empty() || epoch > s.lr_drops.back()))
        s.lr_drops.push_back(epoch);
    }
  }
  if (s.data_path.empty()) s.data_path = s.dataset.starts_with("cifar") ? "cifar" : s.dataset;
}

}  // namespace

void check(const Settings& s) {
  const auto finite_at_least_0 = [](const char* flag, double value) {
    if (!(std::isfinite(value) && value >= 0))
      usage(fmt::format("{} {}: must be finite, and 0 or more", flag, value));
  };
  finite_at_least_0("--lr", s.lr);
  finite_at_least_0("--weight-decay", s.weight_decay);
  finite_at_least_0("--lr-drop-factor", s.lr_drop_factor);
  if (!(s.momentum >= 0 && s.momentum < 1)) {
    usage(fmt::format("--momentum {}: must be at least 0 and less than 1", s.momentum));
  }
  if (!(s.val_split >= 0 && s.val_split < 1)) {
    usage(fmt::format("--val-split {}: must be at least 0 and less than 1", s.val_split));
  }
  for (std::size_t i = 0; i < s.lr_drops.size(); ++i) {
    if (s.lr_drops[i] < 0 || (i > 0 && s.lr_drops[i] <= s.lr_drops[i - 1])) {
      usage(
          fmt::format("--lr-drops {}: must be epochs in rising order", fmt::join(s.lr_drops, ",")));
    }
  }
  const auto within = [](const char* flag, std::int64_t value, int low, int high) {
    if (value < low || value > high)
      usage(fmt::format("{} {}: must be from {} to {}", flag, value, low, high));
  };
  within("--epochs", s.epochs, 1, kMostEpochs);
  within("--save-every", s.save_every, 1, kMostEpochs);
  within("--batch-size", s.batch_size, 1, kMostBatch);
  within("--threads", s.threads, 0, kMostThreads);
  within("--limit-train", s.limit_train, 0, kMostImages);
  within("--limit-test", s.limit_test, 0, kMostImages);
  const auto one_of = [](const char* flag, const std::string& value,
                         std::initializer_list<const char*> words) {
    if (std::find(words.begin(), words.end(), value) == words.end())
      usage(fmt::format("{} {}: must be one of {}", flag, value, fmt::join(words, ", ")));
  };
  one_of("--dataset", s.dataset, {"cifar10", "cifar100", "svhn", "synthetic"});
  one_of("--svhn-extra", s.svhn_extra, {"auto", "yes", "no"});
  one_of("--preprocess", s.preprocess, {"meanstd", "scale", "zca"});
  one_of("--gamma-init", s.gamma_init, {"one", "uniform"});
  one_of("--device", s.device, {"auto", "cpu", "cuda"});
  one_of("--precision", s.precision, {"auto", "fp32", "tf32", "bf16"});
  recipe_of(s.recipe);
  WideResNetSpec spec = parse_model(s.model);
  spec.dropout = static_cast<float>(s.dropout);
  spec.blocks();
  try {
    nlohmann::json(s.data_path).dump();
  } catch (const nlohmann::json::exception&) {
    usage("--data-path: must be UTF-8, as checkpoints are; rename the directory");
  }
}

std::optional<int> parse_options(int argc, const char* const* argv, Options& options) {
  Settings& s = options.settings;
  ModelParts parts;
  CLI::App app{kDescription, "wrn_train"};
  app.footer(kFooter);
  app.set_version_flag("--version", "wrn_train " WRN_VERSION);
  app.get_formatter()->column_width(36);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);

  const std::string data = "Data";
  app.add_option("--dataset", s.dataset, "cifar10, cifar100, svhn, or synthetic: drawn shapes")
      ->capture_default_str()
      ->group(data);
  app.add_option(
         "--data-path", s.data_path,
         "directory of the files (default ./cifar; ./svhn; ./synthetic, which is drawn for a "
         "new run when it is not there)")
      ->group(data);
  app.add_option("--svhn-extra", s.svhn_extra,
                 "train on SVHN's extra images too: auto (where their file is there), yes or no")
      ->capture_default_str()
      ->group(data);
  app.add_option("--preprocess", s.preprocess,
                 "meanstd: by the training set's mean and deviation; scale: divide by 255; zca: "
                 "global contrast normalisation and ZCA whitening, as in the paper's older tables")
      ->capture_default_str()
      ->group(data);
  app.add_flag("--no-augment", s.no_augment, "neither flip nor crop the training images")
      ->group(data);
  app.add_option("--val-split", s.val_split,
                 "share of the training images held out for validation, from 0 to below 1")
      ->capture_default_str()
      ->group(data);
  app.add_option("--limit-train", s.limit_train, "use the first N training images, 0 = all")
      ->check(whole(0, kMostImages))
      ->capture_default_str()
      ->group(data);
  app.add_option("--limit-test", s.limit_test, "use the first N test images, 0 = all")
      ->check(whole(0, kMostImages))
      ->capture_default_str()
      ->group(data);

  const std::string model = "Network";
  auto* name = app.add_option("--model", s.model, "the network by its name, see below")
                   ->capture_default_str()
                   ->group(model);
  std::vector<CLI::Option*> part_options = {
      app.add_option("--depth", parts.depth, "instead of --model: its depth")
          ->check(whole(1, INT_MAX))
          ->capture_default_str()
          ->group(model),
      app.add_option("--widen-factor", parts.widen, "its widening factor k")
          ->check(whole(1, INT_MAX))
          ->capture_default_str()
          ->group(model),
      app.add_option("--block", parts.block, "its block type, like \"B(3,1)\" or 3,1")
          ->group(model)
          ->default_str("B(3,3)"),
      app.add_option("--deepening", parts.deepening, "its deepening factor l")
          ->check(whole(1, 16))
          ->capture_default_str()
          ->group(model)};
  for (CLI::Option* part : part_options) part->excludes(name);
  part_options[3]->excludes(part_options[2]);
  app.add_option("--dropout", s.dropout, "drop probability between a block's convolutions")
      ->capture_default_str()
      ->group(model);

  const std::string training = "Training";
  app.add_option(
         "--recipe", s.recipe,
         "where the settings come from that no flag gives: paper-cifar, "
         "paper-cifar-dropout or paper-svhn, see below; by default the last for svhn, else the "
         "first")
      ->capture_default_str()
      ->group(training);
  app.add_option("--epochs", s.epochs, "passes over the training set")
      ->check(whole(1, kMostEpochs))
      ->capture_default_str()
      ->group(training);
  app.add_option("-b,--batch-size", s.batch_size, "images a step")
      ->check(whole(1, kMostBatch))
      ->capture_default_str()
      ->group(training);
  app.add_option("--lr", s.lr, "learning rate")->capture_default_str()->group(training);
  std::string lr_drops;
  auto* lr_drops_option =
      app.add_option(
             "--lr-drops", lr_drops,
             "epochs (from 0) at whose start the rate drops, with commas, like 60,120,160, or none")
          ->type_name("EPOCHS")
          ->group(training);
  app.add_option("--lr-drop-factor", s.lr_drop_factor, "what each drop multiplies the rate by")
      ->capture_default_str()
      ->group(training);
  app.add_flag("--keep-momentum", s.keep_momentum,
               "do not clear the momentum at a drop (the paper's code clears it)")
      ->group(training);
  app.add_option(
         "--gamma-init", s.gamma_init,
         "batch norm's gamma at the start: one, or uniform in (0, 1), as in the paper's code")
      ->capture_default_str()
      ->group(training);
  app.add_option("--momentum", s.momentum, "Nesterov momentum")
      ->capture_default_str()
      ->group(training);
  app.add_option("--weight-decay", s.weight_decay, "on every parameter")
      ->capture_default_str()
      ->group(training);
  app.add_flag("--keep-last-batch", s.keep_last_batch,
               "train on an epoch's last, smaller batch too (the paper drops it)")
      ->group(training);
  app.add_option("--seed", s.seed, "of weights, order, augmentation and dropout")
      ->check(whole(0, UINT64_MAX))
      ->capture_default_str()
      ->group(training);

  const std::string running = "Running";
  app.add_option("--device", s.device, "auto, cpu or cuda")->capture_default_str()->group(running);
  app.add_option(
         "--precision", s.precision,
         "fp32, tf32 or bf16: what convolutions multiply, and bf16 also what is stored "
         "between layers; auto: bf16 on a GPU of compute capability 8.0 or later, else fp32")
      ->capture_default_str()
      ->group(running);
  app.add_option("--threads", s.threads, "CPU cores to use, 0 = all")
      ->check(whole(0, kMostThreads))
      ->capture_default_str()
      ->group(running);
  app.add_option("-o,--output-dir", options.output_dir,
                 "where the run is kept (default runs/DATASET-MODEL-seedSEED; with --resume FILE, "
                 "the directory of FILE)")
      ->group(running);
  app.add_flag("--overwrite", options.overwrite, "replace the run in the output directory")
      ->group(running);
  app.add_option("--save-every", s.save_every,
                 "epochs between checkpoints; the last is always saved")
      ->check(whole(1, kMostEpochs))
      ->capture_default_str()
      ->group(running);
  app.add_flag("--tensorboard", s.tensorboard,
               "write curves for TensorBoard too; a resumed run goes on with them")
      ->group(running);
  std::string resume;
  auto* resume_option =
      app.add_option("--resume", resume, "go on from FILE, or from the run in the output directory")
          ->expected(0, 1)
          ->type_name("[FILE]")
          ->group(running);
  app.add_flag("--nvtx", options.nvtx,
               "make every op an NVTX range for profilers (CUDA; without CUDA graphs)")
      ->group(running);
  app.add_flag(
         "--plan", options.plan,
         "print the steps of one training step, in bf16 unless --precision says otherwise, what "
         "they read and write, the memory and the modelled time, and stop")
      ->group(running);
  app.add_option("--ceilings", options.ceilings,
                 "what --plan reckons with: the GPU's matrix rate in TFLOP/s and its memory's in "
                 "TB/s (default for bf16: those measured on an H100)")
      ->expected(2)
      ->check(real(1e-3, 1e6))
      ->type_name("TFLOPS TBS")
      ->group(running)
      ->needs("--plan");
  app.add_flag("--quiet", options.quiet, "print nothing but errors and the result")->group(running);

  const std::string weights = "Weights";
  app.add_flag("--test-only", options.test_only,
               "measure the test error of --resume's or --import-weights' network and stop; "
               "--batch-size and --limit-test may then differ from those of the run")
      ->group(weights);
  app.add_option("--export-weights", options.export_weights,
                 "write the final weights to FILE (safetensors, PyTorch's names)")
      ->type_name("FILE")
      ->group(weights);
  auto* import_option =
      app.add_option("--import-weights", options.import_weights, "start from the weights in FILE")
          ->type_name("FILE")
          ->group(weights);
  import_option->excludes(resume_option);
  for (const char* flag :
       {"--resume", "--nvtx", "--test-only", "--export-weights", "--import-weights"}) {
    app.get_option("--plan")->excludes(app.get_option(flag));
  }
  app.get_option("--overwrite")->excludes(resume_option);

  if (const auto status = parse_command_line(app, argc, argv)) return status;

  if (resume_option->count() > 0) options.resume = resume;
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0) continue;
    std::string key = option->get_lnames().empty() ? "" : option->get_lnames().front();
    for (char& c : key) c = c == '-' ? '_' : c;
    options.given.insert(key);
  }
  for (const CLI::Option* part : part_options) {
    if (part->count() == 0) continue;
    options.given.insert("model");
    s.model = fmt::format("wrn-{}-{}", parts.depth, parts.widen);
    if (part_options[2]->count() > 0) s.model += fmt::format("-B({})", block_kernels(parts.block));
    if (part_options[3]->count() > 0) s.model += fmt::format("-l{}", parts.deepening);
  }
  s.model = parse_model(s.model).name();
  if (lr_drops_option->count() > 0) s.lr_drops = lr_drops_of(lr_drops);
  // A run goes on in its own precision unless told another.
  if (s.precision == "auto") options.given.erase("precision");
  apply_recipe(s, options.given);
  check(s);
  if (options.test_only && !options.resume && options.import_weights.empty()) {
    usage("--test-only needs weights: give --resume [FILE] or --import-weights FILE");
  }
  return std::nullopt;
}

Device resolve_device(const char* program, std::string& name) {
  if (name != "cpu") {
    try {
      check_available(Device::kCuda);
      name = "cuda";
    } catch (const Error& error) {
      if (name == "cuda") {
        throw Error(fmt::format("{}; --device cpu does without", error.what()), error.status);
      }
      if (dynamic_cast<const NoGpu*>(&error) == nullptr) {
        warn(program, fmt::format("the CPU computes: {}", error.what()));
      }
      name = "cpu";
    }
  }
  return name == "cuda" ? Device::kCuda : Device::kCpu;
}

std::optional<Precision> precision_named(const std::string& name) {
  for (const Precision precision : {Precision::kFp32, Precision::kTf32, Precision::kBf16}) {
    if (name == name_of(precision)) return precision;
  }
  return std::nullopt;
}

Precision resolve_precision(std::string& name, Device device, bool insist) {
  Precision wanted = precision_named(name).value_or(Precision::kBf16);
  if (!supports(device, wanted)) {
    if (insist && name != "auto") {
      throw Error(fmt::format("--precision {}: {} computes in fp32 only{}", name,
                              device_name(device), device == Device::kCpu ? "; see --device" : ""),
                  Status::kUsage);
    }
    wanted = Precision::kFp32;
  }
  name = name_of(wanted);
  return wanted;
}

void warn_of_threads(const char* program, int threads) {
  const int cores = usable_cores();
  if (threads <= cores) return;
  warn(program, fmt::format("{} threads on {} {} keep each other waiting: give --threads {}",
                            threads, cores, cores == 1 ? "core" : "cores", cores));
}

Settings resumed_settings(const Settings& saved, const Options& options) {
  static const std::set<std::string> kFree = {"data_path", "device",     "precision",
                                              "threads",   "save_every", "tensorboard"};
  static const std::set<std::string> kFreeInTest = {"batch_size", "limit_test"};
  nlohmann::json settings = saved;
  const nlohmann::json asked = options.settings;
  for (const std::string& key : options.given) {
    if (!asked.contains(key) || asked[key] == settings[key]) continue;
    if (!kFree.contains(key) && !(options.test_only && kFreeInTest.contains(key))) {
      std::string flag = "--" + key;
      for (char& c : flag) c = c == '_' ? '-' : c;
      usage(fmt::format("{} {} contradicts the {} of the run to be resumed", flag,
                        asked[key].dump(), settings[key].dump()));
    }
    settings[key] = asked[key];
  }
  return settings.get<Settings>();
}

}  // namespace wrn
