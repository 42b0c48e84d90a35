#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "apps/chart.h"
#include "apps/progress.h"
#include "apps/report.h"
#include "engine/safetensors.h"
#include "kernels/error.h"
#include "tests/catch.h"
#include "tests/temporary_directory.h"

using nlohmann::json;
using wrn::Progress;
using wrn::RunRecord;

namespace {

const json kConfig = json::parse(R"({
  "model": {"name": "wrn-10-1", "parameters": 77850}, "device": "cpu", "threads": 2,
  "dataset": {"name": "synthetic", "mean": [0.5, 0.25], "classes": ["cat", "dog"]},
  "training": {"epochs": 10, "augment": true, "resume": null, "extra": {}}})");

json epoch_line(int epoch, double lr, double error) {
  return {{"epoch", epoch},
          {"lr", lr},
          {"train_loss", 2.0 / epoch},
          {"train_error", error - 1},
          {"test_loss", 2.5 / epoch},
          {"test_error", error},
          {"seconds", 60.0},
          {"images_per_second", 1000.0 + epoch}};
}

std::vector<json> run_of(int epochs) {
  std::vector<json> metrics;
  for (int e = 1; e <= epochs; ++e) metrics.push_back(epoch_line(e, 0.1, 90.0 - e));
  return metrics;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

bool has(const std::string& text, const std::string& part) { return count(text, part) > 0; }

/// The first tag that closes nothing or is not closed, or bare `&`, or an empty string: the page is
/// written so that an XML parser takes it too.
std::string first_flaw(const std::string& page) {
  std::vector<std::string> open;
  for (std::size_t at = page.find_first_of("<&"); at != std::string::npos;
       at = page.find_first_of("<&", at + 1)) {
    const std::size_t end = page.find_first_of(page[at] == '<' ? ">" : ";", at);
    if (end == std::string::npos) return page.substr(at, 40);
    const std::string inside = page.substr(at + 1, end - at - 1);
    const std::string name = inside.substr(0, inside.find_first_of(" \n"));
    if (page[at] == '&') {
      if (inside.size() > 4) return "&" + inside;
    } else if (name[0] == '/') {
      if (open.empty() || "/" + open.back() != name) return "<" + inside + ">";
      open.pop_back();
    } else if (name[0] != '!' && inside.back() != '/') {
      open.push_back(name);
    }
    if (count(inside, "\"") % 2 != 0) return "<" + inside + ">";
  }
  return open.empty() ? "" : "<" + open.back() + ">";
}

/// Every page of these tests is a whole one, and asks nothing of the network.
std::string checked_page(const std::vector<RunRecord>& runs) {
  const std::string page = wrn::report_html(runs);
  REQUIRE(first_flaw(page) == "");
  for (const char* outside : {"http", "@import", "url(", "<script", "<link"}) {
    REQUIRE(!has(page, outside));
  }
  REQUIRE(count(page, "src=") == count(page, "src=\"data:image/png;base64,"));
  REQUIRE(page.size() < 1'000'000);
  for (const char* wrong : {"\"nan", ",nan", "inf,", "\"inf", ">nan<"}) REQUIRE(!has(page, wrong));
  return page;
}

std::string checked_page(const json& config, const std::vector<json>& metrics) {
  return checked_page({RunRecord{"run", config, metrics, std::nullopt}});
}

/// Of `images` images whose labels take turns, those divisible by 3 taken for the next class.
wrn::Predictions predictions(int classes, int images) {
  wrn::Dataset test{"test", {}, {}, {}};
  for (int c = 0; c < classes; ++c) test.class_names.push_back("class_" + std::to_string(c));
  std::vector<wrn::Answer> answers;
  for (int i = 0; i < images; ++i) {
    test.labels.push_back(static_cast<std::uint8_t>(i % classes));
    test.images.resize(test.images.size() + wrn::kImageBytes, static_cast<std::uint8_t>(i));
    answers.push_back({(i + (i % 3 == 0 ? 1 : 0)) % classes, 0.5 + i / 2000.0});
  }
  return wrn::predictions_of(test, answers, 1);
}

/// What a terminal shows after `output`; fails where a line reaches its last column.
std::vector<std::string> screen(const std::string& output, std::size_t columns) {
  std::vector<std::string> lines(1);
  std::size_t column = 0;
  for (std::size_t i = 0; i < output.size(); ++i) {
    if (output[i] == '\n') {
      lines.emplace_back();
      column = 0;
    } else if (output[i] == '\r') {
      column = 0;
    } else if (output.compare(i, 3, "\x1b[K") == 0) {
      lines.back().resize(column);
      i += 2;
    } else {
      lines.back().resize(std::max(lines.back().size(), column + 1));
      lines.back()[column++] = output[i];
      REQUIRE(column < columns);
    }
  }
  return lines;
}

}  // namespace

TEST_CASE("the checker of these tests finds flaws") {
  REQUIRE(first_flaw("<p>a &amp; b<br/></p>") == "");
  REQUIRE(first_flaw("<p><b></p>") == "</p>");
  REQUIRE(first_flaw("<p>") == "<p>");
  REQUIRE(first_flaw("</p>") == "</p>");
  REQUIRE(first_flaw("<p a=\"x></p>") == "<p a=\"x>");
  REQUIRE(first_flaw("a & bcdef;") != "");
}

TEST_CASE("a report before the first epoch") {
  const std::string page = checked_page(kConfig, {});
  REQUIRE(has(page, "<title>wrn-10-1 on synthetic</title>"));
  REQUIRE(has(page, "No epoch is finished yet."));
  REQUIRE(count(page, "<svg") == 1);  // the network
  REQUIRE(!has(page, "<polyline"));
  REQUIRE(has(page, "width=device-width"));
}

TEST_CASE("the report's configuration, a table a part") {
  const std::string page = checked_page(kConfig, {});
  REQUIRE(has(page, "<h3>model</h3>"));
  REQUIRE(has(page, "<th>parameters</th><td>77850</td>"));
  REQUIRE(has(page, "<th>mean</th><td>0.5, 0.25</td>"));
  REQUIRE(has(page, "<th>classes</th><td>cat, dog</td>"));
  REQUIRE(has(page, "<th>augment</th><td>true</td>"));
  REQUIRE(has(page, "<th>resume</th><td>null</td>"));
  REQUIRE(has(page, "<th>extra</th><td>{}</td>"));
  REQUIRE(has(page, "77,850 parameters · cpu · 2 threads"));
}

TEST_CASE("a report of one epoch draws points") {
  const std::string page = checked_page(kConfig, run_of(1));
  REQUIRE(count(page, "role=\"img\"") == 4);  // three charts and the network
  REQUIRE(count(page, "<circle") == 5);
  REQUIRE(has(page, "<title>test, epoch 1: 89</title>"));
  REQUIRE(has(page, "epoch 1 of 10"));
  REQUIRE(!has(page, "<details"));
}

TEST_CASE("the report's summary") {
  std::vector<json> metrics = {epoch_line(1, 0.1, 50), epoch_line(2, 0.1, 30.126),
                               epoch_line(3, 0.1, 40)};
  metrics[0]["images_per_second"] = 5;
  const std::string page = checked_page(kConfig, metrics);
  REQUIRE(has(page, "<dt>Test error</dt><dd>40.00% <small>epoch 3 of 10</small>"));
  REQUIRE(has(page, "<dt>Best test error</dt><dd>30.13% <small>epoch 2</small>"));
  REQUIRE(has(page, "<dd>3m00s "));
  REQUIRE(has(page, "<dd>1002 <small>images/s, median"));
  REQUIRE(has(page, "<tr class=\"best\"><td>2</td>"));
  REQUIRE(!has(page, "alidation"));
  REQUIRE(!has(page, "Not finite"));

  // With a validation split the best epoch is the one that it, and not the test set, chooses.
  for (json& line : metrics) line["val_loss"] = 1.5;
  metrics[0]["val_error"] = 20.0;
  metrics[1]["val_error"] = 35.0;
  metrics[2]["val_error"] = 45.0;
  const std::string validated = checked_page(kConfig, metrics);
  REQUIRE(has(validated, "<dd>50.00% <small>epoch 1, validation 20.00%</small>"));
  REQUIRE(has(validated, "<tr class=\"best\"><td>1</td>"));
  REQUIRE(count(validated, "<g class=\"r2\">") == 2);

  // Of equal epochs it is the first, as best.safetensors is.
  metrics[2]["val_error"] = 20.0;
  REQUIRE(has(checked_page(kConfig, metrics), "<tr class=\"best\"><td>1</td>"));
}

TEST_CASE("a report of many epochs folds its table") {
  REQUIRE(has(checked_page(kConfig, run_of(20)), "<h2>Epochs</h2>"));
  REQUIRE(has(checked_page(kConfig, run_of(21)), "<h2>Last 10 epochs</h2>"));
  const std::string page = checked_page(kConfig, run_of(200));
  REQUIRE(has(page, "<h2>Last 10 epochs</h2>"));
  REQUIRE(has(page, "<summary>All 200 epochs</summary>"));
  REQUIRE(count(page, "<td>190</td>") == 1);
  REQUIRE(count(page, "<td>191</td>") == 2);
  REQUIRE(count(page, "<polyline") == 5);
  REQUIRE(!has(page, "<circle"));
}

TEST_CASE("a report of a very long run stays small") {
  std::vector<json> metrics = run_of(50000);
  metrics[31234]["test_loss"] = 6.5;
  metrics[41234]["test_loss"] = nullptr;
  metrics[33333]["test_error"] = -1e5;
  const std::string page = checked_page(kConfig, metrics);  // it looks at the size
  REQUIRE(has(page, "Some of all 50000 epochs"));
  REQUIRE(has(page, "<tr class=\"best\"><td>33334</td>"));  // it is never left out
  REQUIRE(count(page, "<polyline") == 6);                   // the gap is there
  REQUIRE(has(page, "<td>50000</td>"));
}

TEST_CASE("the report marks changes of the learning rate") {
  std::vector<json> metrics;
  for (int e = 1; e <= 10; ++e) {
    metrics.push_back(epoch_line(e, e <= 3 ? 0.1 : e <= 6 ? 0.02 : 0.004, 50));
  }
  const std::string page = checked_page(kConfig, metrics);
  REQUIRE(count(page, "<line class=\"mark\" x1=\"0\"") == 2);   // a key in two charts
  REQUIRE(count(page, "<line class=\"mark\"") == 2 * (1 + 2));  // and two lines
  REQUIRE(has(page, "<title>lr 0.02 after epoch 3</title>"));
  REQUIRE(has(page, "<title>lr 0.004 after epoch 6</title>"));
  REQUIRE(has(page, "learning rate changes"));
  REQUIRE(!has(checked_page(kConfig, run_of(10)), "learning rate changes"));

  for (int e = 1; e <= 40; ++e) metrics.push_back(epoch_line(10 + e, 0.1 / e, 50));
  REQUIRE(!has(checked_page(kConfig, metrics), "<line class=\"mark\""));  // a curve, not drops
}

TEST_CASE("values that are not finite leave gaps and are said") {
  std::vector<json> metrics = run_of(9);
  metrics[3]["train_loss"] = nullptr;
  metrics[5]["train_loss"] = std::nan("");
  metrics[6]["train_loss"] = -INFINITY;
  metrics[7]["train_loss"] = 1e300;
  metrics[8]["test_error"] = nullptr;
  const std::string page = checked_page(kConfig, metrics);
  REQUIRE(has(page, "training loss at epochs 4, 6–8; test error, % at epoch 9."));
  REQUIRE(has(page, "<dt>Test error</dt><dd>– <small>"));
  REQUIRE(count(page, "<polyline") == 7);  // the training loss in three pieces
  REQUIRE(count(page, "<circle") == 5 * 9 - 5);

  for (json& line : metrics) {
    for (const char* key : {"train_loss", "train_error", "test_loss", "test_error", "seconds", "lr",
                            "images_per_second"}) {
      line[key] = nullptr;
    }
  }
  const std::string nothing = checked_page(kConfig, metrics);
  REQUIRE(has(nothing, "training loss at epochs 1–9"));
  REQUIRE(!has(nothing, "<polyline"));
  REQUIRE(!has(nothing, "Best test error"));
}

TEST_CASE("huge, tiny and negative values make a chart") {
  for (const double value : {3e38, 1e-320, 0.0, -5.0, 1e20}) {
    std::vector<json> metrics = run_of(3);
    metrics[1]["test_loss"] = value;
    metrics[2]["test_error"] = value;
    const std::string page = checked_page(kConfig, metrics);
    REQUIRE(count(page, "<circle") + count(page, "<path class=\"over\"") == 15);
    REQUIRE(count(page, "<text class=\"y\"") < 36);
  }
}

TEST_CASE("one huge loss does not flatten a chart") {
  std::vector<json> metrics = run_of(10);
  metrics[2]["train_loss"] = 1e20;
  metrics[3]["test_loss"] = 250.0;
  const std::string page = checked_page(kConfig, metrics);
  REQUIRE(has(page, "2 values above 2.5 are drawn as ▲ at the upper edge; the largest is 1e+20."));
  REQUIRE(count(page, "<path class=\"over\"") == 2);
  REQUIRE(has(page, "<title>training, epoch 3: 1e+20</title>"));
  // Where all are huge, there is nothing that they would flatten.
  for (json& line : metrics) line["train_loss"] = line["test_loss"] = 1000.0;
  REQUIRE(!has(checked_page(kConfig, metrics), "▲"));
}

TEST_CASE("names in a report are text, whatever they hold") {
  json config = kConfig;
  config["model"]["name"] = "<script>alert('1')</script> & \"co\"";
  config["dataset"]["path"] = "/data/\xff\x01/caf\xc3\xa9";
  config["a<b"] = "c>d";
  const std::string page = checked_page(config, run_of(2));
  REQUIRE(has(page, "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;co&quot; on"));
  REQUIRE(has(page, "/data/\xEF\xBF\xBD /caf\xc3\xa9"));
  REQUIRE(has(page, "<th>a&lt;b</th><td>c&gt;d</td>"));
  RunRecord run{"<i>", config, run_of(2), predictions(3, 30)};
  run.predictions->class_names[1] = "<b>&";
  REQUIRE(!has(checked_page({run, run}), "<i>"));
  REQUIRE(has(checked_page({run}), "&lt;b&gt;&amp;"));
}

TEST_CASE("a report of a damaged configuration or metrics is still a page") {
  const std::vector<json> configs = {json(), json::array({1, 2}), json("text"),
                                     json{{"model", {1, 2}}, {"training", 5}}};
  for (const json& config : configs) checked_page(config, run_of(2));
  const std::vector<json> lines = {json(), json::object(), json(3), json{{"epoch", "x"}},
                                   json{{"epoch", 1e300}, {"test_error", "high"}}};
  REQUIRE(has(checked_page(kConfig, lines), "<svg"));
  REQUIRE(has(checked_page(json(), {}), "a network on an unnamed data set"));
}

TEST_CASE("a report's confusion matrix") {
  const RunRecord run{"run", kConfig, run_of(1), predictions(4, 120)};
  const std::string page = checked_page({run});
  REQUIRE(has(page, "40 of 120 test images, after epoch 1"));
  // Of each class 30 images, 10 of them divisible by 3.
  REQUIRE(count(page, "<td class=\"right\">20</td>") == 4);
  REQUIRE(count(page, "<td style=\"--a:1.00\">10</td>") == 4);
  REQUIRE(count(page, "<td class=\"none\">0</td>") == 8);
  REQUIRE(has(page,
              "<th scope=\"row\">class 2</th><td class=\"none\">0</td><td class=\"none\">0</td>"
              "<td class=\"right\">20</td><td style=\"--a:1.00\">10</td>"
              "<td class=\"sum\">33.3</td>"));
  // The surest first: image 117 of label 1, taken for 2.
  REQUIRE(count(page, "<img ") == 24);
  const std::size_t first = page.find("<img ");
  REQUIRE(page.substr(first, 200).find("alt=\"test image 117, class 1\"") != std::string::npos);
  REQUIRE(has(page, "<small>taken for class 2, 55.8%</small>"));
  REQUIRE(wrn::report_html({run}) == page);
}

TEST_CASE("a report's confusions of many classes are a list") {
  const std::string page =
      checked_page({RunRecord{"run", kConfig, run_of(1), predictions(100, 900)}});
  REQUIRE(!has(page, "class=\"confusion\""));
  REQUIRE(has(page, "Most confused"));
  REQUIRE(has(page, "<td>class 0</td><td>class 1</td><td>3</td><td>9</td>"));
  REQUIRE(has(page, "Hardest classes"));
}

TEST_CASE("predictions of an epoch that the run has not come to are left out") {
  RunRecord run{"run", kConfig, run_of(3), predictions(4, 12)};
  run.predictions->epoch = 4;
  REQUIRE(!has(checked_page({run}), "What it gets wrong"));
  run.predictions->epoch = 3;
  REQUIRE(has(checked_page({run}), "What it gets wrong"));
  run.predictions->predicted = run.predictions->labels;
  run.predictions->mistakes.clear();
  run.predictions->images.clear();
  REQUIRE(has(checked_page({run}), "0 of 12 test images"));
}

TEST_CASE("predictions go through their file") {
  const wrn::test::TemporaryDirectory directory;
  const auto path = directory.path() / "predictions.safetensors";
  const wrn::Predictions p = predictions(7, 50);
  wrn::write_predictions(path, p);
  const wrn::Predictions q = wrn::read_predictions(path);
  REQUIRE(q.epoch == p.epoch);
  REQUIRE(q.class_names == p.class_names);
  REQUIRE(q.labels == p.labels);
  REQUIRE(q.predicted == p.predicted);
  REQUIRE(q.probability == p.probability);
  REQUIRE(q.mistakes == p.mistakes);
  REQUIRE(q.images == p.images);

  const auto fault = [&]() -> std::string {
    try {
      wrn::read_predictions(path);
    } catch (const wrn::Error& error) {
      REQUIRE(has(error.what(), path.string()));
      return error.what();
    }
    return "";
  };
  const auto refused = [&](auto change, const char* says) {
    wrn::Predictions wrong = p;
    change(wrong);
    wrn::write_predictions(path, wrong);
    REQUIRE(has(fault(), says));
  };
  refused([](auto& w) { w.labels[3] = 7; }, "none of its classes");
  refused([](auto& w) { w.predicted[3] = 255; }, "none of its classes");
  refused([](auto& w) { w.mistakes[0] = 50; }, "none of its images");
  refused([](auto& w) { w.mistakes[0] = -1; }, "none of its images");
  refused(
      [](auto& w) {  // more than are ever kept
        w.mistakes.assign(25, 0);
        w.images.resize(25 * std::size_t{wrn::kImageBytes});
      },
      "not of one size");

  wrn::write_predictions(path, p);
  wrn::Safetensors file = wrn::read_safetensors(path);
  for (const char* epoch : {"2e32", "4294967297", "7.5", "-1", "null"}) {
    INFO(epoch);
    wrn::Safetensors changed = file;
    changed.metadata["epoch"] = epoch;
    wrn::write_safetensors(path, changed);
    REQUIRE(has(fault(), "its epoch is none that a run has"));
  }
  for (auto& [name, entry] : file.tensors) {
    if (name != "labels") continue;
    entry = wrn::SafetensorsEntry::make<std::uint8_t>({49}, std::span(p.labels).first(49));
  }
  wrn::write_safetensors(path, file);
  REQUIRE(has(fault(), "not of one size"));
}

TEST_CASE("the network is drawn with its parameters") {
  const auto page_of = [](const std::string& model) {
    json config = kConfig;
    config["model"]["name"] = model;
    return checked_page(config, run_of(1));
  };
  // conv1, the groups, the last batch norm, the linear layer, and the whole: as PyTorch counts
  // them.
  const std::string small = page_of("wrn-10-1");
  for (const char* number : {">432<", ">4,672<", ">14,432<", ">57,536<", ">128<", ">650<",
                             "77,850 parameters</small>"}) {
    REQUIRE(has(small, number));
  }
  REQUIRE(count(small, "class=\"shortcut identity\"") == 1);
  REQUIRE(count(small, "class=\"shortcut\"") == 2);
  const std::string large = page_of("wrn-28-10");
  REQUIRE(has(large, "36,479,194 parameters"));
  REQUIRE(count(large, "3 more, each") == 3);
  REQUIRE(count(large, "class=\"shortcut\"") == 3);
  REQUIRE(count(page_of("wrn-40-2-B(3,1,1)"), ">1×1, 32<") == 4);
  REQUIRE(!has(page_of("resnet-50"), "The network"));
}

TEST_CASE("several runs are compared") {
  RunRecord a{"first", kConfig, run_of(4), predictions(4, 12)}, b = a, c = a;
  b.name = "second";
  b.config["training"]["lr"] = 0.05;
  b.metrics = run_of(2);
  c.name = "third & last";
  c.config["training"]["lr_drops"] = {1, 2};
  c.metrics.clear();
  const std::string page = checked_page({a, b, c});
  REQUIRE(has(page, "<title>3 runs compared</title>"));
  REQUIRE(has(page, "<b>B</b></span> second</td><td>2</td><td>88.00</td>"));
  REQUIRE(has(page, "<th scope=\"row\">training.lr</th><td>–</td><td>0.05</td><td>–</td>"));
  REQUIRE(has(page, "<th scope=\"row\">training.lr_drops</th><td>–</td><td>–</td><td>1, 2</td>"));
  REQUIRE(!has(page, "<th scope=\"row\">model.name</th>"));
  REQUIRE(count(page, "<text class=\"tag r1\"") == 5);
  REQUIRE(count(page, "<details class=\"run\">") == 3);
  REQUIRE(has(checked_page({a, a}), "Their configurations are the same."));
  const std::string many = checked_page(std::vector<RunRecord>(16, a));
  REQUIRE(has(many, "<b>P</b>"));
}

TEST_CASE("a chart takes any number of series of different lengths") {
  const std::string svg = wrn::chart_html(
      {"Error <%>",
       "%",
       {{"one", "a", {{1, 5}, {2, 4}}, "A"}, {"two & more", "b", {{1, 9}, {5, 7}}}, {"", "c", {}}},
       {{2, "half"}, {2, "again"}}});
  REQUIRE(first_flaw(svg) == "");
  REQUIRE(has(svg, "Error &lt;%&gt;"));
  REQUIRE(has(svg, "two &amp; more</span>"));
  REQUIRE(count(svg, "<polyline") == 2);
  REQUIRE(count(svg, "<text class=\"mark\"") == 1);  // the second would be written over the first
  REQUIRE(count(svg, "<text class=\"tag a\"") == 1);
  REQUIRE(has(svg, ">10</text>"));  // the errors' axis ends at a whole step

  const std::string empty = wrn::chart_html({"Empty", "", {}});
  REQUIRE(first_flaw(empty) == "");
  REQUIRE(!has(empty, "nan"));
}

TEST_CASE("durations") {
  REQUIRE(wrn::duration_text(0) == "0s");
  REQUIRE(wrn::duration_text(59.4) == "59s");
  REQUIRE(wrn::duration_text(59.6) == "1m00s");
  REQUIRE(wrn::duration_text(192) == "3m12s");
  REQUIRE(wrn::duration_text(3720) == "1h02m");
  REQUIRE(wrn::duration_text(48 * 3600 - 60) == "47h59m");
  REQUIRE(wrn::duration_text(48 * 3600) == "2d00h");
  REQUIRE(wrn::duration_text(2 * 86400 + 3 * 3600) == "2d03h");
  REQUIRE(wrn::duration_text(-1) == "?");
  REQUIRE(wrn::duration_text(NAN) == "?");
  REQUIRE(wrn::duration_text(INFINITY) == "?");
}

TEST_CASE("progress without a terminal is a line an epoch") {
  std::ostringstream out;
  {
    Progress progress(false, 10, out, false);
    progress.batch(3, 1, 40, 1.0, 50.0, 1000, 60);
    REQUIRE(out.str().empty());
    progress.epoch_done({{"epoch", 3},
                         {"lr", 0.1},
                         {"train_loss", 1.2345},
                         {"train_error", 45.67},
                         {"test_loss", 1.3456},
                         {"test_error", 48.9},
                         {"images_per_second", 1234.4},
                         {"seconds", 12.34}});
    progress.message("saved");
    progress.epoch_done({{"epoch", 10},
                         {"lr", 0.0008},
                         {"train_loss", nullptr},
                         {"train_error", 90.0},
                         {"val_loss", 2.0},
                         {"val_error", 9.5},
                         {"test_loss", 12.5},
                         {"test_error", 8.0},
                         {"images_per_second", 987.6},
                         {"seconds", 1234.56}});
  }
  REQUIRE(
      out.str() ==
      "epoch  3/10  lr 0.1     train 1.2345 45.67%  test 1.3456 48.90%   1234 images/s    12.3 s\n"
      "saved\n"
      "epoch 10/10  lr 0.0008  train    nan 90.00%  val 2.0000  9.50%  test 12.5000  8.00%"
      "    988 images/s  1234.6 s\n");
}

TEST_CASE("quiet progress prints messages alone") {
  for (const bool is_terminal : {false, true}) {
    std::ostringstream out;
    {
      Progress progress(true, 10, out, is_terminal);
      progress.batch(1, 1, 40, 1.0, 50.0, 1000, 60);
      progress.epoch_done(epoch_line(1, 0.1, 50));
      progress.message("stopped by SIGINT");
    }
    REQUIRE(out.str() == "stopped by SIGINT\n");
  }
}

TEST_CASE("the bar on a terminal, and lines above it") {
  std::ostringstream out;
  Progress progress(false, 10, out, true, [] { return 100; });
  progress.batch(3, 20, 40, 1.23456, 45.678, 1234, 192);
  const std::string bar =
      "epoch  3/10 [===============>               ]  loss 1.2346  error 45.68%  3m12s left  1234 "
      "images/s";
  REQUIRE(screen(out.str(), 100) == std::vector<std::string>{bar});

  progress.message("saved latest.safetensors");
  REQUIRE(screen(out.str(), 100) == std::vector<std::string>{"saved latest.safetensors", bar});

  progress.epoch_done(epoch_line(3, 0.1, 50));
  const auto lines = screen(out.str(), 100);
  REQUIRE(lines.size() == 3);
  REQUIRE(lines[1].substr(0, 19) == "epoch  3/10  lr 0.1");
  REQUIRE(lines[2].empty());

  // The bar of the next epoch, cleared by finish() and then by nothing more.
  progress.batch(4, 1, 40, 1.0, 50.0, 1000, NAN);
  REQUIRE(has(screen(out.str(), 100).back(), "epoch  4/10"));
  REQUIRE(!has(screen(out.str(), 100).back(), "left"));
  progress.finish();
  REQUIRE(screen(out.str(), 100).back().empty());
  const std::string finished = out.str();
  progress.finish();
  REQUIRE(out.str() == finished);
}

TEST_CASE("the bar fits every width") {
  for (int columns = 0; columns < 200; ++columns) {
    for (const double loss : {1.25, 3e38, std::nan("")}) {
      std::ostringstream out;
      Progress progress(false, 200, out, true, [&] { return columns; });
      progress.batch(7, 40, 40, loss, 100.0, 123456, 1e7);
      // At no width is the last column written (a width of 0 has none).
      const auto lines = screen(out.str(), static_cast<std::size_t>(std::max(columns, 1)));
      REQUIRE(lines.size() == 1);
      if (columns > 13) REQUIRE(has(lines[0], "epoch   7/200"));
      if (columns > 13 + 1 + 8) REQUIRE(has(lines[0], "[======"));
      if (columns >= 60 && loss < 2) REQUIRE(has(lines[0], "loss 1.2500  error 100.00%"));
    }
  }
  REQUIRE(wrn::terminal_columns() > 0);
}

TEST_CASE("the bar takes any step") {
  for (const auto& [step, steps] : {std::pair{0, 0}, {5, 0}, {-3, 10}, {99, 10}}) {
    std::ostringstream out;
    Progress progress(false, 1, out, true, [] { return 80; });
    progress.batch(1, step, steps, 1.0, 50.0, INFINITY, -1);
    REQUIRE(screen(out.str(), 80).size() == 1);
  }
}

TEST_CASE("the bar is redrawn at most ten times a second") {
  std::ostringstream out;
  Progress progress(false, 1, out, true, [] { return 80; });
  const auto start = std::chrono::steady_clock::now();
  for (int step = 1; step <= 250; ++step) {
    progress.batch(1, step, 250, 1.0, 50.0, 1000, 60);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  const auto drawn = static_cast<double>(count(out.str(), "\r"));
  REQUIRE(drawn >= 2);
  REQUIRE(drawn <= 1 + taken.count() / 0.1);
}
