#include "apps/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "apps/chart.h"
#include "apps/history.h"
#include "apps/progress.h"
#include "apps/report_parts.h"

namespace wrn {
namespace {

using nlohmann::json;

constexpr std::size_t kMostRows = 400;   // of a table
constexpr std::size_t kMostImages = 24;  // of mistakes in a page

/// A metric as the table, the charts and the remarks show it.
struct Column {
  std::string key, heading;
  int decimals;
};

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

std::string tile(const std::string& name, const std::string& value, const std::string& remark) {
  return fmt::format("<div><dt>{}</dt><dd>{} <small>{}</small></dd></div>\n", name, value, remark);
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

std::string summary(const json& config, const History& metrics) {
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
std::string gaps_remark(const History& metrics, const std::vector<Column>& columns) {
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

std::string epoch_table(const History& metrics, const std::vector<Column>& columns,
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
std::string epochs_section(const History& metrics, const std::vector<Column>& columns) {
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
    spec.classes = int_within(1, 1'000'000, config.at("model"), "classes", 10);
    if (config.contains("training")) spec.dropout = config["training"].value("dropout", 0.0F);
    spec.blocks();
    return "<section>\n<h2>The network</h2>\n" + network_html(spec) + "</section>\n";
  } catch (const std::exception&) {
    return "";  // a name of another program's
  }
}

std::vector<Column> columns_of(const History& metrics) {
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
