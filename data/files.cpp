#include "data/files.h"

#include <cerrno>
#include <cstring>

#include "kernels/error.h"

namespace wrn {

namespace fs = std::filesystem;

bool missing(const fs::path& path) {
  std::error_code error;
  return fs::status(path, error).type() == fs::file_type::not_found;
}

std::int64_t checked_size(const fs::path& path, std::int64_t limit) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error) fail("{}: cannot be read: {}", path.string(), error.message());
  if (fs::is_directory(status)) fail("{}: is a directory, not a file", path.string());
  if (!fs::is_regular_file(status)) fail("{}: is not a regular file", path.string());
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) fail("{}: cannot be read: {}", path.string(), error.message());
  if (size == 0) fail("{}: is empty", path.string());
  if (size > static_cast<std::uintmax_t>(limit)) {
    fail("{}: has {} bytes, more than the official file may have ({})", path.string(), size, limit);
  }
  return static_cast<std::int64_t>(size);
}

File open_file(const fs::path& path) {
  File file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) fail("{}: cannot be read at offset 0: {}", path.string(), std::strerror(errno));
  return file;
}

}  // namespace wrn
