// The registry of the paper's tables, the names of runs, what is read of them, and the pages.
#include <fstream>
#include <map>
#include <set>

#include "apps/history.h"
#include "apps/json_text.h"
#include "apps/options.h"
#include "apps/paper_tables.h"
#include "apps/table_pages.h"
#include "apps/table_runs.h"
#include "kernels/error.h"
#include "tests/catch.h"
#include "tests/temporary_directory.h"

using namespace wrn;
namespace fs = std::filesystem;

namespace {

/// Each row of the registry, and the table it is in.
std::vector<std::pair<std::string, PaperRow>> all_rows() {
  std::vector<std::pair<std::string, PaperRow>> rows;
  for (const PaperTable& table : paper_tables()) {
    for (const PaperRow& row : table.rows) rows.emplace_back(table.name, row);
  }
  return rows;
}

std::vector<std::string> selected(const std::vector<std::string>& selections) {
  std::vector<std::string> names;
  for (const PaperTable& table : select_tables(selections)) {
    for (const PaperRow& row : table.rows) names.push_back(table.name + "/" + row.name);
  }
  return names;
}

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

std::string epoch_line(int epoch, double error, double seconds) {
  return nlohmann::json{{"epoch", epoch}, {"test_error", error}, {"seconds", seconds}}.dump() +
         "\n";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("the tables have the paper's networks, in the paper's sizes") {
  // For ten classes, as the paper and the common ports of its code have them.
  const std::map<std::string, std::int64_t> parameters = {
      {"wrn-16-4", 2748890},          {"wrn-16-8", 10961370},         {"wrn-16-10", 17116634},
      {"wrn-22-8", 17158106},         {"wrn-22-10", 26797914},        {"wrn-28-10", 36479194},
      {"wrn-28-12", 52517850},        {"wrn-40-1", 563930},           {"wrn-40-2", 2243546},
      {"wrn-40-4", 8949210},          {"wrn-40-8", 35748314},         {"wrn-40-10", 55841754},
      {"wrn-52-1", 758362},           {"wrn-40-2-B(1,3,1)", 1429082}, {"wrn-40-2-B(3,1)", 1211354},
      {"wrn-40-2-B(1,3)", 1297370},   {"wrn-40-2-B(3,1,1)", 1343066}, {"wrn-28-2", 1467610},
      {"wrn-22-2-B(3,1,3)", 1145498}, {"wrn-40-2-l1", 2243546},       {"wrn-40-2-l3", 2243546},
      {"wrn-40-2-l4", 2243546}};
  std::set<std::string> met;
  for (const auto& [table, row] : all_rows()) {
    INFO(table << "/" << row.name);
    const Experiment& e = row.experiment;
    met.insert(e.model);
    REQUIRE(parameters.contains(e.model));
    // Ninety more rows of the linear layer, each of 64 k weights and a bias.
    const int widen = std::stoi(e.model.substr(e.model.find('-', 4) + 1));
    const std::int64_t more = e.dataset == "cifar100" ? 90 * (64 * widen + 1) : 0;
    REQUIRE(parameter_count(e) == parameters.at(e.model) + more);
  }
  REQUIRE(met.size() == parameters.size());
  REQUIRE(parameter_count({"wrn-28-10", "cifar100", "", "", 0}) == 36536884);
}

TEST_CASE("the tables have the paper's numbers") {
  std::map<std::string, std::size_t> rows;
  std::map<std::string, double> sums;
  for (const auto& [table, row] : all_rows()) {
    ++rows[table];
    sums[table] += row.error;
  }
  REQUIRE(rows ==
          std::map<std::string, std::size_t>{
              {"meanstd", 6}, {"dropout", 20}, {"zca", 19}, {"blocks", 6}, {"deepening", 4}});
  REQUIRE(sums["meanstd"] == Approx(4.53 + 21.18 + 4.27 + 20.43 + 4.00 + 19.25));
  const double dropout_cifar10 = 5.02 + 5.24 + 4.00 + 3.89 + 6.43 + 6.28 + 3.8;
  const double dropout_cifar100 = 24.03 + 23.91 + 19.25 + 18.85 + 29.89 + 29.78 + 18.3;
  const double dropout_svhn = 1.85 + 1.64 + 2.08 + 1.70 + 1.81 + 1.54;
  REQUIRE(sums["dropout"] == Approx(dropout_cifar10 + dropout_cifar100 + dropout_svhn));
  const double zca_cifar10 = 6.85 + 5.33 + 4.97 + 4.66 + 4.17 + 4.33 + 4.38 + 4.44 + 4.81 + 4.56;
  const double zca_cifar100 = 30.89 + 26.04 + 22.89 + 20.50 + 20.43 + 21.22 + 20.75 + 22.07 + 21.59;
  REQUIRE(sums["zca"] == Approx(zca_cifar10 + zca_cifar100));
  REQUIRE(sums["blocks"] == Approx(6.06 + 5.78 + 6.42 + 5.86 + 5.73 + 5.78));
  REQUIRE(sums["deepening"] == Approx(6.69 + 5.43 + 5.65 + 5.93));

  std::map<std::string, double> errors;
  for (const auto& [table, row] : all_rows()) errors[table + "/" + row.name] = row.error;
  REQUIRE(errors.size() == 55);  // no name twice
  REQUIRE(errors.at("dropout/wrn-16-4/svhn/without") == 1.85);
  REQUIRE(errors.at("dropout/wrn-16-4/svhn/with") == 1.64);
  REQUIRE(errors.at("dropout/wrn-52-1/cifar100/with") == 29.78);
  REQUIRE(errors.at("dropout/wrn-40-10/cifar10/with") == 3.8);
  REQUIRE(errors.at("zca/wrn-40-1/cifar100") == 30.89);
  REQUIRE(errors.at("zca/wrn-22-8/cifar10") == 4.38);
  REQUIRE(!errors.contains("zca/wrn-40-8/cifar100"));  // not in the paper
}

TEST_CASE("the rows are trained as the paper says") {
  for (const auto& [table, row] : all_rows()) {
    INFO(table << "/" << row.name);
    const Experiment& e = row.experiment;
    if (e.dataset == "svhn") {
      REQUIRE(e.recipe == "paper-svhn");
      REQUIRE(e.preprocess == "scale");
      REQUIRE((e.dropout == 0 || e.dropout == 0.4));
    } else {
      REQUIRE(e.recipe == (e.dropout > 0 ? "paper-cifar-dropout" : "paper-cifar"));
      const bool meanstd = table == "meanstd" || table == "dropout";
      REQUIRE(e.preprocess == (meanstd ? "meanstd" : "zca"));
      REQUIRE((e.dropout == 0 || e.dropout == 0.3));
    }
    REQUIRE((e.dropout > 0) == row.name.ends_with("/with"));
  }
}

TEST_CASE("rows are selected by the parts of their names") {
  REQUIRE(selected({"all"}).size() == 55);
  REQUIRE(selected({"blocks", "deepening/wrn-40-2-l1"}).size() == 7);
  REQUIRE(selected({"dropout/wrn-16-4"}).size() == 6);
  REQUIRE(selected({"dropout/wrn-16-4/svhn"}).size() == 2);
  REQUIRE(selected({"dropout/wrn-16-4/svhn/with"}) ==
          std::vector<std::string>{"dropout/wrn-16-4/svhn/with"});
  // Not wrn-40-2-l1; in the registry's order; once.
  REQUIRE(selected({"deepening/wrn-40-2", "meanstd/wrn-40-4/cifar10", "meanstd/wrn-40-4"}) ==
          std::vector<std::string>{"meanstd/wrn-40-4/cifar10", "meanstd/wrn-40-4/cifar100",
                                   "deepening/wrn-40-2/cifar10"});
  REQUIRE(selected({}).empty());
  for (const char* wrong : {"", "zc", "zca/", "zca/wrn-40", "zca/wrn-40-8/cifar100", "ALL"}) {
    INFO(wrong);
    REQUIRE_THROWS_AS(select_tables({"blocks", wrong}), Error);
  }
}

TEST_CASE("runs are shared where all that decides them is the same") {
  std::map<std::string, Experiment> runs;
  for (const auto& [table, row] : all_rows()) {
    const auto [at, is_new] = runs.emplace(experiment_name(row.experiment, {}), row.experiment);
    REQUIRE((is_new || at->second.model == row.experiment.model));
  }
  // WRN-28-10 stands in two tables on both CIFARs, WRN-40-2 whitened in two on CIFAR-10.
  REQUIRE(runs.size() == 52);

  const Experiment e{"wrn-28-10", "cifar10", "paper-cifar", "meanstd", 0};
  const std::string name = experiment_name(e, {});
  REQUIRE(name.substr(0, name.size() - 8) == "wrn-28-10-cifar10-meanstd-");
  REQUIRE(name == experiment_name(e, {}));
  // The name of a run that is on someone's disk must not change.
  REQUIRE(name == "wrn-28-10-cifar10-meanstd-7f5e5e33");

  std::set<std::string> names = {name};
  for (const Experiment& other :
       {Experiment{"wrn-16-8", "cifar10", "paper-cifar", "meanstd", 0},
        Experiment{"wrn-28-10", "cifar100", "paper-cifar", "meanstd", 0},
        Experiment{"wrn-28-10", "cifar10", "paper-svhn", "meanstd", 0},
        Experiment{"wrn-28-10", "cifar10", "paper-cifar", "zca", 0},
        Experiment{"wrn-28-10", "cifar10", "paper-cifar", "meanstd", 0.3}}) {
    REQUIRE(names.insert(experiment_name(other, {})).second);
  }
  for (const Rehearsal& rehearsal : {Rehearsal{1, 0, 0, 0}, Rehearsal{0, 1, 0, 0},
                                     Rehearsal{0, 0, 1, 0}, Rehearsal{0, 0, 0, 1}}) {
    REQUIRE(names.insert(experiment_name(e, rehearsal)).second);
  }
}

TEST_CASE("the flags of a run are wrn_train's, and say what the row says") {
  for (const auto& [table, row] : all_rows()) {
    INFO(table << "/" << row.name);
    std::vector<std::string> words = training_flags(row.experiment, {3, 40, 20, 10});
    words.insert(words.begin(), "wrn_train");
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    Options options;
    REQUIRE(!parse_options(static_cast<int>(argv.size()), argv.data(), options));
    const Settings& s = options.settings;
    REQUIRE(s.model == row.experiment.model);  // as the program itself would write it
    REQUIRE(s.dataset == row.experiment.dataset);
    REQUIRE(s.recipe == row.experiment.recipe);
    REQUIRE(s.preprocess == row.experiment.preprocess);
    REQUIRE(s.dropout == row.experiment.dropout);
    REQUIRE((s.epochs == 3 && s.limit_train == 40 && s.limit_test == 20 && s.batch_size == 10));
  }
}

TEST_CASE("the median") {
  REQUIRE(median({}) == 0);
  REQUIRE(median({3}) == 3);
  REQUIRE(median({4, 1}) == 2.5);
  REQUIRE(median({9, 1, 2}) == 2);
  REQUIRE(median({5, 1, 4, 2}) == 3);
}

TEST_CASE("settings are read back, and those out of range are none") {
  const TableSettings settings{{1, 20, 30, 10}, 1000};
  const nlohmann::json good = settings;
  REQUIRE(settings_of(good)->rehearsal == settings.rehearsal);
  REQUIRE(settings_of(good)->runs == 1000);
  const nlohmann::json paper = TableSettings{};
  REQUIRE(!settings_of(paper)->rehearsal);
  for (const nlohmann::json& wrong : {nlohmann::json(-3), nlohmann::json(1e30), nlohmann::json(1.5),
                                      nlohmann::json("5"), nlohmann::json()}) {
    INFO(wrong);
    for (const char* place : {"/runs", "/rehearsal", "/rehearsal/epochs", "/rehearsal/limit_train",
                              "/rehearsal/limit_test", "/rehearsal/batch_size"}) {
      nlohmann::json text = good;
      text[nlohmann::json::json_pointer(place)] = wrong;
      INFO(place);
      REQUIRE(!settings_of(text));
    }
  }
  for (const int runs : {0, 1001, 200'000}) {
    nlohmann::json text = good;
    text["runs"] = runs;
    REQUIRE(!settings_of(text));
  }
  REQUIRE(!settings_of(parse_json("{")));
}

TEST_CASE("JSON that nests too deep is none") {
  const auto nested = [](std::size_t levels) {
    return parse_json("{\"a\": " + std::string(levels, '[') + std::string(levels, ']') + "}");
  };
  REQUIRE(nested(10).is_object());
  for (const std::size_t levels : {20, 1'000'000}) REQUIRE(nested(levels).is_discarded());
  REQUIRE(parse_json(std::string(1'000'000, '[')).is_discarded());
}

TEST_CASE("what is read of a run") {
  const test::TemporaryDirectory dir;
  const RunFiles files(dir.path(), "name", 3);
  REQUIRE(files.directory == dir.path() / "runs" / "name" / "seed3");
  REQUIRE(!run_progress(files).finished());  // nothing there
  REQUIRE(run_progress(files).epochs == 0);

  const fs::path config = files.directory / "config.json",
                 metrics = files.directory / "metrics.jsonl";
  write(config, R"({"training": {"epochs": 3}, "device_name": "a GPU", "precision": "bf16"})");
  write(metrics, epoch_line(1, 50, 4) + epoch_line(2, 30, 1));
  RunProgress state = run_progress(files);
  REQUIRE((state.epochs == 3 && state.epochs_done == 2 && !state.finished()));
  REQUIRE(state.seconds_per_epoch == 2.5);
  REQUIRE(state.device == "a GPU, bf16");
  REQUIRE(state.failure.empty());

  write(files.failed, "out of memory\n");
  REQUIRE(run_progress(files).failure == "out of memory");

  // The last epoch's error, not the best.
  write(metrics, epoch_line(1, 50, 4) + epoch_line(2, 30, 1) + epoch_line(3, 40, 1));
  REQUIRE(!run_progress(files).finished());  // it failed when it was to be saved
  fs::remove(files.failed);
  state = run_progress(files);
  REQUIRE((state.finished() && state.error == 40));

  // None that comes after it is looked at.
  write(metrics,
        epoch_line(1, 50, 4) + epoch_line(2, 30, 1) + epoch_line(3, 40, 1) + epoch_line(4, 20, 1));
  state = run_progress(files);
  REQUIRE((state.finished() && state.error == 40));
}

TEST_CASE("broken files are those of a run that is not finished") {
  const test::TemporaryDirectory dir;
  const RunFiles files(dir.path(), "name", 1);
  const fs::path config = files.directory / "config.json",
                 metrics = files.directory / "metrics.jsonl";
  const std::string good_config = R"({"training": {"epochs": 2}})";
  const std::string good_metrics = epoch_line(1, 50, 1) + epoch_line(2, 30, 1);
  write(config, good_config);
  write(metrics, good_metrics);
  REQUIRE(run_progress(files).finished());

  for (const char* broken : {"", "{", "[]", "null", R"({"training": 1})", R"({"training": {}})",
                             R"({"training": {"epochs": "2"}})", R"({"training": {"epochs": -2}})",
                             R"({"training": {"epochs": 1e300}})", "\xff\xfe"}) {
    INFO(broken);
    write(config, broken);
    REQUIRE(!run_progress(files).finished());
  }
  write(config, good_config);
  for (const std::string& broken :
       {std::string(), std::string("{}\n{}\n"), epoch_line(1, 50, 1),
        epoch_line(2, 50, 1) + epoch_line(1, 30, 1),
        good_metrics.substr(0, good_metrics.size() - 4),
        epoch_line(1, 50, 1) + epoch_line(2, 130, 1), epoch_line(1, 50, 1) + epoch_line(2, NAN, 1),
        epoch_line(1, 50, 1) + R"({"epoch": 2, "test_error": "30"})"}) {
    INFO(broken);
    write(metrics, broken);
    REQUIRE(!run_progress(files).finished());
  }
}

TEST_CASE("the pages") {
  const PaperRow row{"wrn-16-4/cifar10",
                     {"wrn-16-4", "cifar10", "paper-cifar", "meanstd", 0},
                     5.02,
                     "a single run"};
  const auto finished = [](double error) {
    RunProgress state;
    state.epochs = state.epochs_done = 200;
    state.error = error;
    state.seconds_per_epoch = 7;
    state.device = "a <GPU>";
    return TableRun{state, "runs/a(b)/seed1/report.html"};
  };
  TableRow table_row{row, 2748890, {finished(5.5), finished(4.9), finished(5.0)}};
  TableSettings settings;
  settings.runs = 3;
  const auto markdown = [&] {
    return tables_markdown({{"A table", "About.", {table_row}}}, settings);
  };
  const auto html = [&] { return tables_html({{"A table", "About.", {table_row}}}, settings); };

  REQUIRE(has(markdown(),
              "| 2,748,890 | 5.02 (a single run) | 5.00 | -0.02 | "
              "[5.50](<runs/a(b)/seed1/report.html>), [4.90]"));
  REQUIRE(has(markdown(), "| 7.0 |  |\n"));
  REQUIRE(has(markdown(), "a \\<GPU\\>"));
  REQUIRE(has(html(), "<td>5.00</td><td>-0.02</td>"));
  REQUIRE(has(html(), "<a href=\"runs/a(b)/seed1/report.html\">5.50</a>, "));
  REQUIRE(has(html(), "a &lt;GPU&gt;"));
  for (const std::string& page : {markdown(), html()}) {
    REQUIRE(!has(page, "REHEARSAL"));
    REQUIRE(!has(page, "finished\n"));
  }

  table_row.runs[0].state.epochs_done = 57;
  table_row.runs[0].state.seconds_per_epoch = 9;
  table_row.runs[2] = {};
  table_row.runs[2].state.failure = "out of memory | here";
  REQUIRE(has(markdown(), "| 4.90 | -0.12 |"));
  REQUIRE(has(markdown(), "| 8.0 | 1 of 3"));  // of the seconds of every epoch there is
  REQUIRE(has(markdown(),
              "1 of 3 runs finished; seed 1: epoch 57 of 200; seed 3: failed: out of "
              "memory \\| here |"));
  table_row.runs = {TableRun{}, TableRun{}, TableRun{}};
  REQUIRE(has(markdown(), "|  |  |  |  | not run yet |\n"));

  settings.rehearsal.epochs = 1;
  settings.rehearsal.limit_train = 256;
  REQUIRE(has(markdown(),
              "> **REHEARSAL, not results.** These are runs with --epochs 1 "
              "--limit-train 256"));
  REQUIRE(has(markdown(), "## A table (rehearsal)"));
  REQUIRE(has(html(), "<strong>REHEARSAL, not results.</strong> These are runs with --epochs 1"));
  REQUIRE(has(html(), "<h2>A table <em>(rehearsal)</em></h2>"));
}
