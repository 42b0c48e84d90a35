// What the readers of data sets ask of a file before they open it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>

namespace wrn {

bool missing(const std::filesystem::path& path);

/// The size of a regular file of at most `limit` bytes. This is asked before the file is opened, so
/// that a pipe or a device cannot hang the reader, nor an enormous file fill the memory. Throws an
/// Error for anything else, and for an empty one.
std::int64_t checked_size(const std::filesystem::path& path, std::int64_t limit);

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

/// For reading; throws an Error with the system's reason.
File open_file(const std::filesystem::path& path);

}  // namespace wrn
