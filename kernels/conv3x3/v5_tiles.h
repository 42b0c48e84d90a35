// How v5 cuts a convolution into tiles, which the host decides before a launch. It is apart from
// the kernels because plans need it on any machine (apps/plan.h).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "kernels/conv3x3/choices.h"
#include "kernels/divisor.h"
#include "kernels/kernels.h"

namespace wrn::cuda::v5 {

constexpr int kDepth = 64, kSteps = 4;  // of a slice; a product is 16 deep
constexpr int kUnit = 64;               // rows of a product: pixels, or of dw a tap's channels
constexpr int kConsumers = 2;

/// The tiles' widths, and their heights: with more than 160 columns, two units do not fit into a
/// consumer's registers.
constexpr std::array kWidths = {16, 32, 64, 128, 160, 192, 256};
/// dgrad's epilogue has too few registers with 256 columns. Two tiles of 128 take a tenth longer.
constexpr int widest_of(ConvProduct product) {
  return product == ConvProduct::kDgrad ? 192 : kWidths.back();
}
constexpr int units_of_consumer(int columns) { return columns > 160 ? 1 : 2; }
constexpr int rows_of_tile(int columns) { return kConsumers * units_of_consumer(columns) * kUnit; }

/// The blocks of 64 pixels that images of p x q are cut into: whole rows, or parts of rows that are
/// wider than 64. The last block of an image may reach beyond it; small images share a block.
struct PixelBlocks {
  int w, h, n;           // pixels of a block
  Divisor by_w, by_h;    // its rows, and images, of a pixel's number
  Divisor across, down;  // blocks in a row, rows of blocks in an image
  int count;

  static bool can_cut(int p, int q) {
    return q % kUnit == 0 || (kUnit % q == 0 && (p >= kUnit / q || kUnit / q % p == 0));
  }
  explicit PixelBlocks(const ConvShape& s)
      : w(std::min(s.q(), kUnit)),
        h(std::min(s.p(), kUnit / w)),
        n(kUnit / w / h),
        by_w(w),
        by_h(h),
        across(s.q() / w),
        down(static_cast<int>(divide_up(s.p(), h))),
        count(static_cast<int>(divide_up(s.n, n)) * down.value() * across.value()) {}
};

/// Whether v5 takes the shape, on a device that is for it. A stride of 2 must divide the sides, as
/// the maps of dgrad's phases would else have rows beyond an image's end.
inline bool takes(const ConvShape& s) {
  return s.c % 8 == 0 && s.k % 8 == 0 && s.h % s.stride == 0 && s.w % s.stride == 0 &&
         PixelBlocks::can_cut(s.p(), s.q());
}

/// Whether a product is v5's there: of a shape that v5 takes, unless v4 was chosen.
inline bool is_chosen(ConvProduct product, const ConvShape& s, const Target& target) {
  const Choice* chosen = find_choice(product, s, target);
  return takes(s) && (chosen == nullptr || chosen->version == 5);
}

/// The width of tile, up to `widest`, with which a product of `units` x `columns` takes the least
/// time, in waves of one tile an SM. A tile's time is that of its products and of loading A, which
/// counts as 32 more columns; tall rows and the ends of tiles (below) are not considered. Of equal
/// widths the largest.
inline int tile_columns(std::int64_t units, int columns, int widest, int multiprocessors) {
  int best = 0;
  std::int64_t least = 0;
  for (const int width : kWidths) {
    if (width > widest) break;
    const std::int64_t rows = rows_of_tile(width);
    const std::int64_t tiles = divide_up(units * kUnit, rows) * divide_up(columns, width);
    const std::int64_t cost = divide_up(tiles, multiprocessors) * rows * (width + 32);
    if (best != 0 && cost > least) continue;
    best = width;
    least = cost;
  }
  return best;
}

// --- fprop and dgrad ---------------------------------------------------------------------------

/// The width of boxes along `channels` of a depth.
inline int box_width(int channels) { return channels > 32 ? 64 : channels > 16 ? 32 : 16; }

/// How many slices of A a tile's depth has, each for `taps` slices of B, and how many of their
/// steps count: in every `period`th slice only the first `last_steps`, as the rest are zeros.
struct Slices {
  int count, period, last_steps, taps = 1;
  std::int64_t steps() const {
    return (std::int64_t{count} * kSteps - count / period * (kSteps - last_steps)) * taps;
  }
};

/// The rows of A in shared memory for a tile of some pixels. Flat rows are the pixels as one tap
/// sees them. Tall rows are all that the pixels see through the r taps above each other, which are
/// r - 1 lines more, in one box; each tap's rows begin a line further than the last one's.
struct ARows {
  int count;
  int of_unit = kUnit;  // from a unit to the next
  int of_line = 0;      // from a tap to the next
  int h = 0, n = 0;     // the tall box's lines and images
  bool tall() const { return n > 0; }
};
/// Tall rows may be up to a unit more than the pixels.
constexpr int most_a_rows(int pixels) { return pixels + kUnit; }

/// For a convolution that gathers images of so many channels. Rows are tall if the stride is 1 and
/// a slice is of one tap, if the tile's units lie below each other in one image or are an image
/// each, and if a line is a multiple of 8 rows, so that any line may begin the swizzle's pattern.
inline ARows a_rows(const ConvShape& s, int channels, int pixels) {
  const ARows flat{.count = pixels};
  const PixelBlocks blocks(s);
  const int units = pixels / kUnit, down = blocks.down.value(), more = s.r - 1;
  const bool below = down % units == 0;
  if (more == 0 || s.stride > 1 || box_width(channels) < kDepth || blocks.w % 8 != 0 ||
      blocks.n > 1 || blocks.across.value() > 1 || (!below && down > 1)) {
    return flat;
  }
  const int h = (below ? units : 1) * blocks.h + more, n = below ? 1 : units;
  const int of_image = h * blocks.w;
  if (n * of_image > most_a_rows(pixels)) return flat;
  return {n * of_image, below ? kUnit : of_image, blocks.w, h, n};
}

/// The slices of a depth of taps x channels, in boxes. A box of less than kDepth has all channels
/// of a tap.
inline Slices gather_slices(int taps_h, int taps_w, int channels, bool tall) {
  constexpr int kStep = kDepth / kSteps;
  const int taps = taps_h * taps_w;
  if (taps == 0) return {0, 1, kSteps};
  const int box = box_width(channels);
  if (box == kDepth) {
    const auto chunks = static_cast<int>(divide_up(channels, box));  // in a tap
    const auto last = static_cast<int>(divide_up(channels - (chunks - 1) * box, kStep));
    return {(tall ? taps_w : taps) * chunks, chunks, last, tall ? taps_h : 1};
  }
  const int steps = taps * (box / kStep);
  const auto count = static_cast<int>(divide_up(steps, kSteps));
  return {count, count, steps - (count - 1) * kSteps};
}

/// Row number h of a phase of dgrad meets every stride-th tap from `first` on, `count` in all; tap
/// number i of these sees row p = h + offset - i of dy. Columns likewise.
struct PhaseTaps {
  int first, count, offset;
};
inline PhaseTaps phase_taps(const ConvShape& s, int phase) {
  const int first = (phase + s.pad()) % s.stride;
  return {first, static_cast<int>(divide_up(std::max(s.r - first, 0), s.stride)),
          (phase + s.pad() - first) / s.stride};
}

/// dgrad's phases, each a product of its own: the parities of its rows and columns, and its taps.
struct Phase {
  int h, w;
  PhaseTaps down, right;
};
/// The one with the most taps first, so that it is not left late.
inline std::vector<Phase> phases(const ConvShape& s) {
  std::vector<Phase> all;
  for (int h = s.stride - 1; h >= 0; --h) {
    for (int w = s.stride - 1; w >= 0; --w) {
      all.push_back({h, w, phase_taps(s, h), phase_taps(s, w)});
    }
  }
  return all;
}

/// How fprop or dgrad is cut: each part, of which dgrad has one for each phase, into rows and
/// columns of tiles.
struct GatherPlan {
  int columns;  // of a tile
  int parts, row_tiles, column_tiles;
  int tiles() const { return parts * row_tiles * column_tiles; }
  /// How many tiles an epilogue's column sums are of: each consumer's half of a tile counts as one.
  unsigned sum_tiles() const { return static_cast<unsigned>(parts * row_tiles * kConsumers); }
};

/// With tiles of the chosen width, or by the model.
inline GatherPlan gather_plan(ConvProduct product, const ConvShape& s, const Target& target) {
  const bool forward = product == ConvProduct::kFprop;
  const int parts = forward ? 1 : static_cast<int>(phases(s).size());
  const int columns = forward ? s.k : s.c;
  const std::int64_t units = PixelBlocks(s).count;
  const Choice* chosen = find_choice(product, s, target);
  const int width =
      chosen != nullptr && chosen->version == 5
          ? chosen->columns
          : tile_columns(parts * units, columns, widest_of(product), target.multiprocessors);
  return {width, parts, static_cast<int>(divide_up(units * kUnit, rows_of_tile(width))),
          static_cast<int>(divide_up(columns, width))};
}

/// Bytes of the epilogues' column sums, written and read again: two numbers a tile and column.
inline std::int64_t sums_traffic(ConvProduct product, const ConvShape& s, const Target& target) {
  const std::int64_t columns = product == ConvProduct::kFprop ? s.k : s.c;
  return 2 * 2 * columns * 4 * gather_plan(product, s, target).sum_tiles();
}

// --- wgrad -------------------------------------------------------------------------------------

/// How wgrad is cut: into tiles and parts. Its rows are chunks of a tap's channels. Flat, a chunk
/// is a box of x, of the width that makes the fewest tiles. Tall, the chunks of the three taps
/// above each other share a box, with two lines more, and are a consumer's units.
struct WgradPlan {
  int columns;  // of a tile
  int box, chunks_of_tap, row_tiles, column_tiles, parts, blocks_of_part;
  int tall_rows;  // of a tall box, pixels; 0: flat
  bool tall() const { return tall_rows > 0; }
  int units() const { return tall() ? 3 : units_of_consumer(columns); }
  int rows() const { return kConsumers * units() * kUnit; }
  int tiles() const { return parts * row_tiles * column_tiles; }
  /// What a tile loads of x for a block of pixels, in rows of 64 elements.
  int loaded_rows() const { return tall() ? kConsumers * tall_rows : rows(); }
  /// Into `wanted` parts, or fewer where these are no longer.
  void split(int blocks, int wanted) {
    blocks_of_part = static_cast<int>(divide_up(blocks, wanted));
    parts = static_cast<int>(divide_up(blocks, blocks_of_part));
  }
};

/// The pixels of a tall box, for wgrad with tiles of `columns`; 0 where it is flat. Three units'
/// sums must fit the registers, and a line must be a multiple of 8 rows, as in a_rows(). With 640
/// channels, WRN-28-10's, flat tiles of 128 columns, which are lower, fill the waves better; so
/// there are no tall ones of more than 512.
inline int tall_rows_of_wgrad(const ConvShape& s, int columns) {
  const PixelBlocks blocks(s);
  const bool fits = (columns == 64 || columns == 128) && s.r == 3 && s.stride == 1 &&
                    s.c % kDepth == 0 && s.c <= 512 && blocks.n == 1 &&
                    blocks.across.value() == 1 && blocks.w % 8 == 0;
  return fits ? (blocks.h + 2) * blocks.w : 0;
}

/// With tiles of `columns` columns, in `parts` parts or fewer.
inline WgradPlan wgrad_plan(const ConvShape& s, int columns, int parts) {
  WgradPlan plan{};
  plan.columns = columns;
  plan.tall_rows = tall_rows_of_wgrad(s, columns);
  for (const int box : {64, 32, 16}) {  // 64 where tall
    const auto chunks = static_cast<int>(divide_up(s.c, box));
    const auto tiles =
        static_cast<int>(divide_up(std::int64_t{s.r} * s.r * chunks * box, plan.rows()));
    if (plan.box != 0 && tiles >= plan.row_tiles) continue;
    plan.box = box;
    plan.chunks_of_tap = chunks;
    plan.row_tiles = tiles;
  }
  plan.column_tiles = static_cast<int>(divide_up(s.k, columns));
  plan.split(PixelBlocks(s).count, parts);
  return plan;
}

/// What a multiprocessor of an H100 multiplies and adds, as measured of large products (798 TFLOP/s
/// at 1.7 GHz), and what the L2 delivers to it, at least (apps/plan.cpp: 8.2 TB/s in all).
constexpr double kMacsACycle = 1778, kL2BytesACycle = 36.5;

/// The chosen one, or by the model the one that takes the least time, in cycles: a slice that of
/// its products, or that in which it is loaded, whichever is longer; and a part writes its sums and
/// has them read again, at some 13 bytes a cycle of each multiprocessor.
inline WgradPlan wgrad_plan(const ConvShape& s, const Target& target) {
  const Choice* chosen = find_choice(ConvProduct::kWgrad, s, target);
  if (chosen != nullptr && chosen->version == 5) {
    return wgrad_plan(s, chosen->columns, chosen->parts);
  }
  const int multiprocessors = target.multiprocessors;
  const int blocks = PixelBlocks(s).count;
  const double reduction = 8 * static_cast<double>(s.w_size()) / (13 * multiprocessors);
  WgradPlan best{};
  double least = 0;
  for (const int columns : kWidths) {
    const WgradPlan plan = wgrad_plan(s, columns, 1);
    const std::int64_t tiles = plan.tiles();
    const double slice = kDepth * std::max(plan.rows() * columns / kMacsACycle,
                                           2 * (plan.loaded_rows() + columns) / kL2BytesACycle);
    for (int parts = 1; parts <= std::min(blocks, 4 * multiprocessors); ++parts) {
      const std::int64_t each = divide_up(blocks, parts);
      const double cost =
          static_cast<double>(divide_up(tiles * parts, multiprocessors) * each) * slice +
          (parts > 1 ? parts * reduction : 0);
      if (best.columns != 0 && cost >= least) continue;
      least = cost;
      best = plan;
      best.split(blocks, parts);
    }
  }
  return best;
}

/// Bytes of the parts' sums, written and read again.
inline std::int64_t partial_traffic(const ConvShape& s, const Target& target) {
  const int parts = wgrad_plan(s, target).parts;
  return parts > 1 ? 2 * std::int64_t{parts} * s.w_size() * 4 : 0;
}

// --- All ---------------------------------------------------------------------------------------

/// The tiles of a launch, all parts, and their width.
struct Tiles {
  std::int64_t count;
  int columns, units;  // of a consumer
};
inline Tiles tiles_of(ConvProduct product, const ConvShape& s, const Target& target) {
  if (product == ConvProduct::kWgrad) {
    const WgradPlan plan = wgrad_plan(s, target);
    return {plan.tiles(), plan.columns, plan.units()};
  }
  const GatherPlan plan = gather_plan(product, s, target);
  return {plan.tiles(), plan.columns, units_of_consumer(plan.columns)};
}

/// The slices of a tile of each part of fprop or dgrad, flat: tall ones have as many steps.
inline std::vector<Slices> slices_of_parts(ConvProduct product, const ConvShape& s) {
  if (product == ConvProduct::kFprop) return {gather_slices(s.r, s.r, s.c, false)};
  std::vector<Slices> all;
  for (const Phase& phase : phases(s)) {
    all.push_back(gather_slices(phase.down.count, phase.right.count, s.k, false));
  }
  return all;
}

/// The multiply-adds that the device could do while its busiest multiprocessor multiplies: those of
/// the shape, and of a projection that is added to it, and what the tiles' edges, wgrad's last part
/// and the last wave waste. Block i of the persistent grid has the tiles i, i + multiprocessors,
/// ...
inline std::int64_t executed_macs(ConvProduct product, const ConvShape& s, const Target& target,
                                  const std::optional<ConvShape>& projection = {}) {
  const int multiprocessors = target.multiprocessors;
  const auto [tiles, columns, units] = tiles_of(product, s, target);
  std::vector<std::int64_t> steps;  // of products, 16 deep, of each tile
  if (product == ConvProduct::kWgrad) {
    steps.assign(static_cast<std::size_t>(tiles),
                 std::int64_t{wgrad_plan(s, target).blocks_of_part} * kSteps);
  } else {
    std::vector<std::int64_t> of_parts;
    for (const Slices& slices : slices_of_parts(product, s)) of_parts.push_back(slices.steps());
    if (projection) {
      const std::vector<Slices> more = slices_of_parts(product, *projection);
      for (std::size_t i = 0; i < more.size(); ++i) of_parts[i] += more[i].steps();
    }
    for (const std::int64_t of_part : of_parts) {
      steps.insert(steps.end(), static_cast<std::size_t>(tiles) / of_parts.size(), of_part);
    }
  }
  std::int64_t most = 0;
  for (int block = 0; block < multiprocessors; ++block) {
    std::int64_t sum = 0;
    for (auto i = static_cast<std::size_t>(block); i < steps.size();
         i += static_cast<std::size_t>(multiprocessors)) {
      sum += steps[i];
    }
    most = std::max(most, sum);
  }
  return most * multiprocessors * kConsumers * units * kUnit * columns * (kDepth / kSteps);
}

/// The bytes that the tiles of a launch load from or through the L2. Channels past the last are not
/// counted, but the edges of tiles are.
inline std::int64_t loaded_bytes(ConvProduct product, const ConvShape& s, const Target& target,
                                 const std::optional<ConvShape>& projection = {}) {
  const auto [tiles, columns, units] = tiles_of(product, s, target);
  const int rows = kConsumers * units * kUnit;
  if (product == ConvProduct::kWgrad) {
    const WgradPlan plan = wgrad_plan(s, target);
    return tiles * plan.blocks_of_part * kUnit * (plan.loaded_rows() + columns) * 2;
  }
  std::int64_t bytes = 0;  // of a tile of each part
  const auto add = [&](const ConvShape& of) {
    const int channels = product == ConvProduct::kFprop ? of.c : of.k;
    const ARows a = a_rows(of, channels, rows);
    const auto add_part = [&](int taps_h, int taps_w) {
      const std::int64_t slices = a.tall() ? taps_w : taps_h * taps_w;
      bytes += (slices * a.count + std::int64_t{taps_h} * taps_w * columns) * channels * 2;
    };
    if (product == ConvProduct::kFprop) return add_part(of.r, of.r);
    for (const Phase& phase : phases(of)) add_part(phase.down.count, phase.right.count);
  };
  add(s);
  if (projection) add(*projection);
  return tiles / gather_plan(product, s, target).parts * bytes;
}

/// Whether what an epilogue gathers of a tile's columns has registers to stay in, from one of a
/// block's tiles to the next.
constexpr bool gathered_stays(int columns) { return columns <= 64; }
/// Of so many tiles at most, in each of which a thread has four rows: more than 256 would no longer
/// add up exactly (TwoSums).
constexpr int kMostGathered = 64;

/// The cycles, for all of a multiprocessor's tiles, from the last product of one to the first of
/// the next, in which its tensor cores idle. They follow from the instructions of a consumer's
/// thread, so many for a tile and so many for each of its sums, counted in what ptxas makes of the
/// kernels for sm_90a. (tests/sass.py --ends counts all; a tile skips some.) Each scheduler has two
/// of the consumers' warps, and issues three instructions in four cycles, which is a guess.
inline double end_cycles(ConvProduct product, bool sums_columns, const ConvShape& s,
                         const Target& target) {
  const auto [tiles, columns, units] = tiles_of(product, s, target);
  struct Instructions {
    double of_tile, of_sum;
  };
  const Instructions count = product == ConvProduct::kWgrad   ? Instructions{290, 4}
                             : !sums_columns                  ? Instructions{80, 1.6}
                             : product == ConvProduct::kFprop ? Instructions{220, 10.7}
                                                              : Instructions{330, 11.7};
  const double sums = units * columns / 2;
  const auto most = static_cast<double>(divide_up(tiles, target.multiprocessors));
  double instructions = most * (count.of_tile + count.of_sum * sums);
  if (sums_columns && gathered_stays(columns)) {  // then few tiles merge and store it
    const GatherPlan plan = gather_plan(product, s, target);
    const double merged = std::ceil(most / kMostGathered);
    if (plan.column_tiles * plan.parts == 1) instructions -= (most - merged) * (64 + 3.6 * columns);
  }
  return instructions * 2 / 0.75;
}

}  // namespace wrn::cuda::v5
