// Curves for TensorBoard: Loss/train, Loss/test, Error/train, Error/test (and /validation), LR,
// against the epoch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace wrn {

/// An event file. Each process that trains a run begins one, and writes the run's whole history
/// into it; TensorBoard shows the last file's and forgets what earlier ones say of the same epochs.
class EventFile {
 public:
  /// Begins a file in `directory`, which is made where there is none, named to come after those
  /// that are there. Throws an Error where that fails.
  explicit EventFile(const std::filesystem::path& directory);

  /// Appends what is new in a run's history, the lines of metrics.jsonl. An epoch's time is when it
  /// would have ended, had the run not been interrupted until now. Throws an Error where the file
  /// cannot be written.
  void write(const std::vector<nlohmann::json>& history);

 private:
  void append(const std::string& records);

  std::filesystem::path path_;
  std::size_t written_ = 0;  // lines of the history
};

/// The files in `directory` that have names of an EventFile's.
std::vector<std::filesystem::path> event_files(const std::filesystem::path& directory);

/// CRC-32C (Castagnoli), for tests too.
std::uint32_t crc32c(const std::string& bytes);

}  // namespace wrn
