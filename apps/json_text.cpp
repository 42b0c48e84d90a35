#include "apps/json_text.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "kernels/error.h"

namespace wrn {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  try {
    if (in) return {std::istreambuf_iterator<char>(in), {}};
  } catch (const std::ios_base::failure&) {
  }
  fail("{} cannot be read: {}", path.string(), std::strerror(errno));
}

nlohmann::json parse_json(const std::string& text) {
  constexpr int kDeepest = 16;
  bool too_deep = false;
  const auto is_shallow = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > kDeepest;
    return !too_deep;
  };
  nlohmann::json parsed = nlohmann::json::parse(text, is_shallow, false);
  if (too_deep) return nlohmann::json::value_t::discarded;
  return parsed;
}

}  // namespace wrn
