// The parts of a report's page that stand in files of their own.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "apps/predictions.h"
#include "models/wide_resnet.h"

namespace wrn {

/// The style sheet, of all parts. report_style.cpp
extern const char* const kReportStyle;

/// What the network takes for what, and its surest mistakes, at most `most_images` of them.
/// report_predictions.cpp
std::string predictions_html(const Predictions&, std::size_t most_images);

/// The network as its blocks. report_network.cpp
std::string network_html(const WideResNetSpec&);

/// 1234567 as 1,234,567.
std::string with_commas(std::int64_t number);

}  // namespace wrn
