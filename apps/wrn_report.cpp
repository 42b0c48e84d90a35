// wrn_report RUN_DIR...: one page of a run, or of several side by side.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "apps/report.h"
#include "engine/atomic_file.h"

namespace {

constexpr std::size_t kMostRuns = 16;  // more curves on one pair of axes say nothing

int run(int argc, char** argv) {
  CLI::App app(
      "Makes a page (HTML, all in one file) of the runs that wrn_train left: curves, confusion "
      "matrix, surest mistakes, the network, the configuration. Of several runs it compares "
      "results, settings and curves.\n\n"
      "A run from before predictions.safetensors gets one by\n"
      "  wrn_train --test-only --resume -o RUN_DIR",
      "wrn_report");
  std::vector<std::string> directories;
  std::string output;
  app.add_option("RUN_DIR", directories, "Output directories of wrn_train, 1 to 16")->required();
  app.add_option("-o,--output", output,
                 "The page (default report.html in RUN_DIR, or here if they are several)")
      ->type_name("FILE.html")
      ->check([](const std::string& name) -> std::string {  // and not a run's file by mistake
        return name.ends_with(".html") ? "" : "'" + name + "' does not end in .html";
      });
  app.set_version_flag("--version", "wrn_report " WRN_VERSION);
  if (const auto status = wrn::parse_command_line(app, argc, argv)) return *status;
  if (directories.size() > kMostRuns) {
    throw wrn::Error(fmt::format("{} runs are more than one page can compare ({})",
                                 directories.size(), kMostRuns),
                     wrn::Status::kUsage);
  }
  std::vector<wrn::RunRecord> runs;
  for (const std::string& directory : directories) runs.push_back(wrn::read_run(directory));
  // Directories of one name in different places are told apart by where they are.
  std::map<std::string, int> of_name;
  for (const wrn::RunRecord& run : runs) ++of_name[run.name];
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (of_name[runs[i].name] > 1) runs[i].name = directories[i];
  }
  if (output.empty()) {
    output = directories.size() > 1
                 ? "report.html"
                 : (std::filesystem::path(directories[0]) / "report.html").string();
  }
  wrn::write_file_atomically(output, wrn::report_html(runs));
  fmt::print("{}\n", output);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return wrn::guarded_main("wrn_report", [&] { return run(argc, argv); });
}
