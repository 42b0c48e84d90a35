// Whatever goes wrong, the old file is whole and no temporary is left. To make every system call go
// wrong, this program defines write, fsync, rename and link itself: the engine's calls come here.
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch.h"
#include "engine/atomic_file.h"
#include "kernels/error.h"
#include "tests/temporary_directory.h"

namespace fs = std::filesystem;
using wrn::replace_with_hard_link;
using wrn::write_file_atomically;
using wrn::test::TemporaryDirectory;

namespace {

constexpr int kKill = -1;  // in place of an error: the process is killed

/// What the next system calls do, in the thread that sets it.
struct Faults {
  const char* call = "";        // this call fails...
  int error = 0;                // ...with this error...
  int after = 0;                // ...after so many that succeed
  std::size_t most = SIZE_MAX;  // bytes that one write takes
  bool interrupted = false;     // every other call fails with EINTR
  bool no_links = false;        // link fails with EPERM
};
thread_local Faults faults;
thread_local bool interrupt_next = false;

bool fails(std::string_view call) {
  if (faults.interrupted && (interrupt_next = !interrupt_next)) {
    errno = EINTR;
    return true;
  }
  if (faults.no_links && call == "link") {
    errno = EPERM;
    return true;
  }
  if (call != faults.call || faults.after-- > 0) return false;
  if (faults.error == kKill) ::raise(SIGKILL);
  errno = faults.error;
  return true;
}

}  // namespace

extern "C" {
ssize_t write(int fd, const void* data, size_t size) {
  if (fails("write")) return -1;
  const iovec part{const_cast<void*>(data), std::min(size, faults.most)};
  return ::writev(fd, &part, 1);
}
int fsync(int fd) { return fails("fsync") ? -1 : static_cast<int>(::syscall(SYS_fsync, fd)); }
int rename(const char* from, const char* to) noexcept {
  return fails("rename") ? -1 : ::renameat(AT_FDCWD, from, AT_FDCWD, to);
}
int link(const char* from, const char* to) noexcept {
  return fails("link") ? -1 : ::linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}
}

namespace {

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const fs::path& path, std::string_view text) {
  REQUIRE(std::ofstream(path, std::ios::binary) << text);
}

std::set<std::string> names_in(const fs::path& directory) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.insert(entry.path().filename());
  return names;
}

/// The message of the Error that `action` throws while `planned` goes wrong; "" if it throws none.
template <typename Action>
std::string message_of(Action action, const Faults& planned = {}) {
  faults = planned;
  std::string message;
  try {
    action();
  } catch (const wrn::Error& error) {
    message = error.what();
  }
  faults = {};
  return message;
}

std::string reason(const fs::path& path, const std::string& rest) {
  return "cannot write " + path.string() + ": " + rest;
}

const std::string kUntouched = " (the file that was there, if any, is untouched)";

/// Restores a limit on the size of files, and what its signal does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  sighandler_t handler_;
};

}  // namespace

TEST_CASE("A file is made of its pieces, or replaced") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  write_file_atomically(path, "old and longer");
  REQUIRE(content(path) == "old and longer");
  const std::string first = "ab", second, third("\0\n\xff", 3);
  const std::span<const std::byte> pieces[] = {std::as_bytes(std::span(first)),
                                               std::as_bytes(std::span(second)),
                                               std::as_bytes(std::span(third))};
  write_file_atomically(path, pieces);
  REQUIRE(content(path) == std::string("ab\0\n\xff", 5));
  write_file_atomically(path, "");
  REQUIRE(content(path).empty());
  REQUIRE(names_in(directory.path()) == std::set<std::string>{"file"});
}

TEST_CASE("A path without a directory is in the current one") {
  const TemporaryDirectory directory;
  const fs::path before = fs::current_path();
  fs::current_path(directory.path());
  const std::string message = message_of([] {
    write_file_atomically("a", "text");
    replace_with_hard_link("a", "b");
  });
  fs::current_path(before);
  REQUIRE(message.empty());
  REQUIRE(content(directory / "b") == "text");
}

TEST_CASE("The permissions of a new file are the umask's") {
  const TemporaryDirectory directory;
  const mode_t before = ::umask(027);
  write_file_atomically(directory / "file", "text");
  ::umask(before);
  REQUIRE(fs::status(directory / "file").permissions() == static_cast<fs::perms>(0640));
}

TEST_CASE("Short writes and interrupted calls are gone on with") {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::to_string(i);
  const auto action = [&] { write_file_atomically(directory / "file", text); };
  REQUIRE(message_of(action, {.most = 7, .interrupted = true}).empty());
  REQUIRE(content(directory / "file") == text);
}

TEST_CASE("Every call that fails leaves the old file and no temporary") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  put(path, "old");
  struct Case {
    const char* call;
    int error;
    std::string rest;
  };
  const Case cases[] = {
      {"write", ENOSPC, "No space left on device; free some space and try again"},
      {"write", EDQUOT, "Disk quota exceeded; free some space and try again"},
      {"write", EIO, "Input/output error; check the disk"},
      {"fsync", EIO, "Input/output error; check the disk"},
      {"fsync", ENOSPC, "No space left on device; free some space and try again"},
      {"rename", EROFS, "Read-only file system; choose a directory that you may write to"},
      {"rename", EBUSY, "Device or resource busy; mend that and try again"},
  };
  for (const auto& [call, error, rest] : cases) {
    for (int after = 0; after < (std::string(call) == "write" ? 3 : 1); ++after) {
      CAPTURE(call, error, after);
      const auto action = [&] { write_file_atomically(path, "new text"); };
      const Faults planned{.call = call, .error = error, .after = after, .most = 3};
      REQUIRE(message_of(action, planned) == reason(path, rest + kUntouched));
      REQUIRE(content(path) == "old");
      REQUIRE(names_in(directory.path()) == std::set<std::string>{"file"});
    }
  }
}

TEST_CASE(
    "A directory that does not reach the disk is an error, one that cannot be synced is not") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  const auto action = [&] { write_file_atomically(path, "new"); };
  REQUIRE(message_of(action, {.call = "fsync", .error = EIO, .after = 1}) ==
          path.string() +
              " is written, but might not outlive a power cut: Input/output error; check the disk");
  REQUIRE(content(path) == "new");
  for (const int error : {EINVAL, EOPNOTSUPP}) {
    REQUIRE(message_of(action, {.call = "fsync", .error = error, .after = 1}).empty());
  }
  REQUIRE(names_in(directory.path()) == std::set<std::string>{"file"});
}

TEST_CASE("A path that cannot be written says why") {
  const TemporaryDirectory directory;
  const auto message = [](const fs::path& path) {
    return message_of([&] { write_file_atomically(path, "text"); });
  };
  put(directory / "file", "text");
  fs::create_directory(directory / "taken");
  const fs::path missing = directory / "none" / "file", under_a_file = directory / "file" / "file",
                 taken = directory / "taken", long_name = directory / std::string(300, 'x');
  REQUIRE(message(missing) ==
          reason(missing, "No such file or directory; check that the directory exists") +
              kUntouched);
  REQUIRE(message(under_a_file) ==
          reason(under_a_file, "Not a directory; check that the directory exists") + kUntouched);
  REQUIRE(message(taken) ==
          reason(taken, "Is a directory; choose a name that is not a directory's") + kUntouched);
  REQUIRE(message(long_name) ==
          reason(long_name, "File name too long; choose a shorter name") + kUntouched);
  REQUIRE(!message("").empty());
  REQUIRE(names_in(directory.path()) == std::set<std::string>{"file", "taken"});
}

TEST_CASE("A device or a pipe is not replaced, nor what /dev/stdout leads to") {
  const TemporaryDirectory directory;
  const fs::path pipe = directory / "pipe", device = directory / "device",
                 open_file = directory / "open", file = directory / "file";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  fs::create_symlink("/dev/null", device);
  put(file, "old");
  const int fd = ::open(file.c_str(), O_RDONLY);
  fs::create_symlink("/proc/self/fd/" + std::to_string(fd), open_file);
  for (const fs::path& path : {pipe, device, open_file}) {
    const fs::file_type before = fs::symlink_status(path).type();
    const std::string message = reason(path, "it is not a regular file; choose another name");
    REQUIRE(message_of([&] { write_file_atomically(path, "new"); }) == message);
    REQUIRE(message_of([&] { replace_with_hard_link(file, path); }) == message);
    REQUIRE(fs::symlink_status(path).type() == before);
  }
  ::close(fd);
  REQUIRE(content(file) == "old");
  REQUIRE(names_in(directory.path()) == std::set<std::string>{"device", "file", "open", "pipe"});
}

TEST_CASE("A directory without permission says so") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  ::chmod(directory.path().c_str(), 0555);
  const bool is_root = ::geteuid() == 0;
  if (is_root) REQUIRE(::seteuid(65534) == 0);
  const std::string message = message_of([&] { write_file_atomically(path, "text"); });
  if (is_root) REQUIRE(::seteuid(0) == 0);
  ::chmod(directory.path().c_str(), 0755);
  REQUIRE(message ==
          reason(path, "Permission denied; choose a directory that you may write to") + kUntouched);
}

TEST_CASE("A limit on the size of files leaves the old file") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  put(path, "old");
  std::string message;
  {
    const FileSizeLimit limit(64 << 10);
    message = message_of([&] { write_file_atomically(path, std::string(100 << 10, 'x')); });
  }
  REQUIRE(message ==
          reason(path, "File too large; raise the limit on file sizes (ulimit -f)") + kUntouched);
  REQUIRE(content(path) == "old");
  REQUIRE(names_in(directory.path()) == std::set<std::string>{"file"});
}

TEST_CASE("A full disk leaves the old file") {
  const TemporaryDirectory directory;
  if (::mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=64k") != 0) {
    WARN("not tested: no permission to mount a small tmpfs");
    return;
  }
  const fs::path path = directory / "file";
  std::ofstream(path) << "old";
  const std::string message =
      message_of([&] { write_file_atomically(path, std::string(100 << 10, 'x')); });
  const std::string kept = content(path);
  const std::set<std::string> names = names_in(directory.path());
  REQUIRE(::umount(directory.path().c_str()) == 0);
  REQUIRE(message ==
          reason(path, "No space left on device; free some space and try again") + kUntouched);
  REQUIRE(kept == "old");
  REQUIRE(names == std::set<std::string>{"file"});
}

TEST_CASE("A hard link replaces what was there and survives the next write") {
  const TemporaryDirectory directory;
  const fs::path latest = directory / "latest", best = directory / "best";
  put(best, "older");
  write_file_atomically(latest, "first");
  // The second time, both names are already links to one file.
  for (int i = 0; i < 2; ++i) {
    replace_with_hard_link(latest, best);
    REQUIRE(fs::equivalent(latest, best));
    REQUIRE(names_in(directory.path()) == std::set<std::string>{"best", "latest"});
  }
  write_file_atomically(latest, "second");
  REQUIRE(content(best) == "first");
  REQUIRE(content(latest) == "second");
}

TEST_CASE("Where there are no hard links a copy is made") {
  const TemporaryDirectory directory;
  const fs::path latest = directory / "latest", best = directory / "best";
  const std::string text(3 << 20, 'x');
  write_file_atomically(latest, text);
  for (const int error : {EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EXDEV}) {
    CAPTURE(error);
    put(best, "older");
    const auto action = [&] { replace_with_hard_link(latest, best); };
    REQUIRE(message_of(action, {.call = "link", .error = error}).empty());
    const bool is_copied = content(best) == text;  // too long to be printed
    REQUIRE(is_copied);
    REQUIRE(!fs::equivalent(latest, best));
    REQUIRE(names_in(directory.path()) == std::set<std::string>{"best", "latest"});
  }
}

TEST_CASE("A link that cannot be made leaves what was there") {
  const TemporaryDirectory directory;
  const fs::path latest = directory / "latest", best = directory / "best";
  put(best, "older");
  const auto action = [&] { replace_with_hard_link(latest, best); };
  const std::string start = "cannot make " + best.string() + " a link to " + latest.string() + ": ";
  const std::string missing =
      start + "No such file or directory; check that the directory exists" + kUntouched;
  REQUIRE(message_of(action) == missing);
  REQUIRE(message_of(action, {.call = "link", .error = EPERM}) == missing);  // so does the copy
  put(latest, "first");
  const std::string disk = start + "Input/output error; check the disk" + kUntouched;
  REQUIRE(message_of(action, {.call = "link", .error = EIO}) == disk);
  REQUIRE(message_of(action, {.call = "rename", .error = EIO}) == disk);
  REQUIRE(message_of(action, {.call = "fsync", .error = EIO, .no_links = true}) == disk);
  std::string too_large;
  {
    put(latest, std::string(100 << 10, 'x'));
    const FileSizeLimit limit(64 << 10);
    too_large = message_of(action, {.call = "link", .error = EPERM});
  }
  REQUIRE(too_large ==
          start + "File too large; raise the limit on file sizes (ulimit -f)" + kUntouched);
  REQUIRE(content(best) == "older");
  REQUIRE(names_in(directory.path()) == std::set<std::string>{"best", "latest"});
}

TEST_CASE("The temporaries of a killed process that had our number are in nobody's way") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  // One of them is the name that comes next.
  for (int i = 0; i < 1000; ++i) {
    put(directory / fmt::format(".file.tmp.{}.{}", ::getpid(), i), "left over");
  }
  write_file_atomically(path, "new");
  REQUIRE(content(path) == "new");
  REQUIRE(names_in(directory.path()).size() == 1000);
}

TEST_CASE("Threads that write one path leave one of their files whole") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  {
    std::vector<std::jthread> threads;
    for (const char c : {'a', 'b', 'c'}) {
      threads.emplace_back([&path, c] {
        for (int i = 0; i < 20; ++i) write_file_atomically(path, std::string(10'000, c));
      });
    }
  }
  const std::string text = content(path);
  REQUIRE(text == std::string(10'000, text.at(0)));
  REQUIRE(names_in(directory.path()) == std::set<std::string>{"file"});
}

TEST_CASE("The temporaries of a killed process are removed, and nothing else") {
  const TemporaryDirectory directory;
  const fs::path path = directory / "file";
  put(path, "old");
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    faults = {.call = "fsync", .error = kKill};
    write_file_atomically(path, "new");
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(content(path) == "old");
  REQUIRE(names_in(directory.path()).size() == 2);

  const std::string dead = ".tmp." + std::to_string(child) + ".0";
  const std::string own = ".tmp." + std::to_string(::getpid()) + ".3";
  const std::set<std::string> kept = {"file",
                                      ".file.tmp.1.0",  // process 1 lives
                                      ".hidden",
                                      ".file.tmp.x.0",
                                      ".file.tmp.12",
                                      "file" + dead,
                                      dead,  // of no name
                                      "." + dead,
                                      ".file" + dead + "x",
                                      ".d" + dead,  // a directory
                                      ".file.tmp.99999999999999999999.0"};
  for (const std::string& name : kept) {
    if (name != ".d" + dead && name != "file") put(directory / name, "");
  }
  fs::create_directory(directory / (".d" + dead));
  put(directory / (".config.json" + dead), "");
  put(directory / (".file" + own), "");
  put(directory / (".notes.tmp.old" + dead), "");  // of a file that is called so
  wrn::remove_stale_temporaries(directory.path());
  REQUIRE(names_in(directory.path()) == kept);
  wrn::remove_stale_temporaries(directory / "none");
}
