// What every program does with its command line.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace wrn {

/// Checks that a value is a whole number in decimal, from `low` to `high`. CLI11 by itself takes
/// 010 for 8, and -1 and 2^64 for 2^64 - 1.
inline CLI::Validator whole(std::uint64_t low, std::uint64_t high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    std::uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    const bool decimal = error == std::errc() && stop == end && (text[0] != '0' || text == "0");
    if (decimal && low <= value && value <= high) return "";
    return fmt::format("'{}' is no whole number from {} to {}", text, low, high);
  };
  return {check, fmt::format("{} to {}", low, high)};
}

/// Checks that a value is a number from `low` to `high`, with which no NaN compares.
inline CLI::Validator real(double low, double high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    double value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error == std::errc() && stop == end && low <= value && value <= high) return "";
    return fmt::format("'{}' is no number from {} to {}", text, low, high);
  };
  return {check, fmt::format("{} to {}", low, high)};
}

/// Throws where a value is empty, as in --lr "" or --lr=: CLI11 by itself takes that for 0, or for
/// none.
inline void check_no_value_is_empty(int argc, const char* const* argv) {
  for (int i = 1; i < argc && argv[i] != std::string_view("--"); ++i) {
    const std::string_view word = argv[i], before = argv[i - 1];
    if (word.empty() && !(i > 1 && before.starts_with('-'))) {
      throw CLI::ValidationError(fmt::format("argument {} is empty", i));
    }
    if (word.empty() || (word.starts_with("--") && word.find('=') == word.size() - 1)) {
      throw CLI::ValidationError(fmt::format(
          "the value of {} is empty", word.empty() ? before : word.substr(0, word.size() - 1)));
    }
  }
}

/// Parses it. Returns the exit status where it asked for no more than what is printed then, the
/// help or the version. Throws an Error(kUsage) for what is wrong with it.
inline std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv) {
  try {
    check_no_value_is_empty(argc, argv);
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    throw Error(fmt::format("{}; see {} --help", error.what(), app.get_name()), Status::kUsage);
  }
}

}  // namespace wrn
