// The tables of "Wide Residual Networks" (Zagoruyko and Komodakis, 2016) that are of CIFAR and
// SVHN: what was trained for each number, in the words of wrn_train's flags, and the number.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace wrn {

struct Experiment {
  std::string model, dataset, recipe, preprocess;
  double dropout = 0;
};

/// A number of a table: the paper's test error in percent, the median of five runs unless the
/// remark says otherwise.
struct PaperRow {
  std::string name;  // "wrn-16-4/cifar10/with": unique in its table
  Experiment experiment;
  double error = 0;
  std::string remark;
};

struct PaperTable {
  std::string name, title, about;
  std::vector<PaperRow> rows;
};

const std::vector<PaperTable>& paper_tables();

/// How many numbers its network learns.
std::int64_t parameter_count(const Experiment& experiment);

/// What the selections name: "all", a table, or a table's rows whose names begin so, part by part:
/// "dropout", "dropout/wrn-16-4", "dropout/wrn-16-4/svhn/with". Tables and rows come in the
/// registry's order, each once. Throws an Error(kUsage) for a name that there is not.
std::vector<PaperTable> select_tables(const std::vector<std::string>& selections);

}  // namespace wrn
