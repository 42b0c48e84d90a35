// report.html: the page a run leaves for people, made anew after every epoch; and what wrn_report
// makes of one run or several.
#pragma once

#include <string>
#include <vector>

#include "apps/run_record.h"

namespace wrn {

/// One self-contained page (no script, nothing loaded from elsewhere). Of one run: summary, curves,
/// what the network gets wrong, the network drawn, table of epochs, configuration. Of several:
/// their results and what differs in their configurations, curves on common axes, then each by
/// itself.
///
/// `config` is what config.json holds, `metrics` metrics.jsonl; errors in percent, null or NaN for
/// what is not finite. Nothing in either makes it fail: what is missing is left out. The page has
/// at most about a megabyte, however long the run.
std::string report_html(const std::vector<RunRecord>& runs);

}  // namespace wrn
