#include "apps/run_record.h"

#include <sstream>

#include "apps/json_text.h"
#include "apps/run_directory.h"
#include "data/files.h"
#include "kernels/error.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::uintmax_t kMostBytes = 256 << 20;  // of a text file; a run's have a few kilobytes

/// Of a regular file of a run's size.
std::string text_of(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    fail("{}: {}", path.string(), error ? error.message() : "is not a regular file");
  }
  if (fs::file_size(path, error) > kMostBytes)
    fail("{}: is too large to be a run's", path.string());
  return read_text(path);
}

/// An object; anything else is an Error. `where` names the file, and the line if it has several.
json parse_object(const std::string& text, const std::string& where) {
  json parsed = parse_json(text);
  if (parsed.is_object()) return parsed;
  fail("{}: is no whole JSON object of wrn_train's: damaged, or written only in part", where);
}

}  // namespace

RunRecord read_run(const fs::path& directory) {
  const RunDirectory files(directory);
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    fail("{}: {}", directory.string(),
         missing(directory) ? "no such directory" : "is not a directory");
  }
  if (missing(files.config())) {
    fail("{}: holds no run of wrn_train: it has no config.json", directory.string());
  }
  RunRecord run;
  const fs::path absolute = fs::weakly_canonical(directory, error);
  run.name = (error ? directory : absolute).filename().string();
  run.config = parse_object(text_of(files.config()), files.config().string());
  if (!missing(files.metrics())) {
    std::istringstream lines(text_of(files.metrics()));
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
      run.metrics.push_back(
          parse_object(line, fmt::format("{}: line {}", files.metrics().string(), number)));
    }
  }
  if (!missing(files.predictions())) run.predictions = read_predictions(files.predictions());
  return run;
}

}  // namespace wrn
