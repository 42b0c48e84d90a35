// The curves of a page: of one run's splits, or of one metric of several runs.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "apps/chart.h"
#include "apps/history.h"
#include "apps/report_parts.h"

namespace wrn {
namespace {

using nlohmann::json;

std::vector<Mark> rate_changes(const History& metrics) {
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

std::vector<Point> points_of(const History& metrics, const std::string& key) {
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

}  // namespace

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

std::string tag_of(std::size_t run) {
  return run < 26 ? std::string(1, static_cast<char>('A' + run)) : std::to_string(run + 1);
}

std::string style_of(std::size_t run) { return fmt::format("r{}", run % 8); }

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

}  // namespace wrn
