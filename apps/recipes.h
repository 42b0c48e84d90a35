// The paper's recipes: what each says of the settings that the command line leaves open.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace wrn {

struct Recipe {
  std::string name;
  nlohmann::json settings;        // by their names in Settings and config.json
  std::vector<int> drop_percent;  // of the epochs: where the learning rate drops
};

/// Those of the paper, the first of which is the default.
const std::vector<Recipe>& recipes();

/// Throws an Error(kUsage) that lists the names there are.
const Recipe& recipe_of(const std::string& name);

}  // namespace wrn
