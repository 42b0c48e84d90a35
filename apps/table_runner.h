// Trains what the tables need, a wrn_train for each run.
#pragma once

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/paper_tables.h"
#include "apps/table_runs.h"

namespace wrn {

struct RunnerOptions {
  std::filesystem::path output_dir = "runs/tables";
  std::vector<std::string> data_paths = {"."};
  TableSettings settings;
  std::string device = "auto", precision = "auto";
  int threads = 0;
};

/// Thrown once a signal has asked for an end, and the run at hand has saved itself.
struct Interrupted {
  int signal;
};

/// Every run of the tables that is not finished, each experiment's first before any second. Prints
/// a line for each, and keeps the pages up to date. A run that fails is reported, and the rest go
/// on. `stop` is set by the handler of a signal to its number, and `signals` counted up. Returns
/// whether all runs are finished.
bool run_tables(const std::vector<PaperTable>& tables, const RunnerOptions& options,
                const volatile std::sig_atomic_t& stop, const volatile std::sig_atomic_t& signals);

}  // namespace wrn
