#include "apps/table_pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "apps/chart.h"
#include "apps/history.h"
#include "apps/report_parts.h"
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

std::vector<const RunProgress*> finished_runs(const TableRow& row) {
  std::vector<const RunProgress*> runs;
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
    const RunProgress& run = row.runs[i].state;
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
          {{with_commas(row.parameters), ""}},
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

constexpr const char* kLegend =
    "Test errors are in percent, of the last epoch. Ours is the median of the runs; they are in "
    "the order of their seeds. The difference is ours less the paper's.";

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

/// Beside the reports' own.
constexpr const char* kStyle = R"(
.tables th, .tables td { vertical-align: top; }
.tables .text { text-align: left; white-space: normal; }
.tables a { color: inherit; }
.rehearsal { border: 3px solid var(--r6); border-radius: .5rem; padding: .6rem .9rem; }
.rehearsal strong, h2 em { color: var(--r6); }
)";

bool begun(const RunProgress& run) { return run.epochs > 0 || !run.failure.empty(); }

bool begun(const ResultTable& table) {
  return std::any_of(table.rows.begin(), table.rows.end(), [](const TableRow& row) {
    return std::any_of(row.runs.begin(), row.runs.end(),
                       [](const TableRun& run) { return begun(run.state); });
  });
}

}  // namespace

ResultTable results_of(const PaperTable& table, const fs::path& output_dir,
                       const TableSettings& settings) {
  ResultTable result{table.title, table.about, {}};
  for (const PaperRow& row : table.rows) {
    TableRow& out = result.rows.emplace_back(row, parameter_count(row.experiment));
    for (int seed = 1;; ++seed) {
      const RunFiles files(output_dir, experiment_name(row.experiment, settings.rehearsal), seed);
      const RunProgress state = run_progress(files);
      if (seed > settings.runs && !begun(state)) break;  // more were wanted once, or not even then
      out.runs.push_back(
          {state, (files.directory / "report.html").lexically_relative(output_dir).string()});
    }
  }
  return result;
}

std::string tables_markdown(const std::vector<ResultTable>& tables, const TableSettings& settings) {
  std::string out = fmt::format("# {}\n\n", kTitle);
  if (settings.rehearsal) {
    out += "> **REHEARSAL, not results.** " + rehearsal_text(settings.rehearsal) + "\n\n";
  }
  out += fmt::format("{}\n", kLegend);
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
      "<title>{0}</title>\n<style>{1}{2}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
      html_escaped(kTitle), kReportStyle, kStyle);
  if (settings.rehearsal) {
    out += fmt::format("<p class=\"rehearsal\"><strong>REHEARSAL, not results.</strong> {}</p>\n",
                       html_escaped(rehearsal_text(settings.rehearsal)));
  }
  out += fmt::format("<p>{}</p>\n", kLegend);
  for (const ResultTable& table : tables) {
    out += fmt::format(
        "<h2>{}{}</h2>\n<p class=\"about\">{}</p>\n<div class=\"scroll\" tabindex=\"0\">"
        "<table class=\"tables\">\n<thead>",
        html_escaped(table.title), settings.rehearsal ? " <em>(rehearsal)</em>" : "",
        html_escaped(table.about));
    const auto row_of = [&](const char* tag, const auto& text_of_column) {
      out += "<tr>";
      for (std::size_t i = 0; i < std::size(kColumns); ++i) {
        out += fmt::format("<{0}{1}>{2}</{0}>", tag, kColumns[i].is_number ? "" : " class=\"text\"",
                           text_of_column(i));
      }
      out += "</tr>\n";
    };
    row_of("th", [](std::size_t i) { return kColumns[i].heading; });
    out += "</thead>\n<tbody>\n";
    for (const TableRow& row : table.rows) {
      const std::vector<Cell> cells = cells_of(row);
      row_of("td", [&](std::size_t i) { return html_cell(cells[i]); });
    }
    out += "</tbody></table></div>\n";
    if (const std::string devices = devices_text(table); !devices.empty()) {
      out += fmt::format("<p class=\"about\">{}</p>\n", html_escaped(devices));
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
