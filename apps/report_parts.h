// The parts of a report's page that stand in files of their own.
#pragma once

#include <string>
#include <vector>

#include "apps/run_record.h"
#include "models/wide_resnet.h"

namespace wrn {

/// The style sheet, of all parts. report_style.cpp
extern const char* const kReportStyle;

/// A run's training, test and validation curves of `what`, "loss" or "error". report_curves.cpp
std::string split_curves(const RunRecord& run, const std::string& title, const std::string& what);
/// One metric of all runs on one pair of axes; nothing where none has it.
std::string run_curves(const std::vector<RunRecord>& runs, const std::string& title,
                       const std::string& unit, const std::string& key);
/// A letter for each run, by which charts and tables speak of it; and its class in the style sheet.
std::string tag_of(std::size_t run);
std::string style_of(std::size_t run);

/// A row a run. report_compare.cpp
std::string results_table(const std::vector<RunRecord>& runs);
/// The settings that differ, a row each.
std::string differences_table(const std::vector<RunRecord>& runs);

/// What the network takes for what, and its surest mistakes, at most `most_images` of them.
/// report_predictions.cpp
std::string predictions_html(const Predictions&, std::size_t most_images);

/// The network as its blocks. report_network.cpp
std::string network_html(const WideResNetSpec&);

/// 1234567 as 1,234,567.
std::string with_commas(std::int64_t number);

}  // namespace wrn
