#include "kernels/conv3x3/choices.h"

#include <algorithm>

#include "kernels/conv3x3/v5_tiles.h"
#include "kernels/error.h"

namespace wrn::cuda {
namespace {

const char* name_of(ConvProduct product) {
  return product == ConvProduct::kFprop   ? "kFprop"
         : product == ConvProduct::kDgrad ? "kDgrad"
                                          : "kWgrad";
}

/// As C++ initialises it: "{ConvProduct::kFprop, {128, 32, 32, 160, 160, 3, 1}, 5, 160, 0}".
std::string text_of(const Choice& c) {
  const ConvShape& s = c.shape;
  return fmt::format("{{ConvProduct::{}, {{{}, {}, {}, {}, {}, {}, {}}}, {}, {}, {}}}",
                     name_of(c.product), s.n, s.h, s.w, s.c, s.k, s.r, s.stride, c.version,
                     c.columns, c.parts);
}

bool is_possible(const Choice& c) {
  const auto& [product, s, version, columns, parts] = c;
  if (std::min({s.n, s.h, s.w, s.c, s.k, s.r, s.stride}) < 1) return false;
  if (version == 4) return columns == 0 && parts == 0;
  if (version != 5 || !v5::takes(s)) return false;
  if (std::ranges::find(v5::kWidths, columns) == v5::kWidths.end()) return false;
  if (product != ConvProduct::kWgrad) return parts == 0 && columns <= v5::widest_of(product);
  return parts >= 1 && v5::wgrad_plan(s, columns, parts).parts == parts;
}

/// What v5 is without any choice.
Choice model_choice(ConvProduct product, const ConvShape& s, const Target& target) {
  if (product != ConvProduct::kWgrad) {
    return {product, s, 5, v5::gather_plan(product, s, target).columns, 0};
  }
  const v5::WgradPlan plan = v5::wgrad_plan(s, target);
  return {product, s, 5, plan.columns, plan.parts};
}

}  // namespace

const std::vector<MeasuredChoices>& measured_choices() {
  static const std::vector<MeasuredChoices> all{
#include "kernels/conv3x3/choices.inc"
  };
  return all;
}

std::span<const Choice> measured_choices(int multiprocessors) {
  for (const MeasuredChoices& of_device : measured_choices()) {
    if (of_device.multiprocessors == multiprocessors) return of_device.choices;
  }
  return {};
}

std::string text_of(const std::vector<MeasuredChoices>& all) {
  std::string text =
      "// Written by benchmarks/tune.cpp; choices.h says what it is. A line is a product, n h w c "
      "k "
      "r\n// stride, the version, and the columns and parts of v5's tiles.\n";
  if (all.empty()) text += "// Not measured yet.\n";
  for (const auto& [multiprocessors, measured_on, choices] : all) {
    text += fmt::format("{{{},\n \"{}\",\n {{\n", multiprocessors, measured_on);
    for (const Choice& c : choices) text += "     " + text_of(c) + ",\n";
    text += " }},\n";
  }
  return text;
}

std::vector<MeasuredChoices> replaced(std::vector<MeasuredChoices> all, MeasuredChoices fresh) {
  std::erase_if(all, [&](const MeasuredChoices& other) {
    return other.multiprocessors == fresh.multiprocessors;
  });
  std::ranges::sort(fresh.choices);
  all.push_back(std::move(fresh));
  std::ranges::sort(all, {}, &MeasuredChoices::multiprocessors);
  return all;
}

void check(const Choice& c) {
  WRN_CHECK(is_possible(c), "no convolution can be computed as {}", text_of(c));
}

const Choice* find_choice(ConvProduct product, const ConvShape& s, const Target& target) {
  for (const Choice& c : target.choices) {
    if (c.product != product || c.shape != s) continue;
    check(c);
    return &c;
  }
  return nullptr;
}

std::vector<Choice> candidates(ConvProduct product, const ConvShape& s, int multiprocessors) {
  const Choice by_v4{product, s, 4, 0, 0};
  if (!v5::takes(s)) return {by_v4};
  std::vector<Choice> all{model_choice(product, s, {multiprocessors}), by_v4};
  const auto add = [&](int columns, int parts) {
    const Choice c{product, s, 5, columns, parts};
    if (std::ranges::find(all, c) == all.end()) all.push_back(c);
  };
  const int wanted = product == ConvProduct::kDgrad ? s.c : s.k;
  int narrower = 0;
  for (const int columns : v5::kWidths) {
    // A tile of the same height that is narrower and holds all columns is better.
    if (narrower >= wanted && v5::rows_of_tile(narrower) == v5::rows_of_tile(columns)) continue;
    if (columns > v5::widest_of(product)) break;
    narrower = columns;
    if (product != ConvProduct::kWgrad) {
      add(columns, 0);
      continue;
    }
    // As many parts as fill whole waves.
    const int tiles = v5::wgrad_plan(s, columns, 1).tiles();
    for (int waves = 1; waves <= 4; ++waves) {
      const int parts = std::max(waves * multiprocessors / tiles, 1);
      add(columns, v5::wgrad_plan(s, columns, parts).parts);
    }
  }
  return all;
}

}  // namespace wrn::cuda
