// How the programs read JSON that files hold.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace wrn {

/// Throws an Error that names the file where it cannot be read.
std::string read_text(const std::filesystem::path& path);

/// Discarded (json::is_discarded) where the text is no JSON, or nests deeper than anything that
/// these programs write: a million levels would overflow the stack when they are freed.
nlohmann::json parse_json(const std::string& text);

}  // namespace wrn
