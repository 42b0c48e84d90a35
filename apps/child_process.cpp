#include "apps/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

#include "kernels/error.h"

namespace wrn {
namespace {

/// Between fork and exec: system calls alone.
[[noreturn]] void become(char* const* arguments, int output, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // it died before the line above
  const int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (input >= 0 && dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
      dup2(output, STDERR_FILENO) >= 0) {
    // Copies outlive exec, but where a number was the right one already there was nothing to copy.
    for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) fcntl(number, F_SETFD, 0);
    execv(arguments[0], arguments);
  }
  _exit(127);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command, int output) {
  if (access(command.at(0).c_str(), X_OK) != 0) {
    fail("cannot run {}: {}", command[0], std::generic_category().message(errno));
  }
  std::vector<std::string> words(command);
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t self = getpid();
  pid_ = fork();
  if (pid_ < 0) fail("cannot run {}: {}", command[0], std::generic_category().message(errno));
  if (pid_ == 0) become(arguments.data(), output, self);
}

ChildProcess::~ChildProcess() {
  if (status()) return;
  send(SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::optional<int> ChildProcess::status() {
  int state = 0;
  if (!status_ && waitpid(pid_, &state, WNOHANG) == pid_) {
    status_ = WIFSIGNALED(state) ? -WTERMSIG(state) : WEXITSTATUS(state);
  }
  return status_;
}

void ChildProcess::send(int signal) const { kill(pid_, signal); }

}  // namespace wrn
