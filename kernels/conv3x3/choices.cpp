#include "kernels/conv3x3/choices.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "kernels/conv3x3/v5_tiles.h"
#include "kernels/error.h"

namespace wrn::cuda {
namespace {

constexpr const char* kCompiledIn =
#include "choices_json.h"  // kernels/conv3x3/choices.json as a literal, by CMakeLists.txt
    ;

nlohmann::ordered_json json_of(const Choice& c) {
  const ConvShape& s = c.shape;
  return {{"product", name_of(c.product)},
          {"shape", {s.n, s.h, s.w, s.c, s.k, s.r, s.stride}},
          {"version", c.version},
          {"columns", c.columns},
          {"parts", c.parts}};
}

Choice choice_of(const nlohmann::json& json) {
  Choice c{};
  const std::string product = json.at("product");
  for (const auto known : {ConvProduct::kFprop, ConvProduct::kDgrad, ConvProduct::kWgrad}) {
    if (product == name_of(known)) c.product = known;
  }
  const std::array<int, 7> shape = json.at("shape");
  c.shape = {shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6]};
  c.version = json.at("version");
  c.columns = json.at("columns");
  c.parts = json.at("parts");
  check(c);
  return c;
}

bool is_possible(const Choice& c) {
  const auto& [product, s, version, columns, parts] = c;
  if (!s.is_possible()) return false;
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

std::vector<MeasuredChoices> choices_of(const std::string& text) {
  std::vector<MeasuredChoices> all;
  bool understood = false;
  try {
    const auto table = nlohmann::json::parse(text);
    for (const nlohmann::json& of_device : table) {
      all.push_back({of_device.at("multiprocessors"), of_device.at("measured_on"), {}});
      for (const auto& c : of_device.at("choices")) all.back().choices.push_back(choice_of(c));
    }
    // What was read as something else, as a fraction or an unknown name, does not come back.
    understood = nlohmann::json::parse(text_of(all)) == table;
  } catch (const nlohmann::json::exception&) {
  }
  if (!understood) fail("not a table that tune writes");
  for (const MeasuredChoices& of_device : all) {
    if (std::ranges::count(all, of_device.multiprocessors, &MeasuredChoices::multiprocessors) > 1) {
      fail("GPUs of {} multiprocessors are in it twice", of_device.multiprocessors);
    }
    for (const Choice& c : of_device.choices) {
      if (find_choice(c.product, c.shape, {0, of_device.choices}) != &c) {
        fail("{} is chosen twice", json_of(c).dump());
      }
    }
  }
  return all;
}

const std::vector<MeasuredChoices>& measured_choices() {
  static const std::vector<MeasuredChoices> all = [] {
    const char* const given = std::getenv("WRN_CHOICES");
    const std::string path = given == nullptr ? "" : given;
    if (path.empty()) return choices_of(kCompiledIn);
    std::ifstream file(path);
    if (!file) fail("WRN_CHOICES: {} cannot be read", path);
    std::ostringstream text;
    text << file.rdbuf();
    try {
      return choices_of(text.str());
    } catch (const Error& error) {
      fail("WRN_CHOICES: {}: {}", path, error.what());
    }
  }();
  return all;
}

std::span<const Choice> measured_choices(int multiprocessors) {
  for (const MeasuredChoices& of_device : measured_choices()) {
    if (of_device.multiprocessors == multiprocessors) return of_device.choices;
  }
  return {};
}

std::string text_of(const std::vector<MeasuredChoices>& all) {
  std::vector<std::string> devices;
  for (const auto& [multiprocessors, measured_on, choices] : all) {
    std::vector<std::string> lines;
    for (const Choice& c : choices) lines.push_back("\n " + json_of(c).dump());
    devices.push_back(
        fmt::format("\n{{\"multiprocessors\": {}, \"measured_on\": {}, \"choices\": [{}]}}",
                    multiprocessors, nlohmann::json(measured_on).dump(), fmt::join(lines, ",")));
  }
  return fmt::format("[{}]\n", fmt::join(devices, ","));
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
  if (!is_possible(c)) fail("no convolution can be computed as {}", json_of(c).dump());
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
  const auto tall = [&](int columns) {
    return product == ConvProduct::kWgrad && v5::tall_rows_of_wgrad(s, columns) > 0;
  };
  int narrower = 0;
  for (const int columns : v5::kWidths) {
    // A tile of the same height that is narrower and holds all columns is better; of wgrad also one
    // that is tall.
    if (narrower >= wanted && v5::rows_of_tile(narrower) == v5::rows_of_tile(columns) &&
        (tall(narrower) || !tall(columns))) {
      continue;
    }
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
