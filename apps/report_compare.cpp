// The tables of several runs: what came of them, and in what they differ.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "apps/chart.h"
#include "apps/history.h"
#include "apps/progress.h"
#include "apps/report_parts.h"

namespace wrn {

using nlohmann::json;

std::string results_table(const std::vector<RunRecord>& runs) {
  std::string out =
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"results\"><table "
      "class=\"runs\">\n<thead><tr><th>run</th><th>epochs</th><th>test error, %</th><th>test "
      "loss</th><th>at the best epoch, %</th><th>training error, %</th><th>time</th><th>images/s, "
      "median</th></tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const History& metrics = runs[i].metrics;
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

}  // namespace wrn
