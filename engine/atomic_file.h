// Files that are replaced whole or not at all.
//
// The new content goes to a temporary file in the same directory, is synced to the disk and renamed
// over the path, and then the directory is synced. At every moment (a full disk, a kill -9, a power
// cut) the path names either the whole old file or the whole new one.
//
// Every function but remove_stale_temporaries() throws an Error that names the path, the system's
// reason and what to do. The old file is then as it was, except where the Error says that the new
// one is in its place but its name might not outlive a power cut. No temporary is left behind.
// A device or a pipe is never replaced: that is an Error too.
// Different threads may write at the same time, to the same path too: the last rename wins.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace wrn {

/// Makes `path` a file of the given pieces, one after the other. A symbolic link at `path` is
/// replaced, not followed.
void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> pieces);
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// Makes `link` another name of the file `existing`, or a copy of it where the file system does not
/// have hard links.
void replace_with_hard_link(const std::filesystem::path& existing,
                            const std::filesystem::path& link);

/// Throws an Error where `path` is a device or a pipe, or a link to one, or a link into /proc, as
/// /dev/stdout is, whatever the process has open there. The functions above do so first.
void check_replaceable(const std::filesystem::path& path);

/// Removes from `directory` what killed processes left there: files named as the functions above
/// name their temporaries, `.NAME.tmp.PID.N`, of no other living process. To be called before this
/// process writes there. What cannot be removed stays; it does no harm.
void remove_stale_temporaries(const std::filesystem::path& directory);

}  // namespace wrn
