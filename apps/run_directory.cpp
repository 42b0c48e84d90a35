#include "apps/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>

#include "apps/history.h"
#include "apps/report.h"
#include "engine/atomic_file.h"
#include "engine/checkpoint.h"
#include "kernels/augment.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;
constexpr const char* kFormat = "wrn.cu checkpoint 1";

// Doubles go through JSON exactly: it writes as many digits as are needed to read the same bits
// back.
nlohmann::json to_json(const Position& p) {
  return {{"epoch", p.epoch},
          {"step", p.step},
          {"seconds", p.seconds},
          {"training_seconds", p.training_seconds},
          {"loss_sum", p.sums.loss_sum},
          {"wrong", p.sums.wrong},
          {"wrong_top5", p.sums.wrong_top5},
          {"images", p.sums.images}};
}

/// The count, -1 where it is none.
std::int64_t count_of(const nlohmann::json& j, const char* key) {
  return whole_within(0, std::int64_t{1} << 53, j, key, -1);
}

/// Whether json converts it to the type that `usual` has, an array element by element: it would
/// truncate a fraction, wrap a number around, and that of one as 2e32 is not defined.
bool is_exact(const nlohmann::json& value, const nlohmann::json& usual) {
  if (value.is_array()) {
    return std::ranges::all_of(value, [](const auto& element) { return is_exact(element, 0); });
  }
  if (!value.is_number() || usual.is_number_float()) return true;
  if (value.is_number_float()) return false;
  if (usual.is_number_unsigned()) return value.is_number_unsigned();
  return !value.is_number_unsigned() || value.get<std::uint64_t>() <= INT64_MAX;
}

/// Settings that json converts without loss.
std::optional<Settings> exact_settings(const nlohmann::json& given) {
  const nlohmann::json usual_settings = Settings();
  for (const auto& [key, usual] : usual_settings.items()) {
    if (!is_exact(given.at(key), usual)) return std::nullopt;
  }
  const Settings settings = given.get<Settings>();
  const nlohmann::json read = settings;
  for (const auto& [key, value] : read.items()) {
    if (value != given.at(key)) return std::nullopt;
  }
  return settings;
}

Position position_of(const nlohmann::json& j) {
  Position p;
  p.epoch = int_within(0, INT_MAX, j, "epoch", -1);
  p.step = count_of(j, "step");
  p.seconds = j.at("seconds").get<double>();
  p.training_seconds = j.at("training_seconds").get<double>();
  p.sums.loss_sum = j.at("loss_sum").get<double>();
  p.sums.wrong = count_of(j, "wrong");
  p.sums.wrong_top5 = j.contains("wrong_top5") ? count_of(j, "wrong_top5") : 0;
  p.sums.images = count_of(j, "images");
  return p;
}

}  // namespace

std::map<std::string, std::string> to_metadata(const Checkpoint& c) {
  const nlohmann::json settings = c.settings;
  return {{"format", kFormat},
          {"model", c.settings.model},
          {"classes", std::to_string(c.classes)},
          {"class_names", nlohmann::json(c.class_names).dump()},
          {"mean", nlohmann::json(c.normalisation.mean).dump()},
          {"std", nlohmann::json(c.normalisation.std).dump()},
          {"whitening", c.whitening ? c.whitening->checksum() : "none"},
          {"settings", settings.dump()},
          {"data_checksum", c.data_checksum},
          {"position", to_json(c.position).dump()},
          {"steps_per_epoch", std::to_string(c.steps_per_epoch)},
          {"best",
           nlohmann::json{{"error", c.best.error}, {"epoch", c.best.epoch}, {"split", c.best.split}}
               .dump()},
          {"metrics", nlohmann::json(c.metrics).dump()},
          {"version", WRN_VERSION}};
}

Checkpoint checkpoint_of(const Safetensors& file) {
  const auto text = [&](const char* key) -> const std::string& {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end()) {
      fail("{} is no checkpoint of wrn_train: its metadata has no '{}'", file.file.string(), key);
    }
    return found->second;
  };
  if (text("format") != kFormat) {
    const bool ours = text("format").starts_with("wrn.cu checkpoint");
    fail("{} is {} of wrn_train", file.file.string(),
         ours ? "a checkpoint of another version" : "no checkpoint");
  }
  const auto parsed = [&](const char* key) { return nlohmann::json::parse(text(key)); };
  try {
    Checkpoint c;
    nlohmann::json settings = parsed("settings");
    // Settings that older checkpoints lack, and what held before there were any.
    const nlohmann::json later = {{"precision", "fp32"},
                                  {"gamma_init", "one"},
                                  {"svhn_extra", "auto"},
                                  {"tensorboard", false}};
    for (const auto& [key, value] : later.items()) {
      if (!settings.contains(key)) settings[key] = value;
    }
    const std::optional<Settings> exact = exact_settings(settings);
    c.settings = exact.value_or(Settings());
    const nlohmann::json counts = {{"classes", parsed("classes")},
                                   {"steps_per_epoch", parsed("steps_per_epoch")}};
    c.classes = int_within(0, INT_MAX, counts, "classes", -1);
    c.steps_per_epoch = count_of(counts, "steps_per_epoch");
    c.class_names = parsed("class_names").get<std::vector<std::string>>();
    for (std::size_t i = 0; i < 3; ++i) {
      c.normalisation.mean[i] = parsed("mean").at(i).get<float>();
      c.normalisation.std[i] = parsed("std").at(i).get<float>();
    }
    if (const auto found = file.metadata.find("whitening");
        found != file.metadata.end() && found->second != "none") {
      c.whitening = import_whitening(file, found->second);
      if (c.whitening->features != kImageBytes) {
        fail("{}: its whitening is of images of {} values", file.file.string(),
             c.whitening->features);
      }
    }
    c.data_checksum = text("data_checksum");
    c.position = position_of(parsed("position"));
    const nlohmann::json best = parsed("best");
    c.best = {best.at("error").get<double>(), int_within(0, INT_MAX, best, "epoch", -1),
              best.at("split").get<std::string>()};
    c.metrics = parsed("metrics").get<std::vector<nlohmann::json>>();
    const Settings& s = c.settings;
    const Metrics& sums = c.position.sums;
    if (!exact || s.epochs < 1 || s.batch_size < 1 || s.save_every < 1 || s.threads < 0 ||
        s.threads > 1024 || s.limit_train < 0 || s.limit_test < 0 || c.classes < 0 ||
        c.position.epoch < 0 || c.position.step < 0 || sums.wrong < 0 || sums.wrong_top5 < 0 ||
        sums.images < 0 || c.steps_per_epoch < 0 || c.best.epoch < 0) {
      fail("{}: its metadata has numbers that no run has", file.file.string());
    }
    return c;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: its metadata cannot be read: {}", file.file.string(), error.what());
  }
}

/// On the directory itself. Some file systems have no locks: there it is none.
struct RunDirectory::Lock {
  int descriptor;
  fs::path made;  // the directory, where it was not there before

  Lock(int descriptor, fs::path made) : descriptor(descriptor), made(std::move(made)) {}
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() {
    ::rmdir(made.c_str());  // fails if anything is in it
    ::close(descriptor);
  }
};

std::vector<fs::path> RunDirectory::files() const {
  return {latest(), best(), config(), metrics(), report(), predictions()};
}

fs::path RunDirectory::file_of_a_run() const {
  for (const fs::path& file : files()) {
    std::error_code error;  // of what cannot be looked at check_writable() speaks
    if (fs::exists(fs::symlink_status(file, error))) return file;
  }
  const std::vector<fs::path> events = event_files(tensorboard());
  return events.empty() ? fs::path() : events.front();
}

bool RunDirectory::writes(const fs::path& name) const {
  return std::ranges::any_of(files(),
                             [&](const fs::path& file) { return file.filename() == name; });
}

bool RunDirectory::contains(const fs::path& file) const {
  std::error_code error;
  return fs::equivalent(file.has_parent_path() ? file.parent_path() : ".", directory_, error);
}

void RunDirectory::prepare() {
  std::error_code error;
  const bool made = fs::create_directories(directory_, error);
  if (error || !fs::is_directory(directory_, error)) {
    fail("cannot make the output directory {}: {}; give another with -o", directory_.string(),
         error ? error.message() : "there is a file of that name");
  }
  const int descriptor = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor);
    fail("another wrn_train is at work in {}: wait for its end, or give another -o",
         directory_.string());
  }
  lock_ = std::make_shared<Lock>(descriptor, made ? directory_ : fs::path());
  remove_stale_temporaries(directory_);
}

void RunDirectory::check_writable(bool with_events) const {
  if (::access(directory_.c_str(), W_OK | X_OK) != 0) {
    fail("cannot write to {}: {}; give another with -o", directory_.string(),
         std::generic_category().message(errno));
  }
  const auto in_the_way = [](const fs::path& path, const char* what) {
    fail("{} is in the way: it is {}; move it, or give another -o", path.string(), what);
  };
  std::error_code error;
  for (const fs::path& file : files()) {
    if (fs::is_directory(fs::symlink_status(file, error))) in_the_way(file, "a directory");
  }
  if (with_events && fs::exists(fs::symlink_status(tensorboard(), error)) &&
      !fs::is_directory(tensorboard(), error)) {
    in_the_way(tensorboard(), "no directory");
  }
}

void RunDirectory::remove_leftovers() const {
  std::vector<fs::path> leftovers = event_files(tensorboard());
  leftovers.insert(leftovers.end(), {best(), predictions()});
  for (const fs::path& path : leftovers) {
    std::error_code error;
    fs::remove(path, error);
    if (error) fail("cannot remove {}: {}", path.string(), error.message());
  }
  ::rmdir(tensorboard().c_str());  // fails if anything is in it
}

void RunDirectory::begin_events() { events_ = std::make_shared<EventFile>(tensorboard()); }

void RunDirectory::write_config(const nlohmann::json& config) const {
  write_file_atomically(this->config(), config.dump(2) + "\n");
}

void RunDirectory::write_metrics(const nlohmann::json& config,
                                 const std::vector<nlohmann::json>& metrics) const {
  std::string lines;
  for (const nlohmann::json& line : metrics) lines += line.dump() + "\n";
  write_file_atomically(this->metrics(), lines);
  RunRecord run{directory_.filename().string(), config, metrics, std::nullopt};
  try {
    run.predictions = read_predictions(predictions());
  } catch (const Error&) {
    // None yet, or those of a run that someone else left here: the report does without.
  }
  write_file_atomically(report(), report_html({run}));
  if (events_) events_->write(metrics);
}

void RunDirectory::save(const Checkpoint& checkpoint, const Parameters& parameters,
                        bool is_best) const {
  Safetensors file;
  file.metadata = to_metadata(checkpoint);
  export_state(parameters, checkpoint.total_steps(), true, file);
  if (checkpoint.whitening) export_whitening(*checkpoint.whitening, file);
  // Best comes first: killed between the two, the run comes to this epoch once more. The other way
  // round, it would go on from here with a best that is out of date.
  write_safetensors(is_best ? best() : latest(), file);
  if (is_best) replace_with_hard_link(best(), latest());
}

}  // namespace wrn
