// The lock of a run's directory, between processes that begin at the same moment: flock() is the
// tests' own, and lets the other process act just before it.
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <functional>

#include "apps/run_directory.h"
#include "catch.h"
#include "kernels/error.h"
#include "temporary_directory.h"

namespace {

std::function<void()> other_process;

}  // namespace

extern "C" int flock(int descriptor, int operation) noexcept {
  if (other_process) other_process();
  return static_cast<int>(::syscall(SYS_flock, descriptor, operation));
}

TEST_CASE("a directory that another process has locked stays, whoever has made it") {
  const wrn::test::TemporaryDirectory temporary;
  const std::filesystem::path path = temporary / "a" / "b";
  wrn::RunDirectory run(path);
  {
    wrn::RunDirectory others(path);
    other_process = [&] {
      other_process = nullptr;
      others.prepare();
    };
    REQUIRE_THROWS_AS(run.prepare(), wrn::Error);
    REQUIRE(std::filesystem::is_directory(path));
  }
  run.prepare();
}

TEST_CASE("a directory that another process removes before it is locked is no run's") {
  const wrn::test::TemporaryDirectory temporary;
  const std::filesystem::path path = temporary / "run";
  wrn::RunDirectory run(path);
  other_process = [&] { std::filesystem::remove(path); };
  REQUIRE_THROWS_AS(run.prepare(), wrn::Error);
  other_process = nullptr;
  run.prepare();
  REQUIRE(std::filesystem::is_directory(path));
}
