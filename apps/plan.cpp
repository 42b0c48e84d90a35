#include "apps/plan.h"

#include <algorithm>

#include "kernels/conv3x3/v5_tiles.h"

namespace wrn {
namespace {

constexpr double kClock = 1.7e9;  // of an H100 at work
/// What the L2 of an H100 delivers in a second, at least: the product of P. Shankhdhar,
/// "Outperforming cuBLAS on H100" (2024), in tiles of 128 x 256 that each multiprocessor loads on
/// its own does 704 TFLOP/s, at 49,152 bytes for 4.19 million.
constexpr double kL2Bytes = 8.2e12;

double mib(double bytes) { return bytes / 0x1p20; }

/// Of merging the partial sums of so many tiles (merge_moments, merge_gradient_sums), which is
/// waiting: by estimate, not measured, a microsecond for a kernel to begin and end among others in
/// a graph, 1,200 cycles for each round of loads, of 1,024 tiles, and what is computed with them,
/// and 200 for each of three rounds in shared memory.
double merge_seconds(unsigned tiles) {
  constexpr std::int64_t kRound = 1024;
  const auto rounds = static_cast<double>(divide_up(tiles, kRound));
  return 1e-6 + (1200 * rounds + 200 * 3) / kClock;
}

/// "images 0.8, conv1.weight 0.0"
std::string list_of(const std::vector<Tensor>& tensors) {
  std::string text;
  for (const Tensor& x : tensors) {
    text += fmt::format("{}{} {:.3f}", text.empty() ? "" : ", ", x.name(),
                        mib(static_cast<double>(x.bytes())));
  }
  return text;
}

void print_steps(std::ostream& out, const Program& program,
                 const std::optional<Ceilings>& ceilings) {
  out << "\nSteps: MiB moved, GMAC, modelled microseconds; below them the tensors, in MiB\n";
  for (const Step& step : program.steps()) {
    out << fmt::format(
        "{:<52} {:>9.2f} {:>9.3f} {:>9}\n", step.name, mib(static_cast<double>(step.bytes())),
        1e-9 * static_cast<double>(step.macs),
        ceilings ? fmt::format("{:.1f}", 1e6 * model_seconds(step, *ceilings)) : "-");
    out << fmt::format("    reads {}\n    writes {}\n", list_of(step.reads), list_of(step.writes));
  }
}

void print_parts(std::ostream& out, const std::vector<PartTotals>& parts) {
  out << "\nParts: MiB read and written; the same in E, the largest tensor that the part hands on; "
         "GMAC; "
         "modelled microseconds\n";
  for (const PartTotals& part : parts) {
    out << fmt::format("{:<16} {:>9.1f} {:>7} {:>9.3f} {:>9}\n", part.part,
                       mib(static_cast<double>(part.read_and_written)),
                       part.largest > 0 ? fmt::format("{:.1f} E", part.e()) : "-",
                       1e-9 * static_cast<double>(part.macs),
                       part.seconds > 0 ? fmt::format("{:.1f}", 1e6 * part.seconds) : "-");
  }
}

void print_memory(std::ostream& out, const Program& program, const Parameters& parameters) {
  const double state = static_cast<double>(parameters.bytes());
  const double arena = static_cast<double>(program.arena_bytes());
  out << fmt::format(
      "\nMemory, MiB: {:.1f} parameters (weights, gradients, momentum, bf16 copies, statistics)\n"
      "             {:.1f} activations and workspace at their peak, of which {:.1f} are kept from "
      "the forward for the backward pass; the largest workspace is {:.1f}\n"
      "             {:.1f} in all, beside the data set\n",
      mib(state), mib(arena), mib(static_cast<double>(program.saved_bytes())),
      mib(static_cast<double>(program.workspace_bytes())), mib(state + arena));
}

}  // namespace

std::optional<Ceilings> measured_ceilings(Precision precision, std::string_view device) {
  if (precision != Precision::kBf16) return std::nullopt;
  if (device.find("H200") != std::string_view::npos) {
    return Ceilings{"NVIDIA H200, measured", 788e12, 4.3e12, 132};
  }
  return Ceilings{"NVIDIA H100, measured", 798e12, 3.0e12, 132};
}

double model_seconds(const Step& step, const Ceilings& ceilings) {
  auto macs = static_cast<double>(step.macs), bytes = static_cast<double>(step.bytes());
  double merge = 0, ends = 0, loaded = 0;
  const cuda::Target target{ceilings.multiprocessors,
                            cuda::measured_choices(ceilings.multiprocessors)};
  if (target.multiprocessors > 0 && step.conv &&
      cuda::v5::is_chosen(step.conv->product, step.conv->shape, target) &&
      cuda::v5::takes(step.conv->projection.value_or(step.conv->shape))) {
    const auto& [product, shape, sums_columns, projection] = *step.conv;
    macs = static_cast<double>(cuda::v5::executed_macs(product, shape, target, projection));
    ends = cuda::v5::end_cycles(product, sums_columns, shape, target) / kClock;
    loaded = static_cast<double>(cuda::v5::loaded_bytes(product, shape, target, projection));
    if (product == ConvProduct::kWgrad) {
      bytes += static_cast<double>(cuda::v5::partial_traffic(shape, target));
    }
    if (sums_columns) {
      bytes += static_cast<double>(cuda::v5::sums_traffic(product, shape, target));
      merge = merge_seconds(cuda::v5::gather_plan(product, shape, target).sum_tiles());
    }
  }
  return std::max({2 * macs / ceilings.flops + ends, loaded / kL2Bytes, bytes / ceilings.bytes}) +
         merge;
}

std::vector<PartTotals> totals_by_part(const Program& program,
                                       const std::optional<Ceilings>& ceilings) {
  std::vector<PartTotals> parts;
  for (const Step& step : program.steps()) {
    auto part = std::find_if(parts.begin(), parts.end(),
                             [&](const PartTotals& p) { return p.part == step.part; });
    if (part == parts.end()) part = parts.insert(part, PartTotals{.part = step.part});
    part->read_and_written += step.bytes();
    part->macs += step.macs;
    for (const Tensor& x : step.writes) {
      if (x.is_persistent()) continue;
      part->largest = std::max(part->largest, static_cast<std::int64_t>(x.bytes()));
    }
    if (ceilings) part->seconds += model_seconds(step, *ceilings);
  }
  return parts;
}

void print_plan(std::ostream& out, const std::string& title, const Program& program,
                const Parameters& parameters, int batch, const std::optional<Ceilings>& ceilings) {
  out << title << '\n';
  print_steps(out, program, ceilings);
  const std::vector<PartTotals> parts = totals_by_part(program, ceilings);
  print_parts(out, parts);
  print_memory(out, program, parameters);
  if (!ceilings) {
    out << "\nTime: not modelled, as no ceilings have been measured in this precision; give "
           "--ceilings\n";
    return;
  }
  double seconds = 0;
  for (const PartTotals& part : parts) seconds += part.seconds;
  out << fmt::format(
      "\nTime, modelled: {:.2f} ms a step, {:.0f} images/s: every step at the largest of what its "
      "products, its\n"
      "                bytes and its loads from the L2 need, at {:.0f} TFLOP/s and {:.2f} TB/s\n"
      "                ({}), with no gaps and no caches;\n"
      "                {}; measured: not measured yet\n",
      1e3 * seconds, batch / seconds, 1e-12 * ceilings->flops, 1e-12 * ceilings->bytes,
      ceilings->device,
      ceilings->multiprocessors > 0
          ? fmt::format("v5's convolutions in whole tiles, with their ends, in waves of {} "
                        "multiprocessors,\n"
                        "                and the merging of their sums",
                        ceilings->multiprocessors)
          : "tiles and waves not counted");
}

}  // namespace wrn
