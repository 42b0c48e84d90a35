#include "apps/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "apps/report.h"
#include "data/files.h"
#include "engine/atomic_file.h"
#include "engine/checkpoint.h"
#include "engine/descriptor.h"
#include "kernels/error.h"

namespace wrn {

namespace fs = std::filesystem;

void check_writable(const fs::path& directory, const char* flag) {
  if (::access(directory.c_str(), W_OK | X_OK) != 0) {
    fail("cannot write to {}: {}; give another with {}", directory.string(),
         std::generic_category().message(errno), flag);
  }
}

namespace {

/// Directories of which the empty ones are removed in the end, in this order.
struct MadeDirectories {
  ~MadeDirectories() {
    for (const fs::path& path : paths) ::rmdir(path.c_str());  // fails if anything is in it
  }
  std::vector<fs::path> paths;
};

}  // namespace

/// On the directory itself. Some file systems have no locks: there it is none.
struct RunDirectory::Lock {
  explicit Lock(const fs::path& directory)
      : descriptor(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}

  Descriptor descriptor;
  MadeDirectories made;  // this one and those above it that were not there before
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
  return name == tensorboard().filename() ||
         std::ranges::any_of(files(),
                             [&](const fs::path& file) { return file.filename() == name; });
}

bool RunDirectory::contains(const fs::path& file) const {
  std::error_code error;
  return fs::equivalent(file.has_parent_path() ? file.parent_path() : ".", directory_, error);
}

void RunDirectory::prepare() {
  MadeDirectories made;
  for (fs::path path = directory_; missing(path) && !path.empty(); path = path.parent_path()) {
    made.paths.push_back(path);
  }
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error || !fs::is_directory(directory_, error)) {
    fail("cannot make the output directory {}: {}; give another with -o", directory_.string(),
         error ? error.message() : "there is a file of that name");
  }
  const auto lock = std::make_shared<Lock>(directory_);
  const bool locked_elsewhere =
      ::flock(lock->descriptor.number(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  struct stat status {};
  const bool removed = ::fstat(lock->descriptor.number(), &status) == 0 && status.st_nlink == 0;
  if (locked_elsewhere || removed) {
    made.paths.clear();  // the other process has made them, too
    fail("another wrn_train is at work in {}: wait for its end, or give another -o",
         directory_.string());
  }
  lock->made.paths.swap(made.paths);
  lock_ = lock;
  remove_stale_temporaries(directory_);
}

void RunDirectory::check_writable(bool with_events, bool replaces) const {
  wrn::check_writable(directory_, "-o");
  const auto in_the_way = [](const fs::path& path, const char* what) {
    fail("{} is in the way: it is {}; move it, or give another -o", path.string(), what);
  };
  std::error_code error;
  for (const fs::path& file : files()) {
    if (fs::is_directory(fs::symlink_status(file, error))) in_the_way(file, "a directory");
  }
  if (fs::is_directory(tensorboard(), error)) {
    if (with_events || replaces) wrn::check_writable(tensorboard(), "-o");
  } else if (with_events && fs::exists(fs::symlink_status(tensorboard(), error))) {
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
