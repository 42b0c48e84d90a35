#include "kernels/cgroup.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

namespace wrn {
namespace {

namespace fs = std::filesystem;

/// The directories of the process's group and those above it.
std::vector<fs::path> groups(const fs::path& root) {
  std::ifstream file(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(file, line) && !line.starts_with("0::/")) {
  }
  if (!file) return {};  // no line of version 2
  fs::path group = line.substr(4);
  std::vector<fs::path> result = {root / "sys/fs/cgroup" / group};
  for (; !group.empty(); group = group.parent_path()) {
    result.push_back(root / "sys/fs/cgroup" / group.parent_path());
  }
  return result;
}

}  // namespace

std::size_t cgroup_memory(const fs::path& root) {
  std::size_t least = SIZE_MAX;
  for (const fs::path& group : groups(root)) {
    std::size_t most = 0, used = 0;  // memory.max may say "max", which is no number
    if (!(std::ifstream(group / "memory.max") >> most)) continue;
    if (!(std::ifstream(group / "memory.current") >> used)) continue;
    std::ifstream stat(group / "memory.stat");
    std::string key;
    for (std::size_t bytes = 0; stat >> key >> bytes;) {
      if (key == "active_file" || key == "inactive_file") used -= std::min(used, bytes);
    }
    least = std::min(least, most - std::min(most, used));
  }
  return least;
}

int cgroup_cores(const fs::path& root) {
  double least = INT_MAX;
  for (const fs::path& group : groups(root)) {
    double quota = 0, period = 0;
    if (!(std::ifstream(group / "cpu.max") >> quota >> period) || !(period > 0)) continue;
    least = std::min(least, std::max(std::ceil(quota / period), 1.0));
  }
  return static_cast<int>(least);
}

}  // namespace wrn
