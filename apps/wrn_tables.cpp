// wrn_tables: the paper's tables, each by one command.
//
// Reading order: main() at the end; paper_tables (what the paper has); table_runs (where a run is
// kept, and how far it is); table_runner (wrn_train for each run); table_pages (the result).
#include <CLI/CLI.hpp>
#include <climits>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <optional>

#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "apps/json_text.h"
#include "apps/options.h"
#include "apps/paper_tables.h"
#include "apps/table_pages.h"
#include "apps/table_runner.h"
#include "apps/table_runs.h"
#include "data/files.h"
#include "engine/atomic_file.h"
#include "kernels/error.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDescription =
    "Train the networks of the paper's CIFAR and SVHN tables, and set the errors beside the "
    "paper's.";

constexpr const char* kFooter = R"(Examples
  wrn_tables list                                  the tables and their rows
  wrn_tables run dropout --device cuda             five runs of each row
  wrn_tables run zca/wrn-40-2 blocks --runs 1      some rows and a table, one run each
  wrn_tables run all --epochs 1 --limit-train 256 --limit-test 256 --runs 1 -o runs/rehearsal
  wrn_tables show dropout                          the table, from what is there

Each run is one of wrn_train, the program beside this one. Stop it at any moment, and give the same
command again to go on; what is finished is not run again, and tables share their runs. Several
wrn_tables may work on one output directory, each on a GPU of its own.

Exit status: 0 all runs finished, 1 some failed or their data is missing, 2 usage,
128+n stopped by signal n.)";

volatile std::sig_atomic_t g_stop = 0;     // the signal that asked for an end
volatile std::sig_atomic_t g_signals = 0;  // how many came

extern "C" void request_stop(int signal) {
  g_stop = signal;
  g_signals = g_signals + 1;
}

struct Options : RunnerOptions {
  std::vector<std::string> tables;
};

// ---- What the output directory is for ----------------------------------------------------------

fs::path settings_file(const fs::path& output_dir) { return output_dir / "settings.json"; }

TableSettings read_settings(const fs::path& output_dir) {
  const fs::path path = settings_file(output_dir);
  if (missing(path)) {
    fail("{} holds no tables: wrn_tables run begins them, and -o says where they are",
         output_dir.string());
  }
  const std::optional<TableSettings> settings = settings_of(parse_json(read_text(path)));
  if (!settings) {
    fail(
        "{} cannot be read: it is not as wrn_tables writes it; remove it, and give the same "
        "command as before",
        path.string());
  }
  return *settings;
}

/// A directory is for runs of one kind.
void keep_settings(const Options& options) {
  std::error_code error;
  fs::create_directories(options.output_dir, error);
  if (error || !fs::is_directory(options.output_dir, error)) {
    fail("cannot make the output directory {}: {}; give another with -o",
         options.output_dir.string(), error ? error.message() : "there is a file of that name");
  }
  if (!missing(settings_file(options.output_dir))) {
    const Rehearsal there = read_settings(options.output_dir).rehearsal;
    if (there != options.settings.rehearsal) {
      const auto text = [](const Rehearsal& r) {
        return r ? fmt::format("a rehearsal with {}", fmt::join(r.flags(), " "))
                 : std::string("runs as in the paper");
      };
      throw Error(
          fmt::format("{} holds {}, and this is {}: give another with -o",
                      options.output_dir.string(), text(there), text(options.settings.rehearsal)),
          Status::kUsage);
    }
  }
  remove_stale_temporaries(options.output_dir);
  write_file_atomically(settings_file(options.output_dir),
                        nlohmann::json(options.settings).dump(2) + "\n");
}

// ---- The commands ------------------------------------------------------------------------------

int list(const Options& options) {
  for (const PaperTable& table : select_tables(options.tables)) {
    std::cout << fmt::format("{}: {}. {}\n", table.name, table.title, table.about);
    for (const PaperRow& row : table.rows) {
      std::cout << fmt::format("  {:<38} {:>10} parameters, {:>5.2f}% in the paper{}\n",
                               table.name + "/" + row.name, parameter_count(row.experiment),
                               row.error, row.remark.empty() ? "" : ", " + row.remark);
    }
  }
  return 0;
}

int run(const Options& options) {
  const std::vector<PaperTable> tables = select_tables(options.tables);
  keep_settings(options);
  struct sigaction action = {};
  action.sa_handler = request_stop;
  for (const int signal : {SIGINT, SIGTERM}) sigaction(signal, &action, nullptr);
  try {
    return run_tables(tables, options, g_stop, g_signals) ? 0 : 1;
  } catch (const Interrupted&) {
    write_pages(options.output_dir, options.settings);
    std::cout << "stopped; the same command goes on\n";
    throw;
  }
}

int show(const Options& options) {
  const std::vector<PaperTable> tables = select_tables(options.tables);
  const TableSettings settings = read_settings(options.output_dir);
  write_pages(options.output_dir, settings);
  std::vector<ResultTable> results;
  for (const PaperTable& table : tables) {
    results.push_back(results_of(table, options.output_dir, settings));
  }
  std::cout << tables_markdown(results, settings);
  return 0;
}

int run_command(int argc, char** argv) {
  Options options;
  CLI::App app{kDescription, "wrn_tables"};
  app.footer(kFooter);
  app.set_version_flag("--version", "wrn_tables " WRN_VERSION);
  app.require_subcommand(1);
  const auto add_command = [&](const char* name, const char* what) {
    CLI::App* command = app.add_subcommand(name, what);
    command->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
    command->get_formatter()->column_width(30);
    return command;
  };
  const auto add_output = [&](CLI::App* command) {
    command->add_option("-o,--output-dir", options.output_dir, "where runs and tables are kept")
        ->capture_default_str();
  };
  const auto add_tables = [&](CLI::App* command) {
    return command
        ->add_option("TABLE", options.tables, "tables or rows, as list names them, or all")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };

  CLI::App* list_command = add_command("list", "print the tables, their rows and their numbers");
  add_tables(list_command);
  CLI::App* run_command = add_command("run", "train what is not trained yet");
  add_tables(run_command)->required();
  add_output(run_command);
  run_command
      ->add_option("--data-path", options.data_paths,
                   "where the data is: in the directory's cifar, cifar-10-batches-bin, "
                   "cifar-100-binary or svhn, or in itself; may be given several times")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false)
      ->capture_default_str();
  run_command->add_option("--runs", options.settings.runs, "runs of each row, of the seeds 1, 2...")
      ->check(whole(1, kMostRuns))
      ->capture_default_str();
  run_command->add_option("--device", options.device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  run_command->add_option("--precision", options.precision, "auto, fp32, tf32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "tf32", "bf16"}))
      ->capture_default_str();
  run_command->add_option("--threads", options.threads, "CPU cores to use, 0 = all")
      ->check(whole(0, kMostThreads))
      ->capture_default_str();
  Rehearsal& rehearsal = options.settings.rehearsal;
  const std::string group = "A rehearsal, kept apart and marked as one";
  run_command->add_option("--epochs", rehearsal.epochs, "instead of the recipe's")
      ->check(whole(1, kMostEpochs))
      ->group(group);
  run_command->add_option("--limit-train", rehearsal.limit_train, "the first N training images")
      ->check(whole(1, INT_MAX))
      ->group(group);
  run_command->add_option("--limit-test", rehearsal.limit_test, "the first N test images")
      ->check(whole(1, INT_MAX))
      ->group(group);
  run_command->add_option("-b,--batch-size", rehearsal.batch_size, "instead of the recipe's")
      ->check(whole(1, kMostBatch))
      ->group(group);
  CLI::App* show_command = add_command("show", "write the tables anew, and print them");
  add_tables(show_command);
  add_output(show_command);

  if (const auto status = parse_command_line(app, argc, argv)) return *status;
  if (options.tables.empty()) options.tables = {"all"};
  if (list_command->parsed()) return list(options);
  return run_command->parsed() ? run(options) : show(options);
}

}  // namespace
}  // namespace wrn

int main(int argc, char** argv) {
  return wrn::guarded_main("wrn_tables", [&] {
    try {
      return wrn::run_command(argc, argv);
    } catch (const wrn::Interrupted& interrupted) {
      return 128 + interrupted.signal;
    }
  });
}
