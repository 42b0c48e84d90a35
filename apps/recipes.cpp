#include "apps/recipes.h"

#include "kernels/error.h"

namespace wrn {

// "Wide Residual Networks", section 3, and the authors' scripts/train_cifar.sh and train_svhn.sh.
// All three clear the momentum at a drop: the original code begins a new optimiser state there.
// Three things of that code are left out: it draws batch norm's gamma from (0, 1), which
// --gamma-init does; it counts epochs from 1, so that its epochs 60, 120 and 160 are our 59, 119
// and 159; and it takes CIFAR-10's mean and deviation for CIFAR-100, too.
const std::vector<Recipe>& recipes() {
  static const std::vector<Recipe> all = [] {
    const nlohmann::json cifar = {{"dataset", "cifar10"},
                                  {"preprocess", "meanstd"},
                                  {"no_augment", false},
                                  {"dropout", 0.0},
                                  {"epochs", 200},
                                  {"batch_size", 128},
                                  {"lr", 0.1},
                                  {"momentum", 0.9},
                                  {"weight_decay", 5e-4},
                                  {"lr_drop_factor", 0.2},
                                  {"keep_momentum", false},
                                  {"keep_last_batch", false},
                                  {"gamma_init", "one"}};
    const auto changed = [&](const nlohmann::json& changes) {
      nlohmann::json settings = cifar;
      settings.update(changes);
      return settings;
    };
    return std::vector<Recipe>{{"paper-cifar", cifar, {30, 60, 80}},
                               {"paper-cifar-dropout", changed({{"dropout", 0.3}}), {30, 60, 80}},
                               {"paper-svhn",
                                changed({{"dataset", "svhn"},
                                         {"preprocess", "scale"},
                                         {"no_augment", true},
                                         {"dropout", 0.4},
                                         {"epochs", 160},
                                         {"lr", 0.01},
                                         {"lr_drop_factor", 0.1}}),
                                {50, 75}}};
  }();
  return all;
}

const Recipe& recipe_of(const std::string& name) {
  std::string names;
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name) return recipe;
    names += (names.empty() ? "" : ", ") + recipe.name;
  }
  throw Error(fmt::format("--recipe {}: there are {}", name, names), Status::kUsage);
}

}  // namespace wrn
