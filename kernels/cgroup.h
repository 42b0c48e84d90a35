// What Linux's control groups (version 2) leave to this process: those of a container, for one, of
// which neither /proc/meminfo nor the number of cores says anything.
//
// Both ask the process's own group and all above it, and answer with the largest number there is
// where none of them sets a limit. `root` is where proc/ and sys/ are.
#pragma once

#include <cstddef>
#include <filesystem>

namespace wrn {

/// Bytes it may still take: memory.max less memory.current, in which the cache of files, that gives
/// way, does not count.
std::size_t cgroup_memory(const std::filesystem::path& root = "/");

/// How many cores it may keep busy: the quota of cpu.max by its period, rounded up.
int cgroup_cores(const std::filesystem::path& root = "/");

}  // namespace wrn
