// The file is a sequence of records, each an Event: a protocol buffer message of TensorBoard's
// event.proto and summary.proto, framed as in TensorFlow's record files. Of the messages only the
// fields named below are ever written, so they are encoded here by hand, as the wire format says
// (protobuf.dev/programming-guides/encoding).
#include "apps/tensorboard.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "kernels/error.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";  // what TensorBoard looks for

template <typename T>
std::string little_endian(T value) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

// ---- Protocol buffers: a field is its number and its wire type, then its value -----------------

enum class Wire : std::uint32_t { kVarint = 0, k64Bit = 1, kBytes = 2, k32Bit = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string key(std::uint32_t field, Wire wire) {
  return varint(field << 3 | static_cast<std::uint32_t>(wire));
}

std::string field(std::uint32_t number, const std::string& bytes) {  // a string or a message
  return key(number, Wire::kBytes) + varint(bytes.size()) + bytes;
}

/// Event: double wall_time = 1, int64 step = 2, and one of string file_version = 3,
/// Summary summary = 5, SessionLog session_log = 7.
std::string event(double wall_time, std::uint64_t step, const std::string& what) {
  return key(1, Wire::k64Bit) + little_endian(wall_time) + key(2, Wire::kVarint) + varint(step) +
         what;
}

/// Summary: repeated Value value = 1, of string tag = 1 and float simple_value = 2.
std::string value(const std::string& tag, float number) {
  return field(1, field(1, tag) + key(2, Wire::k32Bit) + little_endian(number));
}

std::string summary(const nlohmann::json& line) {
  static constexpr std::pair<const char*, const char*> kTags[] = {{"train_loss", "Loss/train"},
                                                                  {"val_loss", "Loss/validation"},
                                                                  {"test_loss", "Loss/test"},
                                                                  {"train_error", "Error/train"},
                                                                  {"val_error", "Error/validation"},
                                                                  {"test_error", "Error/test"},
                                                                  {"lr", "LR"}};
  std::string values;
  for (const auto& [name, tag] : kTags) {
    const auto found = line.find(name);
    if (found == line.end()) continue;
    // JSON has null for what is not finite.
    values += value(tag, found->is_number() ? found->get<float>() : std::nanf(""));
  }
  return field(5, values);
}

/// SessionLog: enum status = 1, of which START is 1. TensorBoard drops what it has seen of this
/// step and later ones when it meets another START.
std::string session_start() { return field(7, key(1, Wire::kVarint) + varint(1)); }

// ---- Records: length, its checksum, the bytes, their checksum ----------------------------------

std::uint32_t masked_crc(const std::string& bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8U;
}

std::string record(const std::string& bytes) {
  const std::string length = little_endian(static_cast<std::uint64_t>(bytes.size()));
  return length + little_endian(masked_crc(length)) + bytes + little_endian(masked_crc(bytes));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// One more than the greatest number of the files there: TensorBoard reads them by their names.
int next_number(const fs::path& directory) {
  int greatest = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    int number = 0;
    if (name.starts_with(kPrefix)) {
      std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), number);
    }
    greatest = std::max(greatest, number);
  }
  return greatest + 1;
}

}  // namespace

std::uint32_t crc32c(const std::string& bytes) {
  std::uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc ^= static_cast<std::uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0);
  }
  return ~crc;
}

std::vector<fs::path> event_files(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;  // where there is no directory there are no files
  for (fs::directory_iterator entry(directory, error), end; entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.size() >= kPrefix.size() + 6 && name.starts_with(kPrefix) &&
        name.find_first_not_of("0123456789", kPrefix.size()) == std::string::npos) {
      files.push_back(entry->path());
    }
  }
  return files;
}

EventFile::EventFile(const fs::path& directory) : path_(directory) {
  try {
    fs::create_directories(directory);
    path_ = directory / fmt::format("{}{:06}", kPrefix, next_number(directory));
  } catch (const fs::filesystem_error& error) {
    fail("cannot make {}: {}", directory.string(), error.code().message());
  }
  const double begin = now();
  append(record(event(begin, 0, field(3, "brain.Event:2"))) +
         record(event(begin, 0, session_start())));
}

void EventFile::write(const std::vector<nlohmann::json>& history) {
  const double end = now();
  std::string events;
  double left = 0;  // seconds between the end of an epoch and the last one's
  for (std::size_t i = history.size(); i-- > written_;) {
    const nlohmann::json& line = history[i];
    events = record(event(end - left, line.value("epoch", i + 1), summary(line))) + events;
    left += line.value("seconds", 0.0);
  }
  append(events);
  written_ = history.size();
}

void EventFile::append(const std::string& records) {
  std::ofstream file(path_, std::ios::binary | std::ios::app);
  file << records << std::flush;
  if (!file) fail("cannot write {}: {}", path_.string(), std::generic_category().message(errno));
}

}  // namespace wrn
