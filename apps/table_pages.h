// tables.md and tables.html: the paper's numbers and ours, side by side.
#pragma once

#include <string>
#include <vector>

#include "apps/paper_tables.h"
#include "apps/table_runs.h"

namespace wrn {

/// A run as a row of a table shows it.
struct TableRun {
  RunProgress state;
  std::string report;  // its report.html, seen from the directory of the page
};

struct TableRow {
  PaperRow paper;
  std::int64_t parameters = 0;
  std::vector<TableRun> runs;  // of the seeds from 1: those wanted, and what there is beyond
};

struct ResultTable {
  std::string title, about;
  std::vector<TableRow> rows;
};

/// What the runs of a table's rows have come to, and the reports they left.
ResultTable results_of(const PaperTable& table, const std::filesystem::path& output_dir,
                       const TableSettings& settings);

/// Both show, of each row: the paper's error; the median of the finished runs', with all of them;
/// the difference; parameters; seconds per epoch; and what is not finished.
std::string tables_markdown(const std::vector<ResultTable>& tables, const TableSettings& settings);
std::string tables_html(const std::vector<ResultTable>& tables, const TableSettings& settings);

/// Writes both into the output directory, of the tables that anything was run for.
void write_pages(const std::filesystem::path& output_dir, const TableSettings& settings);

}  // namespace wrn
