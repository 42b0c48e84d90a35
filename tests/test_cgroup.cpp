// The limits of control groups, read from files as Linux has them.
#include <climits>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "kernels/cgroup.h"
#include "tests/catch.h"
#include "tests/temporary_directory.h"

using wrn::cgroup_cores;
using wrn::cgroup_memory;

namespace {

class Root {
 public:
  void put(const std::string& file, const std::string& text) const {
    const std::filesystem::path path = directory_ / file;
    std::filesystem::create_directories(path.parent_path());
    REQUIRE(std::ofstream(path) << text);
  }
  std::size_t memory() const { return cgroup_memory(directory_.path()); }
  int cores() const { return cgroup_cores(directory_.path()); }

 private:
  wrn::test::TemporaryDirectory directory_;
};

}  // namespace

TEST_CASE("a process outside of control groups has no limit") {
  const Root root;
  REQUIRE((root.memory() == SIZE_MAX && root.cores() == INT_MAX));
  root.put("sys/fs/cgroup/memory.max", "1000\n");
  root.put("sys/fs/cgroup/memory.current", "0\n");
  root.put("sys/fs/cgroup/cpu.max", "100000 100000\n");
  for (const char* groups : {"", "1:name=systemd:/\n", "nonsense"}) {
    root.put("proc/self/cgroup", groups);
    REQUIRE((root.memory() == SIZE_MAX && root.cores() == INT_MAX));
  }
}

TEST_CASE("a container's limit is in the one group that it sees") {
  const Root root;
  root.put("proc/self/cgroup", "0::/\n");
  REQUIRE((root.memory() == SIZE_MAX && root.cores() == INT_MAX));
  root.put("sys/fs/cgroup/memory.max", "1000\n");
  root.put("sys/fs/cgroup/memory.current", "900\n");
  root.put("sys/fs/cgroup/cpu.max", "150000 100000\n");
  REQUIRE((root.memory() == 100 && root.cores() == 2));
  root.put("sys/fs/cgroup/memory.stat", "anon 600\nfile 300\nactive_file 100\ninactive_file 150\n");
  REQUIRE(root.memory() == 350);
  root.put("sys/fs/cgroup/memory.current", "1300\n");
  REQUIRE(root.memory() == 0);
  root.put("sys/fs/cgroup/cpu.max", "1000 100000\n");
  REQUIRE(root.cores() == 1);
  root.put("sys/fs/cgroup/memory.max", "max\n");
  root.put("sys/fs/cgroup/cpu.max", "max 100000\n");
  REQUIRE((root.memory() == SIZE_MAX && root.cores() == INT_MAX));
}

TEST_CASE("the least limit of the groups from the process's own up is what holds") {
  const Root root;
  root.put("proc/self/cgroup", "1:name=systemd:/other\n0::/a/b\n");
  const auto limit = [&](const std::string& group, const std::string& free, int cores) {
    root.put("sys/fs/cgroup/" + group + "memory.max", free + "\n");
    root.put("sys/fs/cgroup/" + group + "memory.current", "0\n");
    root.put("sys/fs/cgroup/" + group + "cpu.max", std::to_string(cores) + "00000 100000\n");
  };
  limit("other/", "10", 1);
  limit("a/b/", "max", 8);
  REQUIRE((root.memory() == SIZE_MAX && root.cores() == 8));
  limit("a/", "2000", 4);
  REQUIRE((root.memory() == 2000 && root.cores() == 4));
  limit("", "1000", 3);
  REQUIRE((root.memory() == 1000 && root.cores() == 3));
  limit("a/b/", "500", 2);
  REQUIRE((root.memory() == 500 && root.cores() == 2));
}
