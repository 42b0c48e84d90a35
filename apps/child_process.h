// A program started beside this one, which ends with it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace wrn {

class ChildProcess {
 public:
  /// Starts command[0] with no input, and with its output and errors going to the descriptor. It is
  /// out of the reach of the terminal's Ctrl-C, and gets a SIGTERM should this process die. Throws
  /// an Error where it cannot be started.
  ChildProcess(const std::vector<std::string>& command, int output);
  /// Kills it if it still runs.
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  /// Once it has ended: its exit status, or minus the signal that ended it.
  std::optional<int> status();
  void send(int signal) const;

 private:
  pid_t pid_ = -1;
  std::optional<int> status_;
};

}  // namespace wrn
