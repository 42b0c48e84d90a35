// What a training step does, before anything has run: a reading of the recorded Program.
#pragma once

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "engine/parameters.h"
#include "engine/program.h"

namespace wrn {

/// What a device can do at most, as measured on it.
struct Ceilings {
  std::string device;
  double flops;             // of a matrix product, a second
  double bytes;             // of a copy, read and written, a second
  int multiprocessors = 0;  // of a Hopper, whose convolutions are v5's; else 0
};

/// Of an H200 where the device's name says that it is one, else of an H100: an 8192^3 product of
/// random bf16, and a copy larger than the L2. Those of the other precisions have not been
/// measured.
std::optional<Ceilings> measured_ceilings(Precision, std::string_view device = "");

/// The time that a step takes by the model: the larger of what its products and its bytes need.
/// Where the multiprocessors are known, and v5 computes a convolution, its products are those of
/// its tiles, edges and last wave included (kernels/conv3x3/v5_tiles.h), and the ends of its tiles
/// are added to them; its bytes include the partial sums of split products; what its tiles load has
/// to come through the L2; and the kernel that merges the sums of its epilogue is added. Other
/// launches cost nothing, nor does what v4 does not overlap, so that where it computes one, such as
/// the first, the model is the more favourable.
double model_seconds(const Step&, const Ceilings&);

/// Of the steps of a part of the network (Step::part).
struct PartTotals {
  std::string part;
  std::int64_t read_and_written = 0;  // bytes
  std::int64_t largest = 0;           // bytes of the largest activation written: the unit of E
  std::int64_t macs = 0;
  double seconds = 0;  // 0 without ceilings

  /// In readings and writings of that activation.
  double e() const { return static_cast<double>(read_and_written) / static_cast<double>(largest); }
};
std::vector<PartTotals> totals_by_part(const Program&, const std::optional<Ceilings>&);

/// Every step, every part, memory, and the modelled time.
void print_plan(std::ostream&, const std::string& title, const Program&, const Parameters&,
                int batch, const std::optional<Ceilings>&);

}  // namespace wrn
