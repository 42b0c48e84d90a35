#include "apps/table_runner.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <system_error>
#include <thread>

#include "apps/child_process.h"
#include "apps/messages.h"
#include "apps/progress.h"
#include "apps/recipes.h"
#include "apps/table_pages.h"
#include "data/files.h"
#include "engine/atomic_file.h"
#include "engine/descriptor.h"
#include "kernels/error.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;

// ---- Data --------------------------------------------------------------------------------------

struct DataKind {
  std::vector<const char*> folders;  // where below --data-path, the first that has them all:
  std::vector<std::string> files;
  const char* script;
  std::int64_t train, test;  // images
};

const DataKind& data_kind(const std::string& dataset) {
  static const std::map<std::string, DataKind> kinds = {
      {"cifar10",
       {{"cifar-10-batches-bin", "cifar/cifar-10-batches-bin", "cifar", ""},
        {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
         "data_batch_5.bin", "test_batch.bin"},
        "data/get_cifar.sh cifar10",
        50000,
        10000}},
      {"cifar100",
       {{"cifar-100-binary", "cifar/cifar-100-binary", "cifar", ""},
        {"train.bin", "test.bin"},
        "data/get_cifar.sh cifar100",
        50000,
        10000}},
      {"svhn",
       {{"svhn", ""},
        {"train_32x32.mat", "extra_32x32.mat", "test_32x32.mat"},
        "data/get_svhn.sh",
        604388,
        26032}}};
  return kinds.at(dataset);
}

/// The directory that has the data set; empty where none has.
fs::path find_data(const std::string& dataset, const std::vector<std::string>& roots) {
  const DataKind& kind = data_kind(dataset);
  for (const fs::path root : roots) {
    for (const char* folder : kind.folders) {
      const fs::path place = (root / folder).lexically_normal();
      if (std::none_of(kind.files.begin(), kind.files.end(),
                       [&](const std::string& file) { return missing(place / file); })) {
        return place;
      }
    }
  }
  return {};
}

// ---- The runs ----------------------------------------------------------------------------------

/// One line at the bottom of a terminal; nothing elsewhere.
class StatusLine {
 public:
  ~StatusLine() { draw(""); }
  void draw(const std::string& text) {
    if (!terminal_ || text == shown_) return;
    const auto room = static_cast<std::size_t>(std::max(terminal_columns() - 1, 0));
    std::cout << "\r\x1b[K" << text.substr(0, room) << std::flush;
    shown_ = text;
  }

 private:
  bool terminal_ = isatty(STDOUT_FILENO) != 0;
  std::string shown_;
};

struct Job {
  Experiment experiment;
  std::string name;  // "wrn-28-10-cifar10-meanstd-1a2b3c4d seed 1"
  int seed = 1;
  RunFiles files;
  fs::path data;
  double cost = 0;  // of an epoch, in a unit of its own
  RunProgress state;
};

/// "1 run", "2 runs"
std::string runs_text(std::int64_t runs) {
  return fmt::format("{} run{}", runs, runs == 1 ? "" : "s");
}

enum class Outcome { kFinished, kFailed, kBusy };

class TableRunner {
 public:
  TableRunner(const RunnerOptions& options, const volatile std::sig_atomic_t& stop,
              const volatile std::sig_atomic_t& signals)
      : options_(options), stop_(stop), signals_(signals) {}

  /// Every run of the tables, each experiment's first ones before any second. Returns whether all
  /// are finished.
  bool run(const std::vector<PaperTable>& tables);

 private:
  void list_jobs(const std::vector<PaperTable>& tables);
  int expected_epochs(const Job& job) const;
  std::string time_left() const;
  std::vector<std::string> command_of(const Job& job) const;
  /// Runs a job, unless another process does. Then, if told to, waits for it to end first.
  Outcome run(Job& job, const std::string& label, bool wait);
  Outcome train(Job& job, const std::string& label, int log);
  void watch(ChildProcess& child, Job& job, const std::string& label);
  void remove_checkpoints(const Job& job) const;

  const RunnerOptions& options_;
  const volatile std::sig_atomic_t &stop_, &signals_;
  fs::path wrn_train_ = fs::read_symlink("/proc/self/exe").replace_filename("wrn_train");
  std::vector<Job> jobs_;
  int left_out_ = 0;  // runs whose data is missing
  StatusLine status_;
};

void TableRunner::list_jobs(const std::vector<PaperTable>& tables) {
  const Rehearsal& rehearsal = options_.settings.rehearsal;
  const auto images = [](std::int64_t all, std::int64_t limit) {
    return static_cast<double>(limit > 0 ? std::min(all, limit) : all);
  };
  std::map<std::string, int> missing;  // runs by data set
  for (int seed = 1; seed <= options_.settings.runs; ++seed) {
    std::set<std::string> met;
    for (const PaperTable& table : tables) {
      for (const PaperRow& row : table.rows) {
        const Experiment& e = row.experiment;
        const std::string name = experiment_name(e, rehearsal);
        if (!met.insert(name).second) continue;
        Job job{e,
                fmt::format("{} seed {}", name, seed),
                seed,
                RunFiles(options_.output_dir, name, seed),
                find_data(e.dataset, options_.data_paths),
                0,
                {}};
        job.state = run_progress(job.files);
        // A network's multiplications are nearly proportional to its parameters; training takes
        // three times those of evaluation.
        const DataKind& data = data_kind(e.dataset);
        job.cost = static_cast<double>(parameter_count(e)) *
                   (3 * images(data.train, rehearsal.limit_train) +
                    images(data.test, rehearsal.limit_test));
        if (job.data.empty() && !job.state.finished()) {
          ++missing[e.dataset];
        } else {
          jobs_.push_back(std::move(job));
        }
      }
    }
  }
  for (const auto& [dataset, runs] : missing) {
    left_out_ += runs;
    print_error(
        "wrn_tables",
        fmt::format("{} is not in {}, so {} left out: get it with {}, or say where it is with "
                    "--data-path",
                    dataset, fmt::join(options_.data_paths, ", "),
                    runs_text(runs) + (runs == 1 ? " is" : " are"), data_kind(dataset).script));
  }
}

int TableRunner::expected_epochs(const Job& job) const {
  if (job.state.epochs > 0) return job.state.epochs;
  const auto epochs = static_cast<int>(options_.settings.rehearsal.epochs);
  return epochs > 0 ? epochs : recipe_of(job.experiment.recipe).settings.at("epochs").get<int>();
}

/// By the epochs measured so far, of these runs or, in proportion, of others.
std::string TableRunner::time_left() const {
  double seconds = 0, cost = 0, left = 0;
  for (const Job& job : jobs_) {
    if (job.state.epochs_done == 0) continue;
    seconds += job.state.seconds_per_epoch;
    cost += job.cost;
  }
  if (cost == 0) return "";
  for (const Job& job : jobs_) {
    const double epoch =
        job.state.epochs_done > 0 ? job.state.seconds_per_epoch : job.cost * seconds / cost;
    left += epoch * (expected_epochs(job) - job.state.epochs_done);
  }
  return fmt::format("; all in about {}", duration_text(left));
}

std::vector<std::string> TableRunner::command_of(const Job& job) const {
  std::vector<std::string> command = {wrn_train_.string()};
  const std::vector<std::string> flags =
      training_flags(job.experiment, options_.settings.rehearsal);
  command.insert(command.end(), flags.begin(), flags.end());
  command.insert(command.end(),
                 {"--seed", std::to_string(job.seed), "--data-path", job.data.string(), "--device",
                  options_.device, "--precision", options_.precision, "--threads",
                  std::to_string(options_.threads), "-o", job.files.directory.string()});
  // Without a checkpoint there is nothing worth keeping.
  command.push_back(missing(job.files.directory / "latest.safetensors") ? "--overwrite"
                                                                        : "--resume");
  return command;
}

/// A rehearsal's weights are of no use, and gigabytes.
void TableRunner::remove_checkpoints(const Job& job) const {
  if (!options_.settings.rehearsal) return;
  for (const char* name : {"latest.safetensors", "best.safetensors"}) {
    std::error_code ignored;
    fs::remove(job.files.directory / name, ignored);
  }
}

Outcome TableRunner::run(Job& job, const std::string& label, bool wait) {
  std::error_code error;
  fs::create_directories(job.files.log.parent_path(), error);
  if (error) fail("cannot make {}: {}", job.files.log.parent_path().string(), error.message());
  const Descriptor log(open(job.files.log.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  const auto system_error = [] { return std::generic_category().message(errno); };
  if (log.number() < 0) fail("cannot open {}: {}", job.files.log.string(), system_error());

  // The log is locked as long as this process or its wrn_train has it open.
  if (wait) status_.draw(label + ": waiting for the process that runs it");
  while (flock(log.number(), wait ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Outcome::kBusy;
    if (errno != EINTR) fail("cannot lock {}: {}", job.files.log.string(), system_error());
    if (stop_ != 0) throw Interrupted{stop_};
  }
  job.state = run_progress(job.files);
  if (job.state.finished()) {
    remove_checkpoints(job);
    return Outcome::kFinished;
  }
  return train(job, label, log.number());
}

/// What wrn_train said last of its own failure, in this attempt.
std::string failure_of(int status, const fs::path& log, std::uintmax_t begin) {
  std::ifstream file(log, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(begin));
  std::string reason;
  const std::string name = "wrn_train: ";
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name) && !line.starts_with(name + "warning"))
      reason = line.substr(name.size());
  }
  if (status < 0) {
    return fmt::format("killed by signal {}{}; see {}", -status,
                       status == -SIGKILL ? ", perhaps for want of memory" : "", log.string());
  }
  if (reason.empty()) return fmt::format("exit status {}; see {}", status, log.string());
  return reason;
}

Outcome TableRunner::train(Job& job, const std::string& label, int log) {
  const std::uintmax_t begin = fs::file_size(job.files.log);
  {
    std::error_code ignored;
    fs::remove(job.files.failed, ignored);
  }
  ChildProcess child(command_of(job), log);
  watch(child, job, label);
  status_.draw("");
  job.state = run_progress(job.files);
  if (job.state.finished() && child.status() == 0) {
    remove_checkpoints(job);
    std::cout << fmt::format("{}: test error {:.2f}%, {:.1f} s/epoch\n", label, job.state.error,
                             job.state.seconds_per_epoch)
              << std::flush;
    return Outcome::kFinished;
  }
  if (stop_ != 0) throw Interrupted{stop_};
  job.state.failure = *child.status() == 0
                          ? fmt::format("its files are broken: remove {} and run again",
                                        job.files.directory.string())
                          : failure_of(*child.status(), job.files.log, begin);
  print_error("wrn_tables", fmt::format("{}: {}", job.name, job.state.failure));
  write_file_atomically(job.files.failed, job.state.failure + "\n");
  return Outcome::kFailed;
}

/// Until the child ends. Passes on the signals that come.
void TableRunner::watch(ChildProcess& child, Job& job, const std::string& label) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point looked{};
  for (std::sig_atomic_t passed_on = 0; !child.status();) {
    if (signals_ != passed_on) {
      passed_on = signals_;
      child.send(stop_);
    }
    if (Clock::now() - looked > std::chrono::seconds(1)) {
      looked = Clock::now();
      job.state = run_progress(job.files);
      std::string text = label;
      if (job.state.epochs > 0) {
        text += fmt::format(": epoch {}/{}", std::min(job.state.epochs_done + 1, job.state.epochs),
                            job.state.epochs);
      }
      status_.draw(text + time_left());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

bool TableRunner::run(const std::vector<PaperTable>& tables) {
  list_jobs(tables);
  if (jobs_.empty()) fail("nothing can be run without data");
  const auto finished_before = std::count_if(jobs_.begin(), jobs_.end(),
                                             [](const Job& job) { return job.state.finished(); });
  std::cout << fmt::format("{}, {} finished already; results in {}\n", runs_text(std::ssize(jobs_)),
                           finished_before, (options_.output_dir / "tables.html").string())
            << std::flush;
  write_pages(options_.output_dir, options_.settings);

  std::int64_t finished = 0;
  std::vector<std::size_t> others;  // what other processes are at
  const auto attempt = [&](std::size_t i, bool wait) {
    if (stop_ != 0) throw Interrupted{stop_};
    const std::string label = fmt::format("[{}/{}] {}", i + 1, jobs_.size(), jobs_[i].name);
    const bool was_finished = jobs_[i].state.finished();
    const Outcome outcome = run(jobs_[i], label, wait);
    if (outcome == Outcome::kBusy) others.push_back(i);
    if (outcome == Outcome::kFinished) ++finished;
    if (!was_finished) write_pages(options_.output_dir, options_.settings);
  };
  for (std::size_t i = 0; i < jobs_.size(); ++i) attempt(i, false);
  for (std::size_t k = 0; k < others.size(); ++k) attempt(others[k], true);

  const std::int64_t failed = std::ssize(jobs_) - finished;
  std::cout << fmt::format("{} finished, {} failed, {} left out for want of data\n",
                           runs_text(finished), failed, left_out_);
  return failed == 0 && left_out_ == 0;
}

}  // namespace

bool run_tables(const std::vector<PaperTable>& tables, const RunnerOptions& options,
                const volatile std::sig_atomic_t& stop, const volatile std::sig_atomic_t& signals) {
  return TableRunner(options, stop, signals).run(tables);
}

}  // namespace wrn
