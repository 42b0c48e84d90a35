#include "apps/paper_tables.h"

#include <fmt/format.h>

#include "kernels/error.h"
#include "models/wide_resnet.h"

namespace wrn {
namespace {

/// CIFAR without dropout, by a preprocessing.
PaperRow cifar(const std::string& model, const std::string& dataset, const std::string& preprocess,
               double error) {
  return {model + "/" + dataset, {model, dataset, "paper-cifar", preprocess, 0}, error, ""};
}

PaperTable meanstd() {
  PaperTable table{
      "meanstd",
      "CIFAR with mean/std preprocessing",
      "No dropout. For scale, of networks that are not here: pre-activation ResNet-164 "
      "has 5.46 on CIFAR-10 and 24.33 on CIFAR-100, ResNet-1001 4.92 and 22.71.",
      {}};
  const struct {
    const char* model;
    double cifar10, cifar100;
  } rows[] = {{"wrn-40-4", 4.53, 21.18}, {"wrn-16-8", 4.27, 20.43}, {"wrn-28-10", 4.00, 19.25}};
  for (const auto& [model, cifar10, cifar100] : rows) {
    table.rows.push_back(cifar(model, "cifar10", "meanstd", cifar10));
    table.rows.push_back(cifar(model, "cifar100", "meanstd", cifar100));
  }
  return table;
}

PaperTable dropout() {
  PaperTable table{"dropout",
                   "Dropout in the blocks",
                   "Drop probability 0.3 on CIFAR (mean/std), 0.4 on SVHN (divided by 255, trained "
                   "on train and extra).",
                   {}};
  const auto add = [&](const char* model, const char* dataset, bool with, double error,
                       const char* remark = "") {
    const bool svhn = dataset == std::string("svhn");
    Experiment e{model, dataset, svhn ? "paper-svhn" : "paper-cifar", svhn ? "scale" : "meanstd",
                 0};
    if (with) e.dropout = svhn ? 0.4 : 0.3;
    if (with && !svhn) e.recipe = "paper-cifar-dropout";
    table.rows.push_back(
        {fmt::format("{}/{}/{}", model, dataset, with ? "with" : "without"), e, error, remark});
  };
  const struct {
    const char *model, *dataset;
    double without, with;
  } pairs[] = {{"wrn-16-4", "cifar10", 5.02, 5.24},     {"wrn-16-4", "cifar100", 24.03, 23.91},
               {"wrn-16-4", "svhn", 1.85, 1.64},        {"wrn-28-10", "cifar10", 4.00, 3.89},
               {"wrn-28-10", "cifar100", 19.25, 18.85}, {"wrn-52-1", "cifar10", 6.43, 6.28},
               {"wrn-52-1", "cifar100", 29.89, 29.78},  {"wrn-52-1", "svhn", 2.08, 1.70},
               {"wrn-16-8", "svhn", 1.81, 1.54}};
  for (const auto& [model, dataset, without, with] : pairs) {
    add(model, dataset, false, without);
    add(model, dataset, true, with);
  }
  add("wrn-40-10", "cifar10", true, 3.8, "a single run");
  add("wrn-40-10", "cifar100", true, 18.3, "a single run");
  return table;
}

PaperTable zca() {
  PaperTable table{"zca",
                   "Depths and widths, with ZCA whitening",
                   "Global contrast normalisation and ZCA whitening. No dropout.",
                   {}};
  constexpr double kNone = 0;
  const struct {
    const char* model;
    double cifar10, cifar100;
  } rows[] = {{"wrn-40-1", 6.85, 30.89}, {"wrn-40-2", 5.33, 26.04},  {"wrn-40-4", 4.97, 22.89},
              {"wrn-40-8", 4.66, kNone}, {"wrn-28-10", 4.17, 20.50}, {"wrn-28-12", 4.33, 20.43},
              {"wrn-22-8", 4.38, 21.22}, {"wrn-22-10", 4.44, 20.75}, {"wrn-16-8", 4.81, 22.07},
              {"wrn-16-10", 4.56, 21.59}};
  for (const auto& [model, cifar10, cifar100] : rows) {
    table.rows.push_back(cifar(model, "cifar10", "zca", cifar10));
    if (cifar100 != kNone) table.rows.push_back(cifar(model, "cifar100", "zca", cifar100));
  }
  return table;
}

PaperTable blocks() {
  PaperTable table{"blocks",
                   "Block types, k = 2",
                   "CIFAR-10, whitened like the table of depths and widths. A group has "
                   "(depth - 4) / 6 blocks, whatever their type.",
                   {}};
  const struct {
    const char* model;
    double error;
  } rows[] = {{"wrn-40-2-B(1,3,1)", 6.06}, {"wrn-40-2-B(3,1)", 5.78}, {"wrn-40-2-B(1,3)", 6.42},
              {"wrn-40-2-B(3,1,1)", 5.86}, {"wrn-28-2", 5.73},        {"wrn-22-2-B(3,1,3)", 5.78}};
  for (const auto& [model, error] : rows) {
    table.rows.push_back(cifar(model, "cifar10", "zca", error));
  }
  return table;
}

PaperTable deepening() {
  PaperTable table{"deepening",
                   "Convolutions a block, WRN-40-2",
                   "CIFAR-10, whitened like the table of depths and widths. With l convolutions a "
                   "block, a group has (40 - 4) / (3 l) blocks; l = 2 is WRN-40-2 itself.",
                   {}};
  const struct {
    const char* model;
    double error;
  } rows[] = {
      {"wrn-40-2-l1", 6.69}, {"wrn-40-2", 5.43}, {"wrn-40-2-l3", 5.65}, {"wrn-40-2-l4", 5.93}};
  for (const auto& [model, error] : rows) {
    table.rows.push_back(cifar(model, "cifar10", "zca", error));
  }
  return table;
}

/// "a/b" begins with "a" and with "a/b", but not with "a/".
bool begins_with(const std::string& name, const std::string& parts) {
  return name == parts || name.starts_with(parts + "/");
}

}  // namespace

const std::vector<PaperTable>& paper_tables() {
  static const std::vector<PaperTable> tables = {meanstd(), dropout(), zca(), blocks(),
                                                 deepening()};
  return tables;
}

std::int64_t parameter_count(const Experiment& experiment) {
  WideResNetSpec spec = parse_model(experiment.model);
  spec.classes = experiment.dataset == "cifar100" ? 100 : 10;
  return parameter_count(spec);
}

std::vector<PaperTable> select_tables(const std::vector<std::string>& selections) {
  std::vector<bool> met(selections.size(), false);
  std::vector<PaperTable> selected;
  for (const PaperTable& table : paper_tables()) {
    PaperTable part{table.name, table.title, table.about, {}};
    for (const PaperRow& row : table.rows) {
      bool wanted = false;
      for (std::size_t i = 0; i < selections.size(); ++i) {
        if (selections[i] != "all" && !begins_with(table.name + "/" + row.name, selections[i]))
          continue;
        wanted = met[i] = true;
      }
      if (wanted) part.rows.push_back(row);
    }
    if (!part.rows.empty()) selected.push_back(std::move(part));
  }
  for (std::size_t i = 0; i < selections.size(); ++i) {
    if (met[i]) continue;
    std::string names;
    for (const PaperTable& table : paper_tables()) names += table.name + ", ";
    throw Error(fmt::format("no table or row is called '{}': there are {}and all; see wrn_tables "
                            "list for their rows",
                            selections[i], names),
                Status::kUsage);
  }
  return selected;
}

}  // namespace wrn
