// The end of every program: an error is one line on stderr, and its kind the exit status. Output
// that did not arrive is an error.
#pragma once

#include <csignal>
#include <cstdio>
#include <exception>
#include <new>

#include "apps/messages.h"
#include "kernels/error.h"

namespace wrn {

/// Throws an Error where anything printed so far did not arrive, to a full disk or a closed stdout.
/// std::cout needs no look of its own: it prints by way of stdout.
inline void check_stdout() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    fail("cannot write to standard output");
  }
}

/// Runs body(), which returns the exit status.
template <typename Body>
int guarded_main(const char* program, Body body) {
  const auto end = [&](const char* what, Status status) {
    print_error(program, what);
    return static_cast<int>(status);
  };
  // A write beyond a file size limit then fails like one to a full disk.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    const int status = body();
    if (status == 0) check_stdout();
    return status;
  } catch (const Error& error) {
    return end(error.what(), error.status);
  } catch (const std::bad_alloc&) {
    return end("out of memory", Status::kOutOfMemory);
  } catch (const std::exception& error) {
    return end(error.what(), Status::kRuntime);
  }
}

}  // namespace wrn
