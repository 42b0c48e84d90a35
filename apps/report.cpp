#include "apps/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <utility>

#include "apps/chart.h"
#include "apps/progress.h"

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

std::string value_text(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array() || value.empty()) {
    return value.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  std::string out;
  for (const json& item : value) out += (out.empty() ? "" : ", ") + value_text(item);
  return out;
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
    const std::string text = config_text(config, pointer, "");
    if (text.empty()) continue;
    out += (out.empty() ? "" : " · ") + (before + html_escaped(text) + after);
  }
  return out.empty() ? "" : "<p class=\"about\">" + out + "</p>\n";
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
  double seconds = 0;
  for (const double epoch : finite_column(metrics, "seconds")) seconds += epoch;
  out += tile("Time", duration_text(seconds), "all epochs");
  std::vector<double> speed = finite_column(metrics, "images_per_second");
  std::sort(speed.begin(), speed.end());
  // Of an even number of epochs, the mean of the middle two.
  const double median =
      speed.empty() ? NAN : (speed[(speed.size() - 1) / 2] + speed[speed.size() / 2]) / 2;
  out += tile("Speed", fixed(median, 0), "images/s, median");
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

std::string curves(const Metrics& metrics, const std::string& title, const std::string& what) {
  std::vector<Series> series;
  for (const auto& [split, name] : {std::pair{"train", "training"}, std::pair{"val", "validation"},
                                    std::pair{"test", "test"}}) {
    const std::string key = std::string(split) + "_" + what;
    if (!present(metrics, key)) continue;
    series.push_back({name, split, {}});
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      series.back().points.push_back(
          {static_cast<double>(epoch_of(metrics, i)), number(metrics[i], key)});
    }
  }
  return chart_html(title, series, rate_changes(metrics));
}

std::string epoch_table(const Metrics& metrics, const std::vector<Column>& columns,
                        std::size_t first) {
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr><th>epoch</th><th>lr</th>";
  for (const Column& column : columns) out += "<th>" + column.heading + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  const auto best = best_epoch(metrics);
  for (std::size_t i = first; i < metrics.size(); ++i) {
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
    out += fmt::format("<details><summary>All {} epochs</summary>\n{}</details>\n", metrics.size(),
                       epoch_table(metrics, columns, 0));
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

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --page: #fff; --text: #1c2024; --soft: #5c6670; --rule: #d9dee3;
  --panel: #f5f7f9; --train: #0b6bb8; --val: #12805c; --test: #d1500b; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --text: #e6e9ec; --soft: #9aa5b0; --rule: #343b42;
    --panel: #1d2126; --train: #5fb0f2; --val: #45c496; --test: #ff9355; } }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 62rem; background: var(--page);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
small, .about, .legend, figcaption small { color: var(--soft); }
.about { margin: .25rem 0 1.25rem; }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 0 0 1rem; }
.summary div { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem; }
.summary dt { color: var(--soft); font-size: .85rem; }
.summary dd { margin: 0; font-size: 1.4rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.summary small { display: block; font-size: .8rem; font-weight: 400; }
.remark { border-left: 4px solid var(--test); padding: .3rem .8rem; background: var(--panel); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1.25rem; }
figure { margin: 0; }
figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12.5px; }
svg text.x { text-anchor: middle; }
svg text.y, svg text.mark { text-anchor: end; }
svg text.mark { font-size: 11px; paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
svg line.grid { stroke: var(--rule); }
svg line.axis, svg line.mark { stroke: var(--soft); }
svg line.mark { stroke-dasharray: 4 3; }
polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
circle { fill: currentColor; }
g.train, .train i { color: var(--train); }
g.val, .val i { color: var(--val); }
g.test, .test i { color: var(--test); }
.legend { margin: .25rem 0 0; font-size: .9rem; display: flex; flex-wrap: wrap; gap: 0 1.1rem; }
.legend i { display: inline-block; width: 1.4em; border-top: 3px solid; margin-right: .4em;
  vertical-align: .25em; }
.legend .mark i { border-top: 2px dashed; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
tr.best td { font-weight: 700; background: var(--panel); }
.config th, .config td { text-align: left; vertical-align: top; }
.config th { color: var(--soft); font-weight: 400; }
.config td { white-space: normal; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .8rem 0; }
)";

}  // namespace

std::string report_html(const json& config, const Metrics& metrics) {
  const std::string title =
      html_escaped(config_text(config, "/model/name", "a network") + " on " +
                   config_text(config, "/dataset/name", "an unnamed data set"));
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
      title, kStyle);
  out += about(config);

  std::vector<Column> columns;
  for (const Column& column :
       {Column{"train_loss", "training loss", 4}, Column{"train_error", "training error, %", 2},
        Column{"val_loss", "validation loss", 4}, Column{"val_error", "validation error, %", 2},
        Column{"test_loss", "test loss", 4}, Column{"test_error", "test error, %", 2},
        Column{"seconds", "seconds", 1}, Column{"images_per_second", "images/s", 0}}) {
    if (present(metrics, column.key)) columns.push_back(column);
  }
  if (metrics.empty()) {
    out += "<p>No epoch is finished yet.</p>\n";
  } else {
    out += summary(config, metrics) + gaps_remark(metrics, columns);
    out += "<div class=\"charts\">\n" + curves(metrics, "Loss", "loss") +
           curves(metrics, "Error, %", "error") + "</div>\n";
    out += epochs_section(metrics, columns);
  }
  if (!config.empty()) {
    out +=
        "<h2>Configuration</h2>\n<div class=\"scroll\" tabindex=\"0\"><table class=\"config\">\n" +
        config_rows(config, "") + "</table></div>\n";
  }
  return out + "</body>\n</html>\n";
}

}  // namespace wrn
