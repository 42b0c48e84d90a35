#include "engine/safetensors.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "engine/atomic_file.h"
#include "kernels/error.h"

namespace wrn {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "the format is little endian");

constexpr std::string_view kMetadata = "__metadata__";
constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

/// A name from a file as it can stand in a line for a person: short, in quotes, in ASCII.
std::string in_quotes(std::string_view name) {
  constexpr std::size_t kMaxShown = 100;
  const json shown =
      std::string(name.substr(0, kMaxShown)) + (name.size() > kMaxShown ? "..." : "");
  return shown.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
}

/// The bytes of a tensor, or an Error.
std::uint64_t byte_count(const std::string& dtype, const std::vector<std::int64_t>& shape) {
  static const std::map<std::string, std::uint64_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  const auto size = sizes.find(dtype);
  if (size == sizes.end()) fail("its dtype {} is unknown", in_quotes(dtype));
  std::uint64_t count = size->second;
  for (const std::int64_t extent : shape) {
    if (extent < 0) fail("its shape has the negative extent {}", extent);
    if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(extent), &count)) {
      fail("its shape has more bytes than 64 bits can count");
    }
  }
  return count;
}

/// The header's entries in its order. Left alone, the JSON parser would keep the last of two equal
/// keys, stop at a zero byte and nest as deep as it is told to. It also searches all entries so far
/// whenever an object ends: each is moved out at once, so that a huge header takes linear time.
std::vector<std::pair<std::string, json>> parse_header(const std::string& text) {
  if (!text.starts_with('{')) fail("the header is not a JSON object");
  if (const auto zero = text.find('\0'); zero != std::string::npos) {
    fail("the header has a zero byte at offset {}", kLengthBytes + zero);
  }
  std::vector<std::pair<std::string, json>> entries;
  std::vector<std::set<std::string>> keys;  // of each object that is open
  const auto on_event = [&](int depth, json::parse_event_t event, json& parsed) {
    using Event = json::parse_event_t;
    if ((event == Event::object_start && depth >= 2) ||  // the header and a tensor
        (event == Event::array_start && depth >= 3)) {   // and its shape
      fail("the header has an object or a list where none belongs");
    }
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      const auto name = parsed.get<std::string>();
      const bool is_new = keys.back().insert(name).second;
      if (!is_new) fail("the header has the key {} twice", in_quotes(name));
      if (depth == 1) entries.emplace_back(name, nullptr);
    }
    const bool is_entry = depth == 1 && (event == Event::object_end || event == Event::array_end ||
                                         event == Event::value);
    if (is_entry) entries.back().second = std::move(parsed);
    return !is_entry;
  };
  try {
    [[maybe_unused]] const json taken_apart = json::parse(text, on_event);
  } catch (const json::parse_error& error) {
    fail("the header is not JSON, at offset {}", kLengthBytes + error.byte - 1);
  } catch (const json::out_of_range&) {
    fail("the header has a number that is out of range");
  }
  return entries;
}

std::map<std::string, std::string> parse_metadata(const json& metadata) {
  if (!metadata.is_object()) fail("{} is not a JSON object", kMetadata);
  std::map<std::string, std::string> result;
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) fail("{} has a {} that is not a string", kMetadata, in_quotes(key));
    result[key] = value.get<std::string>();
  }
  return result;
}

std::vector<std::int64_t> parse_integers(const json& entry, const char* key) {
  std::vector<std::int64_t> result;
  for (const json& item : entry[key]) {
    if (!item.is_number_unsigned() ||
        item.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      fail("its {} is not a list of whole numbers from 0 to 2^63 - 1", key);
    }
    result.push_back(item.get<std::int64_t>());
  }
  return result;
}

/// What the header says of one tensor; begin and end count from the first byte after the header.
struct Description {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;
};

Description parse_tensor(const std::string& name, const json& entry, std::uint64_t data_bytes) try {
  if (!entry.is_object() || entry.size() != 3 || !entry.contains("dtype") ||
      !entry.contains("shape") || !entry.contains("data_offsets")) {
    fail("it is not described by dtype, shape and data_offsets alone");
  }
  if (!entry["dtype"].is_string()) fail("its dtype is not a string");
  for (const char* key : {"shape", "data_offsets"}) {
    if (!entry[key].is_array()) fail("its {} is not a list", key);
  }
  Description tensor{name, entry["dtype"], parse_integers(entry, "shape")};
  const std::vector<std::int64_t> offsets = parse_integers(entry, "data_offsets");
  if (offsets.size() != 2) fail("its data_offsets are {} numbers, not 2", offsets.size());
  tensor.begin = static_cast<std::uint64_t>(offsets[0]);
  tensor.end = static_cast<std::uint64_t>(offsets[1]);
  if (tensor.begin > tensor.end) {
    fail("its data_offsets [{}, {}] end before they begin", tensor.begin, tensor.end);
  }
  if (tensor.end > data_bytes) {
    fail("its data_offsets [{}, {}] are beyond the {} bytes of data that the file has",
         tensor.begin, tensor.end, data_bytes);
  }
  const std::uint64_t expected = byte_count(tensor.dtype, tensor.shape);
  if (tensor.end - tensor.begin != expected) {
    fail("its data_offsets [{}, {}] hold {} bytes, but its dtype and shape need {}", tensor.begin,
         tensor.end, tensor.end - tensor.begin, expected);
  }
  return tensor;
} catch (const Error& error) {
  fail("tensor {}: {}", in_quotes(name), error.what());
}

/// Sorts the tensors by their data, which must cover the `data_bytes` without an overlap or a hole.
void sort_by_data(std::vector<Description>& tensors, std::uint64_t data_bytes) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  std::uint64_t covered = 0;
  for (const Description& tensor : tensors) {
    if (tensor.begin < covered) {
      fail("tensor {}: its data_offsets [{}, {}] overlap another tensor's", in_quotes(tensor.name),
           tensor.begin, tensor.end);
    }
    if (tensor.begin > covered) {
      fail("tensor {}: the {} bytes of data before it belong to no tensor", in_quotes(tensor.name),
           tensor.begin - covered);
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    fail("the last {} bytes of the file belong to no tensor", data_bytes - covered);
  }
}

/// Reads on in the file, into `data`.
void read_into(std::ifstream& in, void* data, std::uint64_t size) {
  in.read(static_cast<char*>(data), static_cast<std::streamsize>(size));
  if (!in) fail("reading stopped before the end of the file");
}

Safetensors read_content(std::ifstream& in, std::uint64_t file_bytes,
                         const std::filesystem::path& path) {
  if (file_bytes < kLengthBytes) fail("it has only {} bytes", file_bytes);
  std::uint64_t header_bytes = 0;
  read_into(in, &header_bytes, sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes) {
    fail("its first {} bytes give a header of {} bytes, more than {}", kLengthBytes, header_bytes,
         kMaxHeaderBytes);
  }
  if (header_bytes > file_bytes - kLengthBytes) {
    fail("its header of {} bytes is longer than the file of {}", header_bytes, file_bytes);
  }
  std::string text(header_bytes, '\0');
  read_into(in, text.data(), text.size());
  const std::uint64_t data_bytes = file_bytes - kLengthBytes - header_bytes;

  Safetensors content{.metadata = {}, .tensors = {}, .file = path};
  std::vector<Description> tensors;
  for (const auto& [name, entry] : parse_header(text)) {
    if (name == kMetadata) {
      content.metadata = parse_metadata(entry);
    } else {
      tensors.push_back(parse_tensor(name, entry, data_bytes));
    }
  }
  sort_by_data(tensors, data_bytes);
  for (Description& tensor : tensors) {
    SafetensorsEntry entry{std::move(tensor.dtype), std::move(tensor.shape),
                           std::vector<std::byte>(tensor.end - tensor.begin),
                           fmt::format("{}: tensor {}", path.string(), in_quotes(tensor.name))};
    read_into(in, entry.bytes.data(), entry.bytes.size());
    content.tensors.emplace_back(std::move(tensor.name), std::move(entry));
  }
  return content;
}

}  // namespace

void SafetensorsEntry::check(std::string_view expected_dtype) const {
  if (dtype != expected_dtype) {
    fail("{} is of dtype {} where {} is needed; is it of another kind of file?", origin,
         in_quotes(dtype), expected_dtype);
  }
  const std::uint64_t expected = byte_count(dtype, shape);
  WRN_CHECK(bytes.size() == expected, "{} has {} bytes, but its dtype and shape need {}", origin,
            bytes.size(), expected);
}

const SafetensorsEntry* Safetensors::find(std::string_view name) const {
  const auto tensor = std::find_if(tensors.begin(), tensors.end(),
                                   [name](const auto& each) { return each.first == name; });
  return tensor == tensors.end() ? nullptr : &tensor->second;
}

const SafetensorsEntry& Safetensors::at(std::string_view name) const {
  const SafetensorsEntry* const entry = find(name);
  if (!entry) {
    fail("{} has no tensor {}; was it written for another model?", file.string(), in_quotes(name));
  }
  return *entry;
}

Safetensors read_safetensors(const std::filesystem::path& path) {
  std::error_code error;
  const std::uint64_t file_bytes = std::filesystem::file_size(path, error);
  std::ifstream in;
  if (!error) {
    in.open(path, std::ios::binary);
    if (!in) error = {errno, std::generic_category()};
  }
  if (error) fail("cannot read {}: {}; check the path", path.string(), error.message());
  try {
    return read_content(in, file_bytes, path);
  } catch (const Error& reason) {
    fail("cannot read {}: {}; it is damaged or no safetensors file: use another copy",
         path.string(), reason.what());
  }
}

void write_safetensors(const std::filesystem::path& path, const Safetensors& content) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!content.metadata.empty()) header[kMetadata] = content.metadata;
  std::vector<std::span<const std::byte>> pieces(2);  // the first two: the length and the header
  std::uint64_t begin = 0;
  for (const auto& [name, entry] : content.tensors) {
    entry.check(entry.dtype);
    const std::uint64_t end = begin + entry.bytes.size();
    const bool is_new = name != kMetadata && !header.contains(name);
    WRN_CHECK(is_new, "cannot write two tensors named {} to {}", in_quotes(name), path.string());
    header[name] = {{"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {begin, end}}};
    pieces.emplace_back(entry.bytes);
    begin = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::type_error&) {
    fail("cannot write {}: a tensor's name or the metadata are not UTF-8; rename", path.string());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // aligns the data
  const std::uint64_t header_bytes = text.size();
  pieces[0] = std::as_bytes(std::span(&header_bytes, 1));
  pieces[1] = std::as_bytes(std::span(text));
  write_file_atomically(path, pieces);
}

}  // namespace wrn
