// report.html: the page a run leaves for people, made anew after every epoch.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace wrn {

/// One self-contained page (no script, nothing loaded from elsewhere) of a run: summary, curves of
/// loss and error, table of epochs, configuration.
///
/// `config` is what config.json holds; any nesting, of which model.name, dataset.name and
/// training.epochs are used by name. `metrics` is metrics.jsonl, an object an epoch: epoch (from
/// 1), lr, train_loss, train_error, test_loss, test_error, seconds, images_per_second, and perhaps
/// val_loss, val_error; errors in percent, null or NaN for what is not finite. Nothing in either
/// makes it fail: what is missing is left out.
std::string report_html(const nlohmann::json& config, const std::vector<nlohmann::json>& metrics);

}  // namespace wrn
