#include "engine/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <string>
#include <system_error>
#include <vector>

#include "engine/descriptor.h"
#include "kernels/error.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;

const char* advice(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free some space and try again";
    case EFBIG:
      return "raise the limit on file sizes (ulimit -f)";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a directory that you may write to";
    case ENOENT:
    case ENOTDIR:
      return "check that the directory exists";
    case EISDIR:
      return "choose a name that is not a directory's";
    case ENAMETOOLONG:
      return "choose a shorter name";
    case EIO:
      return "check the disk";
    default:
      return "mend that and try again";
  }
}

/// `what` says what was tried: "write OUT/config.json".
[[noreturn]] void fail_to(const std::string& what, const std::system_error& error) {
  fail("cannot {}: {}; {} (the file that was there, if any, is untouched)", what,
       error.code().message(), advice(error.code().value()));
}

/// Makes a system call, again for as long as signals interrupt it; throws a std::system_error.
template <typename Call>
auto checked(Call call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  if (result == -1) throw std::system_error(errno, std::generic_category());
  return result;
}

class File {
 public:
  File(const fs::path& path, int flags)
      : file_(checked([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); })) {}

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto n = checked([&] { return ::write(file_.number(), bytes.data(), bytes.size()); });
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  /// Returns how many bytes it read; 0 at the end of the file.
  std::size_t read(std::span<std::byte> bytes) {
    return static_cast<std::size_t>(
        checked([&] { return ::read(file_.number(), bytes.data(), bytes.size()); }));
  }

  void sync() {
    checked([&] { return ::fsync(file_.number()); });
  }

 private:
  const Descriptor file_;
};

std::string temporary_name(const fs::path& path) {
  static std::atomic<unsigned> count = 0;
  return fmt::format(".{}.tmp.{}.{}", path.filename().string(), ::getpid(), count++);
}

/// The process that made the temporary of this name; 0 if temporary_name() did not make the name.
pid_t writer_of(const std::string& name) {
  constexpr std::string_view kMark = ".tmp.";
  const std::size_t mark = name.rfind(kMark);
  if (mark == std::string::npos || mark < 2 || name[0] != '.') return 0;
  pid_t pid = 0;
  unsigned count = 0;
  const char* const end = name.data() + name.size();
  const auto [dot, error] = std::from_chars(name.data() + mark + kMark.size(), end, pid);
  if (error != std::errc() || pid <= 0 || dot == end || *dot != '.') return 0;
  const auto [rest, count_error] = std::from_chars(dot + 1, end, count);
  return count_error == std::errc() && rest == end ? pid : 0;
}

/// A temporary name beside `path` for its new content, which commit() then puts in its place.
class Replacement {
 public:
  // The directory is opened first: once `path` is replaced, only the disk itself can fail.
  explicit Replacement(const fs::path& path)
      : path_(path),
        directory_(path.has_parent_path() ? path.parent_path() : ".", O_RDONLY | O_DIRECTORY),
        temporary_(path.parent_path() / temporary_name(path)) {
    check_replaceable(path);
    ::unlink(temporary_.c_str());  // of a killed process that had our pid
  }
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;
  // After the rename too: rename() of one hard link over another of the same file does nothing.
  ~Replacement() { ::unlink(temporary_.c_str()); }

  const fs::path& temporary() const { return temporary_; }

  void commit() {
    checked([&] { return ::rename(temporary_.c_str(), path_.c_str()); });
    try {
      directory_.sync();
    } catch (const std::system_error& error) {
      // Some file systems cannot sync a directory, which is not a fault of the disk.
      if (error.code().value() == EINVAL || error.code().value() == EOPNOTSUPP) return;
      fail("{} is written, but might not outlive a power cut: {}; check the disk", path_.string(),
           error.code().message());
    }
  }

 private:
  fs::path path_;
  File directory_;
  fs::path temporary_;
};

}  // namespace

void write_file_atomically(const fs::path& path,
                           std::span<const std::span<const std::byte>> pieces) try {
  Replacement replacement(path);
  File file(replacement.temporary(), O_WRONLY | O_CREAT | O_EXCL);
  for (const auto& piece : pieces) file.write(piece);
  file.sync();
  replacement.commit();
} catch (const std::system_error& error) {
  fail_to(fmt::format("write {}", path.string()), error);
}

void write_file_atomically(const fs::path& path, std::string_view text) {
  const std::span<const std::byte> piece = std::as_bytes(std::span(text));
  write_file_atomically(path, {&piece, 1});
}

void replace_with_hard_link(const fs::path& existing, const fs::path& link) try {
  Replacement replacement(link);
  const char* const temporary = replacement.temporary().c_str();
  try {
    checked([&] { return ::link(existing.c_str(), temporary); });
  } catch (const std::system_error& error) {
    const int reason = error.code().value();
    const auto none = {EPERM, EOPNOTSUPP, ENOSYS, EMLINK, EXDEV};
    if (std::ranges::find(none, reason) == none.end()) throw;
    File from(existing, O_RDONLY), to(temporary, O_WRONLY | O_CREAT | O_EXCL);
    std::vector<std::byte> block(1 << 20);
    while (const std::size_t n = from.read(block)) to.write(std::span(block).first(n));
    to.sync();
  }
  replacement.commit();
} catch (const std::system_error& error) {
  fail_to(fmt::format("make {} a link to {}", link.string(), existing.string()), error);
}

void check_replaceable(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_other(path, ignored) ||
      fs::read_symlink(path, ignored).string().starts_with("/proc/")) {
    fail("cannot write {}: it is not a regular file; choose another name", path.string());
  }
}

void remove_stale_temporaries(const fs::path& directory) {
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; entry != end; entry.increment(error)) {
    const pid_t pid = writer_of(entry->path().filename().string());
    if (pid == 0) continue;
    const bool alive = pid != ::getpid() && (::kill(pid, 0) == 0 || errno == EPERM);
    if (!alive) ::unlink(entry->path().c_str());  // which leaves a directory alone
  }
}

}  // namespace wrn
