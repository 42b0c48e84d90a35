// The frame of event files; what stands in them, tests/system/test_tensorboard.py reads.
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/tensorboard.h"
#include "kernels/error.h"
#include "tests/catch.h"
#include "tests/temporary_directory.h"

using namespace wrn;
namespace fs = std::filesystem;

TEST_CASE("CRC-32C has the values of its specification") {
  // RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
  REQUIRE(crc32c("123456789") == 0xe3069283U);
  REQUIRE(crc32c("") == 0);
  REQUIRE(crc32c(std::string(32, '\0')) == 0x8a9136aaU);
  REQUIRE(crc32c(std::string(32, '\xff')) == 0x62a8ab43U);
}

TEST_CASE("a new event file comes after those that are there") {
  const test::TemporaryDirectory dir;
  const fs::path events = dir / "tensorboard";
  const auto name = [&](const char* number) {
    return events / ("events.out.tfevents." + std::string(number));
  };
  EventFile first(events);
  REQUIRE(fs::exists(name("000001")));
  std::ofstream(name("000009")) << "x";
  std::ofstream(events / "events.out.tfevents.x") << "x";
  EventFile second(events);
  REQUIRE(fs::exists(name("000010")));
}

TEST_CASE("only what is new of a history is appended") {
  const test::TemporaryDirectory dir;
  EventFile events(dir.path());
  const fs::path file = dir / "events.out.tfevents.000001";
  const auto empty = fs::file_size(file);
  std::vector<nlohmann::json> history = {{{"epoch", 1}, {"train_loss", 0.5}, {"seconds", 2}},
                                         {{"epoch", 2}, {"train_loss", 0.5}, {"seconds", 2}}};
  events.write(history);
  const auto two = fs::file_size(file);
  REQUIRE(two > empty);
  events.write(history);
  REQUIRE(fs::file_size(file) == two);
  history.push_back({{"epoch", 3}, {"train_loss", nullptr}, {"seconds", 2}});
  events.write(history);
  REQUIRE(fs::file_size(file) - two == (two - empty) / 2);
  std::ifstream bytes(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(bytes), {}};
  REQUIRE(text.find(std::string("\x15\0\0\xc0\x7f", 5)) != std::string::npos);  // a NaN
}

TEST_CASE("a directory that cannot be made is an error with its name") {
  const test::TemporaryDirectory dir;
  std::ofstream(dir / "tensorboard") << "a file";
  try {
    EventFile events(dir / "tensorboard");
    FAIL("no error");
  } catch (const Error& error) {
    REQUIRE(std::string(error.what()).find((dir / "tensorboard").string()) != std::string::npos);
  }
}
