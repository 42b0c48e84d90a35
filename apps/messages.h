// What the programs say on stderr: one line each, that begins with the program's name.
#pragma once

#include <cstdio>
#include <string>

namespace wrn {

inline std::string one_line(std::string text) {
  for (char& c : text) c = c == '\n' || c == '\r' ? ' ' : c;
  return text;
}

/// Of what ends the program, or a part of its work.
inline void print_error(const char* program, const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", program, one_line(what).c_str());
}

/// Of what the user should know, and what keeps nothing from being done.
inline void warn(const char* program, const std::string& what) {
  print_error(program, "warning: " + what);
}

}  // namespace wrn
