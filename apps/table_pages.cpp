#include "apps/table_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "apps/chart.h"
#include "engine/atomic_file.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTitle = "The tables of \"Wide Residual Networks\", reproduced";

/// A piece of a cell, perhaps a link.
struct Piece {
  std::string text, link;
};
using Cell = std::vector<Piece>;

struct Column {
  const char* heading;
  bool is_number;
};

constexpr Column kColumns[] = {{"network", false},   {"data", false},    {"dropout", true},
                               {"parameters", true}, {"paper, %", true}, {"ours, %", true},
                               {"difference", true}, {"runs, %", false}, {"s/epoch", true},
                               {"state", false}};

/// 36479194 -> "36,479,194"
std::string grouped(std::int64_t number) {
  std::string text = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return text;
}

std::vector<const RunState*> finished_runs(const TableRow& row) {
  std::vector<const RunState*> runs;
  for (const TableRun& run : row.runs) {
    if (run.state.finished()) runs.push_back(&run.state);
  }
  return runs;
}

/// Empty where every run is finished.
std::string state_text(const TableRow& row) {
  const std::size_t finished = finished_runs(row).size();
  if (finished == row.runs.size()) return "";
  std::string text =
      finished == 0 ? "" : fmt::format("{} of {} runs finished", finished, row.runs.size());
  for (std::size_t i = 0; i < row.runs.size(); ++i) {
    const RunState& run = row.runs[i].state;
    if (run.finished() || (run.epochs_done == 0 && run.failure.empty())) continue;
    text += fmt::format("{}seed {}: ", text.empty() ? "" : "; ", i + 1);
    if (run.epochs_done > 0) text += fmt::format("epoch {} of {}", run.epochs_done, run.epochs);
    if (run.failure.empty()) continue;
    text += fmt::format("{}failed: {}", run.epochs_done > 0 ? ", " : "", run.failure);
  }
  return text.empty() ? "not run yet" : text;
}

/// A cell for each of kColumns.
std::vector<Cell> cells_of(const TableRow& row) {
  const Experiment& e = row.paper.experiment;
  std::vector<double> errors, seconds;
  Cell runs;
  for (const TableRun& run : row.runs) {
    if (run.state.epochs_done > 0) seconds.push_back(run.state.seconds_per_epoch);
    if (!run.state.finished()) continue;
    errors.push_back(run.state.error);
    if (!runs.empty()) runs.push_back({", ", ""});
    runs.push_back({fmt::format("{:.2f}", run.state.error), run.report});
  }
  const auto if_any = [](const std::vector<double>& values, const std::string& text) {
    return Cell{{values.empty() ? "" : text, ""}};
  };
  const double ours = median(errors);
  std::string paper = fmt::format("{:.2f}", row.paper.error);
  if (!row.paper.remark.empty()) paper += fmt::format(" ({})", row.paper.remark);
  return {{{e.model, ""}},
          {{e.dataset + ", " + e.preprocess, ""}},
          {{e.dropout > 0 ? fmt::format("{:g}", e.dropout) : "", ""}},
          {{grouped(row.parameters), ""}},
          {{paper, ""}},
          if_any(errors, fmt::format("{:.2f}", ours)),
          if_any(errors, fmt::format("{:+.2f}", ours - row.paper.error)),
          runs,
          if_any(seconds, fmt::format("{:.1f}", median(seconds))),
          {{state_text(row), ""}}};
}

/// Where the times were measured.
std::string devices_text(const ResultTable& table) {
  std::set<std::string> devices;
  for (const TableRow& row : table.rows) {
    for (const TableRun& run : row.runs) {
      if (run.state.epochs_done > 0 && !run.state.device.empty()) devices.insert(run.state.device);
    }
  }
  return devices.empty() ? "" : fmt::format("Run on: {}.", fmt::join(devices, "; "));
}

std::string rehearsal_text(const Rehearsal& r) {
  return fmt::format(
      "These are runs with {}, to see that everything runs. Their errors say "
      "nothing of the paper's.",
      fmt::join(r.flags(), " "));
}

std::string legend_text(int runs) {
  return fmt::format(
      "Test errors are in percent, of the last epoch. Ours is the median of {} "
      "run{}; the runs are in the order of their seeds. The difference is ours less "
      "the paper's.",
      runs, runs == 1 ? "" : "s");
}

std::string markdown_escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("|\\`*_<>[]").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string markdown_cell(const Cell& cell) {
  std::string out;
  for (const Piece& piece : cell) {
    const std::string text = markdown_escaped(piece.text);
    // In angle brackets, as a path may hold parentheses.
    out += piece.link.empty() ? text : fmt::format("[{}](<{}>)", text, piece.link);
  }
  return out;
}

std::string html_cell(const Cell& cell) {
  std::string out;
  for (const Piece& piece : cell) {
    const std::string text = html_escaped(piece.text);
    out += piece.link.empty()
               ? text
               : fmt::format("<a href=\"{}\">{}</a>", html_escaped(piece.link), text);
  }
  return out;
}

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --page: #fff; --text: #1c2024; --soft: #5c6670; --rule: #d9dee3;
  --panel: #f5f7f9; --alarm: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171a; --text: #e6e9ec; --soft: #9aa5b0; --rule: #343b42; --panel: #1d2126;
    --alarm: #ff8a80; } }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 76rem; background: var(--page);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .75rem; color: var(--soft); }
a { color: inherit; }
.rehearsal { border: 3px solid var(--alarm); border-radius: .5rem; padding: .6rem .9rem;
  background: var(--panel); color: var(--text); }
.rehearsal strong, h2 em { color: var(--alarm); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
th.number, td.number { text-align: right; white-space: nowrap; }
)";

bool begun(const ResultTable& table) {
  return std::any_of(table.rows.begin(), table.rows.end(), [](const TableRow& row) {
    return std::any_of(row.runs.begin(), row.runs.end(), [](const TableRun& run) {
      return run.state.epochs > 0 || !run.state.failure.empty();
    });
  });
}

}  // namespace

ResultTable results_of(const PaperTable& table, const fs::path& output_dir,
                       const TableSettings& settings) {
  ResultTable result{table.title, table.about, {}};
  for (const PaperRow& row : table.rows) {
    TableRow& out = result.rows.emplace_back(row, parameters_of(row.experiment));
    for (int seed = 1; seed <= settings.runs; ++seed) {
      const RunFiles files(output_dir, experiment_name(row.experiment, settings.rehearsal), seed);
      out.runs.push_back(
          {read_run(files),
           (files.directory / "report.html").lexically_relative(output_dir).string()});
    }
  }
  return result;
}

std::string tables_markdown(const std::vector<ResultTable>& tables, const TableSettings& settings) {
  std::string out = fmt::format("# {}\n\n", kTitle);
  if (settings.rehearsal) {
    out += "> **REHEARSAL, not results.** " + rehearsal_text(settings.rehearsal) + "\n\n";
  }
  out += legend_text(settings.runs) + "\n";
  for (const ResultTable& table : tables) {
    out += fmt::format("\n## {}{}\n\n{}\n\n", table.title, settings.rehearsal ? " (rehearsal)" : "",
                       table.about);
    std::string rule;
    for (const Column& column : kColumns) {
      out += fmt::format("| {} ", column.heading);
      rule += column.is_number ? "|--:" : "|---";
    }
    out += "|\n" + rule + "|\n";
    for (const TableRow& row : table.rows) {
      for (const Cell& cell : cells_of(row)) out += fmt::format("| {} ", markdown_cell(cell));
      out += "|\n";
    }
    if (const std::string devices = devices_text(table); !devices.empty()) {
      out += fmt::format("\n{}\n", markdown_escaped(devices));
    }
  }
  return out;
}

std::string tables_html(const std::vector<ResultTable>& tables, const TableSettings& settings) {
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
      html_escaped(kTitle), kStyle);
  if (settings.rehearsal) {
    out += fmt::format("<p class=\"rehearsal\"><strong>REHEARSAL, not results.</strong> {}</p>\n",
                       html_escaped(rehearsal_text(settings.rehearsal)));
  }
  out += "<p>" + legend_text(settings.runs) + "</p>\n";
  for (const ResultTable& table : tables) {
    out += fmt::format("<h2>{}{}</h2>\n<p>{}</p>\n<div class=\"scroll\" tabindex=\"0\"><table>\n",
                       html_escaped(table.title), settings.rehearsal ? " <em>(rehearsal)</em>" : "",
                       html_escaped(table.about));
    const auto row_of = [&](const char* tag, const auto& text_of_column) {
      out += "<tr>";
      for (std::size_t i = 0; i < std::size(kColumns); ++i) {
        out += fmt::format("<{0}{1}>{2}</{0}>", tag,
                           kColumns[i].is_number ? " class=\"number\"" : "", text_of_column(i));
      }
      out += "</tr>\n";
    };
    row_of("th", [](std::size_t i) { return kColumns[i].heading; });
    for (const TableRow& row : table.rows) {
      const std::vector<Cell> cells = cells_of(row);
      row_of("td", [&](std::size_t i) { return html_cell(cells[i]); });
    }
    out += "</table></div>\n";
    if (const std::string devices = devices_text(table); !devices.empty()) {
      out += fmt::format("<p>{}</p>\n", html_escaped(devices));
    }
  }
  return out + "</body>\n</html>\n";
}

void write_pages(const fs::path& output_dir, const TableSettings& settings) {
  std::vector<ResultTable> tables;
  for (const PaperTable& table : paper_tables()) {
    ResultTable result = results_of(table, output_dir, settings);
    if (begun(result)) tables.push_back(std::move(result));
  }
  write_file_atomically(output_dir / "tables.md", tables_markdown(tables, settings));
  write_file_atomically(output_dir / "tables.html", tables_html(tables, settings));
}

}  // namespace wrn
