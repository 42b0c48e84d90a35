// What every program does with its command line.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <optional>

#include "kernels/error.h"

namespace wrn {

/// Parses it. Returns the exit status where it asked for no more than what is printed then, the
/// help or the version. Throws an Error(kUsage) for what is wrong with it.
inline std::optional<int> parse_command_line(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    throw Error(fmt::format("{}; see --help", error.what()), Status::kUsage);
  }
}

}  // namespace wrn
