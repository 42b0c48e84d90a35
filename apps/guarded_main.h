// The end of every program: an error is one line on stderr, and its kind the exit status.
#pragma once

#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "kernels/error.h"

namespace wrn {

inline std::string one_line(std::string text) {
  for (char& c : text) c = c == '\n' || c == '\r' ? ' ' : c;
  return text;
}

/// Runs body(), which returns the exit status.
template <typename Body>
int guarded_main(const char* program, Body body) {
  const auto end = [&](const char* what, Status status) {
    std::fprintf(stderr, "%s: %s\n", program, one_line(what).c_str());
    return static_cast<int>(status);
  };
  try {
    return body();
  } catch (const Error& error) {
    return end(error.what(), error.status);
  } catch (const std::bad_alloc&) {
    return end("out of memory", Status::kOutOfMemory);
  } catch (const std::exception& error) {
    return end(error.what(), Status::kRuntime);
  }
}

}  // namespace wrn
