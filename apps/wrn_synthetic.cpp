// wrn_synthetic OUT_DIR: writes the synthetic data set, in CIFAR-10's binary files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <cstdint>
#include <string>

#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "data/synthetic.h"
#include "kernels/error.h"

namespace {

void run(int argc, char** argv) {
  CLI::App app(
      "Writes a data set of ten classes of drawn shapes and textures (disc, ring, square, "
      "triangle, cross, star, rows, columns, checks, dots) as CIFAR-10 binary files, "
      "for wrn_train --dataset cifar10 --data-path OUT_DIR.",
      "wrn_synthetic");
  std::string dir;
  int train = 5000, test = 1000;
  std::uint64_t seed = 1;
  app.set_version_flag("--version", "wrn_synthetic " WRN_VERSION);
  app.add_option("OUT_DIR", dir,
                 "Directory to make; it must not exist, or be empty, or hold this set")
      ->required();
  app.add_option("--train", train, "Training images, 5 to 50000, over five files")
      ->check(wrn::whole(0, INT_MAX))
      ->capture_default_str();
  app.add_option("--test", test, "Test images, 1 to 10000")
      ->check(wrn::whole(0, INT_MAX))
      ->capture_default_str();
  app.add_option("--seed", seed, "Seed: the same seed gives the same bytes on every machine")
      ->check(wrn::whole(0, UINT64_MAX))
      ->capture_default_str();
  if (wrn::parse_command_line(app, argc, argv)) return;
  wrn::write_synthetic(dir, train, test, seed);
  fmt::print("{}: {} training and {} test images, seed {}\n", dir, train, test, seed);
}

}  // namespace

int main(int argc, char** argv) {
  return wrn::guarded_main("wrn_synthetic", [&] {
    run(argc, argv);
    return 0;
  });
}
