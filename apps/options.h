// What wrn_train was asked to do: the command line, and the part of it that config.json keeps.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernels/context.h"

namespace wrn {

/// The settings of a run, which its checkpoints carry. Each is a flag of the same name; what no
/// flag gives is the recipe's.
struct Settings {
  std::string dataset = "cifar10", data_path, model = "wrn-28-10", recipe = "paper-cifar";
  double dropout = 0;
  int epochs = 200, batch_size = 128;
  double lr = 0.1, momentum = 0.9, weight_decay = 5e-4, lr_drop_factor = 0.2;
  std::vector<int> lr_drops;  // epochs from 0; by the recipe where the flag is not given
  bool keep_momentum = false, no_augment = false, keep_last_batch = false;
  std::string preprocess = "meanstd", gamma_init = "one", svhn_extra = "auto";
  double val_split = 0;
  std::uint64_t seed = 1;
  std::int64_t limit_train = 0, limit_test = 0;  // 0 = all
  std::string device = "auto", precision = "auto";
  int threads = 0;  // 0 = all
  int save_every = 1;
  bool tensorboard = false;
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Settings, dataset, data_path, model, recipe, dropout, epochs,
                                   batch_size, lr, momentum, weight_decay, lr_drop_factor, lr_drops,
                                   keep_momentum, no_augment, keep_last_batch, preprocess,
                                   gamma_init, svhn_extra, val_split, seed, limit_train, limit_test,
                                   device, precision, threads, save_every, tensorboard)

inline constexpr int kMostThreads = 1024, kMostEpochs = 100000, kMostBatch = 1 << 20;

struct Options {
  Settings settings;
  std::set<std::string> given;  // the settings named on the command line
  std::string output_dir;       // empty: runs/<dataset>-<model>-seed<seed>
  bool overwrite = false, quiet = false, test_only = false, nvtx = false, plan = false;
  std::vector<double> ceilings;       // of --plan: TFLOP/s, TB/s; empty: those measured
  std::optional<std::string> resume;  // the file; "" for the run in the output directory
  std::string export_weights, import_weights;
};

/// Reads the command line into `options`. Returns the exit status where it asked for the help or
/// the version, which are printed then. Throws an Error(kUsage) for what is wrong with it.
std::optional<int> parse_options(int argc, const char* const* argv, Options& options);

/// Throws an Error(kUsage) that names the flag where a setting is what it cannot be, whether a flag
/// or a checkpoint says so.
void check(const Settings&);

/// The device of this name, where "auto" is the GPU if it can be used. Leaves in `name` what it
/// came to. Warns where there is a GPU and it cannot be.
Device resolve_device(const char* program, std::string& name);

/// fp32, tf32 or bf16; nothing for any other name, such as auto.
std::optional<Precision> precision_named(const std::string& name);

/// The precision of this name, where "auto" is bf16 if the device has it, else fp32. Leaves in
/// `name` what it came to. What the device does not have is fp32 instead, or, if the user insists
/// on it, an Error(kUsage).
Precision resolve_precision(std::string& name, Device, bool insist);

/// Warns where there are more threads than cores that the process may use.
void warn_of_threads(const char* program, int threads);

/// The settings of a checkpoint, changed by those of the command line that may change: where the
/// data is, how the program runs, and how many images are tested, and at a time, where nothing is
/// trained. Throws an Error(kUsage) for any other that differs.
Settings resumed_settings(const Settings& saved, const Options& options);

}  // namespace wrn
