#include "apps/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "apps/chart.h"
#include "apps/progress.h"
#include "apps/report_parts.h"

namespace wrn {
namespace {

using nlohmann::json;
using Metrics = std::vector<json>;

/// NaN for what is missing, null, or past what a float holds: a diverged run gives any of them.
double number(const json& line, const std::string& key) {
  const auto found = line.find(key);
  const bool known = found != line.end() && found->is_number();
  const double value = known ? found->get<double>() : NAN;
  return std::abs(value) <= FLT_MAX ? value : NAN;
}

std::vector<double> finite_column(const Metrics& metrics, const std::string& key) {
  std::vector<double> values;
  for (const json& line : metrics) {
    if (const double value = number(line, key); std::isfinite(value)) values.push_back(value);
  }
  return values;
}

/// Some line has a finite value of it, or says that it is not finite.
bool present(const Metrics& metrics, const std::string& key) {
  return std::any_of(metrics.begin(), metrics.end(),
                     [&](const json& line) { return line.contains(key); });
}

/// As much of it as a person reads.
std::string value_text(const json& value) {
  constexpr std::size_t kMost = 300;
  std::string out;
  if (value.is_array() && !value.empty()) {
    for (const json& item : value) {
      out += (out.empty() ? "" : ", ") + value_text(item);
      if (out.size() > kMost) break;
    }
  } else if (value.is_number_float()) {
    out = fmt::format("{:.6g}", value.get<double>());
  } else if (value.is_string()) {
    out = value.get<std::string>();
  } else {
    out = value.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  return out.size() > kMost ? out.substr(0, kMost) + "…" : out;
}

std::string config_text(const json& config, const char* pointer, const std::string& otherwise) {
  const json::json_pointer path(pointer);
  return config.contains(path) ? value_text(config.at(path)) : otherwise;
}

/// A dash for what is not finite; an exponent where digits would not fit.
std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "–";
  return std::abs(value) < 1e6 ? fmt::format("{:.{}f}", value, decimals)
                               : fmt::format("{:.3g}", value);
}

std::string percent(double value) { return std::isfinite(value) ? fixed(value, 2) + "%" : "–"; }

/// Epochs as people write them: 4, 6–10.
std::string ranges(const std::vector<int>& epochs) {
  std::string out;
  for (std::size_t first = 0, last = 0; first < epochs.size(); first = ++last) {
    while (last + 1 < epochs.size() && epochs[last + 1] == epochs[last] + 1) ++last;
    out += fmt::format("{}{}", out.empty() ? "" : ", ", epochs[first]);
    if (last > first) out += fmt::format("{}{}", last > first + 1 ? "–" : ", ", epochs[last]);
  }
  return out;
}

constexpr std::size_t kMostRows = 400;   // of a table
constexpr std::size_t kMostImages = 24;  // of mistakes in a page

/// A metric as the table, the charts and the remarks show it.
struct Column {
  std::string key, heading;
  int decimals;
};

/// The line's own number, or its place where it has none that can be drawn.
int epoch_of(const Metrics& metrics, std::size_t index) {
  const double epoch = number(metrics[index], "epoch");
  const bool sane = epoch >= 0 && epoch <= 1e9;
  return static_cast<int>(sane ? epoch : static_cast<double>(index + 1));
}

// ---- Parts of the page ------------------------------------------------------------------------

std::string tile(const std::string& name, const std::string& value, const std::string& remark) {
  return fmt::format("<div><dt>{}</dt><dd>{} <small>{}</small></dd></div>\n", name, value, remark);
}

/// Of the validation split if there is one, as its best epoch is chosen without the test set.
std::string selection_split(const Metrics& metrics) {
  return present(metrics, "val_error") ? "val" : "test";
}

std::optional<std::size_t> best_epoch(const Metrics& metrics) {
  const std::string key = selection_split(metrics) + "_error";
  std::optional<std::size_t> best;
  double least = INFINITY;
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const double error = number(metrics[i], key);
    if (!(error < least)) continue;
    least = error;
    best = i;
  }
  return best;
}

/// What was trained, on what, with what, as far as the configuration says.
std::string about(const json& config) {
  std::string out;
  for (const auto& [pointer, before, after] :
       {std::tuple{"/model/parameters", "", " parameters"},
        std::tuple{"/dataset/train_images", "", " training images"},
        std::tuple{"/dataset/test_images", "", " test images"},
        std::tuple{"/training/batch_size", "batches of ", ""}, std::tuple{"/device", "", ""},
        std::tuple{"/threads", "", " threads"}}) {
    const json::json_pointer path(pointer);
    if (!config.contains(path)) continue;
    const json& value = config.at(path);
    const std::string text =
        value.is_number_integer() ? with_commas(value.get<std::int64_t>()) : value_text(value);
    out += (out.empty() ? "" : " · ") + (before + html_escaped(text) + after);
  }
  return out.empty() ? "" : "<p class=\"about\">" + out + "</p>\n";
}

double total_seconds(const Metrics& metrics) {
  const std::vector<double> seconds = finite_column(metrics, "seconds");
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

double median_speed(const Metrics& metrics) {
  std::vector<double> speed = finite_column(metrics, "images_per_second");
  if (speed.empty()) return NAN;
  std::sort(speed.begin(), speed.end());
  // Of an even number of epochs, the mean of the middle two.
  return (speed[(speed.size() - 1) / 2] + speed[speed.size() / 2]) / 2;
}

std::string summary(const json& config, const Metrics& metrics) {
  const std::size_t last = metrics.size() - 1;
  const std::string planned = config_text(config, "/training/epochs", "");
  std::string done = fmt::format("epoch {}", epoch_of(metrics, last));
  if (!planned.empty()) done += " of " + html_escaped(planned);
  std::string out = "<dl class=\"summary\">\n";
  out += tile("Test error", percent(number(metrics[last], "test_error")), done);
  if (const auto best = best_epoch(metrics)) {
    const bool by_test = selection_split(metrics) == "test";
    std::string where = fmt::format("epoch {}", epoch_of(metrics, *best));
    if (!by_test) where += ", validation " + percent(number(metrics[*best], "val_error"));
    out += tile(by_test ? "Best test error" : "Test error, best validated",
                percent(number(metrics[*best], "test_error")), where);
  }
  if (present(metrics, "test_top5_error")) {
    out += tile("Test top-5 error", percent(number(metrics[last], "test_top5_error")),
                "not among the five likeliest");
  }
  out += tile("Training error", percent(number(metrics[last], "train_error")), "augmented images");
  out += tile("Time", duration_text(total_seconds(metrics)), "all epochs");
  out += tile("Speed", fixed(median_speed(metrics), 0), "images/s, median");
  return out + "</dl>\n";
}

/// "Not finite" is said in words, as a gap in a curve is easily overlooked.
std::string gaps_remark(const Metrics& metrics, const std::vector<Column>& columns) {
  std::string out;
  for (const Column& column : columns) {
    std::vector<int> epochs;
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      const bool said = metrics[i].contains(column.key);
      if (said && std::isnan(number(metrics[i], column.key)))
        epochs.push_back(epoch_of(metrics, i));
    }
    if (epochs.empty()) continue;
    out += fmt::format("{}{} at epoch{} {}", out.empty() ? "" : "; ", column.heading,
                       epochs.size() > 1 ? "s" : "", ranges(epochs));
  }
  if (out.empty()) return "";
  return "<p class=\"remark\">Not finite, so missing from the charts: " + out + ".</p>\n";
}

std::vector<Mark> rate_changes(const Metrics& metrics) {
  std::vector<Mark> marks;
  for (std::size_t i = 1; i < metrics.size(); ++i) {
    const double before = number(metrics[i - 1], "lr"), rate = number(metrics[i], "lr");
    if (std::isnan(before) || std::isnan(rate) || before == rate) continue;
    // A point stands for the end of its epoch: the new rate reigns from the last point on.
    marks.push_back({static_cast<double>(epoch_of(metrics, i - 1)), fmt::format("lr {:g}", rate)});
  }
  // More than a few drops are a curve, and their lines would hide the others.
  if (marks.size() > 12) marks.clear();
  return marks;
}

std::vector<Point> points_of(const Metrics& metrics, const std::string& key) {
  std::vector<Point> points;
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    points.push_back({static_cast<double>(epoch_of(metrics, i)), number(metrics[i], key)});
  }
  return points;
}

/// A network that knows nothing has a loss of log(classes); far above it, a loss says only that
/// training went wrong. No error is above 100%.
double clip_of(const std::vector<RunRecord>& runs, const std::string& what) {
  if (what != "loss") return 100;
  double classes = 10;
  for (const RunRecord& run : runs) {
    const json::json_pointer path("/model/classes");
    if (run.config.contains(path) && run.config.at(path).is_number()) {
      classes = std::clamp(run.config.at(path).get<double>(), classes, 1e6);
    }
  }
  return 3 * std::log(classes);
}

/// A run's splits on one pair of axes.
std::string split_curves(const RunRecord& run, const std::string& title, const std::string& what) {
  Chart chart{
      title, what == "loss" ? "loss" : "%", {}, rate_changes(run.metrics), clip_of({run}, what)};
  for (const auto& [split, name, style] :
       {std::tuple{"test", "test", "r0"}, std::tuple{"train", "training", "r1"},
        std::tuple{"val", "validation", "r2"}}) {
    const std::string key = std::string(split) + "_" + what;
    if (!present(run.metrics, key)) continue;
    chart.series.push_back({name, style, points_of(run.metrics, key)});
  }
  return chart_html(chart);
}

/// A letter for each run, by which charts and tables speak of it.
std::string tag_of(std::size_t run) {
  return run < 26 ? std::string(1, static_cast<char>('A' + run)) : std::to_string(run + 1);
}

std::string style_of(std::size_t run) { return fmt::format("r{}", run % 8); }

/// One metric of all runs on one pair of axes; nothing where none has it.
std::string run_curves(const std::vector<RunRecord>& runs, const std::string& title,
                       const std::string& unit, const std::string& key) {
  Chart chart{title, unit, {}};
  if (unit != "images/s") chart.clip = clip_of(runs, unit == "%" ? "error" : "loss");
  const auto same_drops = [&](const RunRecord& run) {
    const auto ours = rate_changes(run.metrics), first = rate_changes(runs[0].metrics);
    return std::equal(
        ours.begin(), ours.end(), first.begin(), first.end(),
        [](const Mark& a, const Mark& b) { return a.epoch == b.epoch && a.label == b.label; });
  };
  const bool same = std::all_of(runs.begin(), runs.end(), same_drops);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (!present(runs[i].metrics, key)) continue;
    const bool several = runs.size() > 1;
    chart.series.push_back({several ? runs[i].name : title, style_of(i),
                            points_of(runs[i].metrics, key), several ? tag_of(i) : ""});
    if ((same && i > 0) || unit == "images/s") continue;
    for (Mark mark : rate_changes(runs[i].metrics)) {
      if (!same) mark.label = tag_of(i) + ": " + mark.label;
      chart.marks.push_back(mark);
    }
  }
  if (chart.marks.size() > 12) chart.marks.clear();
  std::stable_sort(chart.marks.begin(), chart.marks.end(),
                   [](const Mark& a, const Mark& b) { return a.epoch < b.epoch; });
  return chart.series.empty() ? "" : chart_html(chart);
}

std::string epoch_table(const Metrics& metrics, const std::vector<Column>& columns,
                        std::size_t first) {
  const std::size_t every = (metrics.size() - first + kMostRows - 1) / kMostRows;
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" "
      "aria-label=\"epochs\"><table>\n<thead><tr><th>epoch</th><th>lr</th>";
  for (const Column& column : columns) out += "<th>" + column.heading + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  const auto best = best_epoch(metrics);
  for (std::size_t i = first; i < metrics.size(); ++i) {
    if (i % every != 0 && i + 1 != metrics.size() && best != i) continue;
    const double rate = number(metrics[i], "lr");
    out += fmt::format("<tr{}><td>{}</td><td>{}</td>", best == i ? " class=\"best\"" : "",
                       epoch_of(metrics, i), std::isnan(rate) ? "–" : fmt::format("{:g}", rate));
    for (const Column& column : columns) {
      out += "<td>" + fixed(number(metrics[i], column.key), column.decimals) + "</td>";
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

/// The last epochs, and all of them on demand where they are many.
std::string epochs_section(const Metrics& metrics, const std::vector<Column>& columns) {
  const std::size_t shown = metrics.size() > 20 ? 10 : metrics.size();
  std::string out = metrics.size() > shown ? fmt::format("<h2>Last {} epochs</h2>\n", shown)
                                           : std::string("<h2>Epochs</h2>\n");
  out += epoch_table(metrics, columns, metrics.size() - shown);
  if (best_epoch(metrics)) out += "<p class=\"legend\">The best epoch is in bold.</p>\n";
  if (metrics.size() > shown) {
    const bool all = metrics.size() <= kMostRows;
    out +=
        fmt::format("<details><summary>{} {} epochs</summary>\n{}</details>\n",
                    all ? "All" : "Some of all", metrics.size(), epoch_table(metrics, columns, 0));
  }
  return out;
}

/// A row a setting, nested names joined by dots.
std::string config_rows(const json& value, const std::string& name) {
  if (!value.is_object() || value.empty()) {
    return fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", html_escaped(name),
                       html_escaped(value_text(value)));
  }
  std::string out;
  for (const auto& [key, item] : value.items()) {
    out += config_rows(item, name.empty() ? key : name + "." + key);
  }
  return out;
}

/// A table for each part of the configuration, side by side.
std::string config_section(const json& config) {
  if (config.empty()) return "";
  std::string out = "<h2>Configuration</h2>\n<div class=\"configuration\">\n";
  std::string rest;
  const auto table = [](const std::string& heading, const std::string& rows) {
    return "<div><h3>" + heading + "</h3>\n<table class=\"config\">\n" + rows + "</table></div>\n";
  };
  if (config.is_object()) {
    for (const auto& [key, value] : config.items()) {
      if (value.is_object() && !value.empty()) {
        out += table(html_escaped(key), config_rows(value, ""));
      } else {
        rest += config_rows(value, key);
      }
    }
  } else {
    rest = config_rows(config, "config.json");
  }
  if (!rest.empty()) out += table("machine", rest);
  return out + "</div>\n";
}

std::string network_section(const json& config) {
  try {
    WideResNetSpec spec = parse_model(config.at("model").at("name").get<std::string>());
    spec.classes = config.at("model").value("classes", 10);
    if (config.contains("training")) spec.dropout = config["training"].value("dropout", 0.0F);
    spec.blocks();
    return "<section>\n<h2>The network</h2>\n" + network_html(spec) + "</section>\n";
  } catch (const std::exception&) {
    return "";  // a name of another program's
  }
}

std::vector<Column> columns_of(const Metrics& metrics) {
  std::vector<Column> columns;
  for (const Column& column :
       {Column{"train_loss", "training loss", 4}, Column{"train_error", "training error, %", 2},
        Column{"val_loss", "validation loss", 4}, Column{"val_error", "validation error, %", 2},
        Column{"test_loss", "test loss", 4}, Column{"test_error", "test error, %", 2},
        Column{"test_top5_error", "test top-5 error, %", 2}, Column{"seconds", "seconds", 1},
        Column{"images_per_second", "images/s", 0}}) {
    if (present(metrics, column.key)) columns.push_back(column);
  }
  return columns;
}

/// What stands below the curves of one run.
std::string details_of(const RunRecord& run, std::size_t images) {
  std::string out;
  // Those of a later epoch were left by an evaluation that this run has not come to again.
  if (run.predictions && run.predictions->epoch <= static_cast<int>(run.metrics.size())) {
    out += predictions_html(*run.predictions, images);
  }
  out += "<div class=\"beside\">\n" + network_section(run.config);
  if (!run.metrics.empty()) {
    out += "<section>\n" + epochs_section(run.metrics, columns_of(run.metrics)) + "</section>\n";
  }
  return out + "</div>\n" + config_section(run.config);
}

std::string title_of(const RunRecord& run) {
  return html_escaped(config_text(run.config, "/model/name", "a network") + " on " +
                      config_text(run.config, "/dataset/name", "an unnamed data set"));
}

std::string one_run(const RunRecord& run) {
  std::string out = "<h1>" + title_of(run) + "</h1>\n" + about(run.config);
  if (run.metrics.empty()) {
    out += "<p>No epoch is finished yet.</p>\n";
  } else {
    out += summary(run.config, run.metrics) + gaps_remark(run.metrics, columns_of(run.metrics));
    out += "<div class=\"charts\">\n" + split_curves(run, "Error", "error") +
           split_curves(run, "Loss", "loss") +
           run_curves({run}, "Training speed", "images/s", "images_per_second") + "</div>\n";
  }
  return out + details_of(run, kMostImages);
}

std::string results_table(const std::vector<RunRecord>& runs) {
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"results\"><table "
      "class=\"runs\">\n<thead><tr><th>run</th><th>epochs</th><th>test error, %</th><th>test "
      "loss</th><th>best test error, %</th><th>training error, %</th><th>time</th><th>images/s, "
      "median</th></tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Metrics& metrics = runs[i].metrics;
    const json last = metrics.empty() ? json::object() : metrics.back();
    const auto best = best_epoch(metrics);
    out += fmt::format(
        "<tr><td class=\"name\"><span class=\"{}\"><b>{}</b></span> {}</td><td>{}</td><td>{}</td>"
        "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        style_of(i), tag_of(i), html_escaped(runs[i].name), metrics.size(),
        fixed(number(last, "test_error"), 2), fixed(number(last, "test_loss"), 4),
        best ? fixed(number(metrics[*best], "test_error"), 2) : "–",
        fixed(number(last, "train_error"), 2), duration_text(total_seconds(metrics)),
        fixed(median_speed(metrics), 0));
  }
  return out + "</tbody></table></div>\n";
}

/// The settings that differ, a row each.
std::string differences_table(const std::vector<RunRecord>& runs) {
  std::vector<std::string> names;
  std::vector<std::map<std::string, std::string>> values;
  for (const RunRecord& run : runs) {
    auto& of_run = values.emplace_back();
    const json flat = run.config.flatten();
    for (const auto& [pointer, value] : flat.items()) {
      // "/training/lr_drops/2" is a part of "training.lr_drops".
      std::string name = pointer;
      const auto slash = name.rfind('/');
      if (slash != std::string::npos && slash + 1 < name.size() &&
          name.find_first_not_of("0123456789", slash + 1) == std::string::npos) {
        name.resize(slash);
      }
      std::string& text = of_run[name];
      text += (text.empty() ? "" : ", ") + value_text(value);
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  std::string rows;
  for (const std::string& name : names) {
    const auto of = [&](std::size_t i) { return values[i].contains(name) ? values[i][name] : "–"; };
    bool differs = false;
    std::string row;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      differs = differs || of(i) != of(0);
      row += "<td>" + html_escaped(of(i)) + "</td>";
    }
    if (!differs) continue;
    std::string dotted = name.substr(std::min<std::size_t>(1, name.size()));
    std::replace(dotted.begin(), dotted.end(), '/', '.');
    rows += "<tr><th scope=\"row\">" + html_escaped(dotted) + "</th>" + row + "</tr>\n";
  }
  if (rows.empty()) return "<p>Their configurations are the same.</p>\n";
  std::string head;
  for (std::size_t i = 0; i < runs.size(); ++i) head += "<th scope=\"col\">" + tag_of(i) + "</th>";
  return "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"differences\"><table "
         "class=\"differences\">\n<thead><tr><th>setting</th>" +
         head + "</tr></thead>\n<tbody>\n" + rows + "</tbody></table></div>\n";
}

std::string several_runs(const std::vector<RunRecord>& runs) {
  std::string out = fmt::format("<h1>{} runs compared</h1>\n", runs.size()) + results_table(runs);
  out += "<h2>What differs</h2>\n" + differences_table(runs) +
         "<h2>Curves</h2>\n<div class=\"charts\">\n";
  for (const auto& [title, unit, key] :
       {std::tuple{"Test error", "%", "test_error"}, std::tuple{"Test loss", "loss", "test_loss"},
        std::tuple{"Training error", "%", "train_error"},
        std::tuple{"Training loss", "loss", "train_loss"},
        std::tuple{"Training speed", "images/s", "images_per_second"}}) {
    out += run_curves(runs, title, unit, key);
  }
  out += "</div>\n<h2>Each run</h2>\n";
  for (std::size_t i = 0; i < runs.size(); ++i) {
    out +=
        fmt::format("<details class=\"run\"><summary>{} {}: {}</summary>\n{}{}</details>\n",
                    tag_of(i), html_escaped(runs[i].name), title_of(runs[i]), about(runs[i].config),
                    details_of(runs[i], std::max<std::size_t>(4, kMostImages / runs.size())));
  }
  return out;
}

}  // namespace

std::string report_html(const std::vector<RunRecord>& runs) {
  const bool one = runs.size() == 1;
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</"
      "html>\n",
      one ? title_of(runs[0]) : fmt::format("{} runs compared", runs.size()), kReportStyle,
      one ? one_run(runs[0]) : several_runs(runs));
}

}  // namespace wrn
