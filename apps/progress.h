// What a person sees while a network trains: one line an epoch, and on a terminal a bar below them.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace wrn {

/// Columns of the terminal the process writes to, 80 where that is not known.
int terminal_columns();

/// A time as people say it, in five or six characters: 12s, 3m12s, 1h02m, 2d03h; "?" for what is
/// no time (negative, not finite).
std::string duration_text(double seconds);

class Progress {
 public:
  /// `out` outlives the object. `columns` is asked at every drawing, as windows change their size.
  Progress(bool quiet, int epochs, std::ostream& out, bool is_terminal,
           std::function<int()> columns = terminal_columns);
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Redraws the bar, at most ten times a second, when on a terminal and not quiet. `step` of
  /// `steps` are done in this epoch (counted from 1); loss and error (percent) are the epoch's so
  /// far; seconds_left is the whole run's, and left out where it is not finite.
  void batch(int epoch, std::int64_t step, std::int64_t steps, double loss, double error_percent,
             double images_per_second, double seconds_left);

  /// Prints the line of a finished epoch, a line of metrics.jsonl, in place of the bar.
  void epoch_done(const nlohmann::json& metrics);

  /// Prints a line above the bar, also when quiet: quiet silences the progress, not the program.
  void message(std::string_view text);

  /// Clears the bar. The destructor does it too, so that an error is printed on a line of its own.
  void finish();

 private:
  void print_line(std::string_view text);

  bool bar_wanted_;
  bool quiet_;
  int epochs_;
  std::ostream& out_;
  std::function<int()> columns_;
  std::string bar_;  // as it stands on the screen; empty when there is none
  std::chrono::steady_clock::time_point drawn_{};
};

}  // namespace wrn
