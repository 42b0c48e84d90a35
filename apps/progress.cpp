#include "apps/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <ostream>
#include <utility>
#include <vector>

#include "apps/history.h"

namespace wrn {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);
constexpr std::size_t kShortestBar = 8, kLongestBar = 40;
constexpr const char* kClearLine = "\r\x1b[K";  // to the first column, erase what follows

std::string epoch_text(int epoch, int epochs) {
  const std::string total = fmt::format("{}", epochs);
  return fmt::format("epoch {:>{}}/{}", epoch, total.size(), total);
}

/// `length` characters in all, brackets included.
std::string bar_text(double done, std::size_t length) {
  const std::size_t inside = length - 2;
  const auto filled = static_cast<std::size_t>(done * static_cast<double>(inside));
  std::string bar = std::string(filled, '=') + std::string(inside - filled, ' ');
  if (filled < inside) bar[filled] = '>';
  return "[" + bar + "]";
}

/// A bar, and the numbers that fit beside it, the most wanted first; the bar takes the room that is
/// left. ASCII alone, so that a character is a column.
std::string fit(const std::string& epoch, const std::vector<std::string>& numbers, double done,
                std::size_t room) {
  const std::size_t least = epoch.size() + 1 + kShortestBar;
  if (room < least) return epoch.substr(0, room);
  std::string tail;
  for (const std::string& number : numbers) {
    if (least + tail.size() + 2 + number.size() > room) break;
    tail += "  " + number;
  }
  const std::size_t length = std::min(kShortestBar + room - least - tail.size(), kLongestBar);
  return epoch + " " + bar_text(done, length) + tail;
}

}  // namespace

int terminal_columns() {
  for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  }
  return 80;
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t minutes = whole / 60, hours = minutes / 60;
  if (whole < 60) return fmt::format("{}s", whole);
  if (hours < 1) return fmt::format("{}m{:02}s", minutes, whole % 60);
  if (hours < 48) return fmt::format("{}h{:02}m", hours, minutes % 60);
  return fmt::format("{}d{:02}h", hours / 24, hours % 24);
}

Progress::Progress(bool quiet, int epochs, std::ostream& out, bool is_terminal,
                   std::function<int()> columns)
    : bar_wanted_(is_terminal && !quiet),
      quiet_(quiet),
      epochs_(epochs),
      out_(out),
      columns_(std::move(columns)) {}

void Progress::batch(int epoch, std::int64_t step, std::int64_t steps, double loss,
                     double error_percent, double images_per_second, double seconds_left) {
  if (!bar_wanted_) return;
  const auto now = std::chrono::steady_clock::now();
  if (!bar_.empty() && now - drawn_ < kRedrawInterval) return;
  drawn_ = now;

  std::vector<std::string> numbers = {fmt::format("loss {:.4f}", loss),
                                      fmt::format("error {:>5.2f}%", error_percent)};
  if (std::isfinite(seconds_left)) numbers.push_back(duration_text(seconds_left) + " left");
  numbers.push_back(fmt::format("{:.0f} images/s", images_per_second));

  const double done = steps > 0 ? static_cast<double>(step) / static_cast<double>(steps) : 0.0;
  // The last column stays free: many terminals wrap as soon as it is written.
  const auto room = static_cast<std::size_t>(std::max(columns_() - 1, 0));
  bar_ = fit(epoch_text(epoch, epochs_), numbers, std::clamp(done, 0.0, 1.0), room);
  out_ << kClearLine << bar_ << std::flush;
}

void Progress::epoch_done(const nlohmann::json& metrics) {
  if (quiet_) return;
  std::string line = fmt::format("{}  lr {:<6.4g}", epoch_text(metrics.value("epoch", 0), epochs_),
                                 number(metrics, "lr"));
  for (const std::string split : {"train", "val", "test"}) {
    if (!metrics.contains(split + "_loss")) continue;
    line += fmt::format("  {} {:>6.4f} {:>5.2f}%", split, number(metrics, split + "_loss"),
                        number(metrics, split + "_error"));
  }
  line += fmt::format("  {:>5.0f} images/s  {:>6.1f} s", number(metrics, "images_per_second"),
                      number(metrics, "seconds"));
  finish();  // the bar's epoch is over
  print_line(line);
}

void Progress::message(std::string_view text) { print_line(text); }

void Progress::finish() {
  if (bar_.empty()) return;
  bar_.clear();
  out_ << kClearLine << std::flush;
}

/// A line in the bar's place, and the bar again below it.
void Progress::print_line(std::string_view text) {
  if (!bar_.empty()) out_ << kClearLine;
  out_ << text << '\n' << bar_ << std::flush;
}

}  // namespace wrn
