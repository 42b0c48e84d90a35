// Files that we write and that PyTorch's package wrote are read back; a file that breaks any rule
// of the format, or is damaged anywhere, is an Error of one line.
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <string>

#include "catch.h"
#include "engine/safetensors.h"
#include "kernels/error.h"
#include "tests/temporary_directory.h"

using Entry = wrn::SafetensorsEntry;
using wrn::read_safetensors;
using wrn::Safetensors;
using wrn::write_safetensors;
using wrn::test::TemporaryDirectory;

namespace {

std::string content(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::filesystem::path put(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::remove(path);  // or the file system may sync what replaces it, which takes long
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string file_of(std::string_view header, std::string_view data) {
  const std::uint64_t size = header.size();
  std::string bytes(sizeof size, '\0');
  std::memcpy(bytes.data(), &size, sizeof size);
  return bytes.append(header).append(data);
}

template <typename T>
Entry entry(std::vector<std::int64_t> shape, std::vector<T> values) {
  return Entry::make<T>(std::move(shape), values);
}

/// A checkpoint in small: every type that as<T>() has, a scalar, empty tensors and an awkward name.
Safetensors example() {
  Safetensors result;
  result.metadata = {{"model", "wrn-10-1"}, {"mean", "0.49 \"0.48\"\n"}, {"", "\xc3\xa9"}};
  result.tensors = {{"fc.bias", entry<float>({2, 3}, {1.5f, -0.0f, 3e-38f, 4, 5, 6})},
                    {"none", entry<float>({0, 7}, {})},
                    {"f64", entry<double>({1, 1, 2}, {0.1, -1e300})},
                    {"bn1.num_batches_tracked", entry<std::int64_t>({}, {-(1ll << 62)})},
                    {"i32", entry<std::int32_t>({3}, {1, -2, 3})},
                    {"u8", entry<std::uint8_t>({5}, {0, 1, 2, 254, 255})},
                    {"bf16 \"\\\n\xc3\xa9", entry<std::uint16_t>({2}, {0x3f80, 0xc000})},
                    {"", entry<std::int32_t>({0}, {})},
                    {" none either", entry<std::int32_t>({4, 0}, {})}};
  return result;
}

void require_equal(const Safetensors& a, const Safetensors& b) {
  REQUIRE(a.metadata == b.metadata);
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    const auto& [name, tensor] = a.tensors[i];
    CAPTURE(name);
    REQUIRE(name == b.tensors[i].first);
    REQUIRE(tensor.dtype == b.tensors[i].second.dtype);
    REQUIRE(tensor.shape == b.tensors[i].second.shape);
    REQUIRE(tensor.bytes == b.tensors[i].second.bytes);
  }
}

/// What is wrong with a file; nothing if it loads. Whatever is wrong is an Error of the form
/// promised.
std::optional<std::string> fault_in(const std::filesystem::path& path) {
  std::string message;
  try {
    read_safetensors(path);
    return std::nullopt;
  } catch (const wrn::Error& error) {
    message = error.what();
  }
  const std::string before = "cannot read " + path.string() + ": ";
  const std::string after = "; it is damaged or no safetensors file: use another copy";
  CAPTURE(message);
  REQUIRE(message.starts_with(before));
  REQUIRE(message.ends_with(after));
  REQUIRE(message.size() < 1000);
  REQUIRE(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; }));
  return message.substr(before.size(), message.size() - before.size() - after.size());
}

template <typename Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const wrn::Error& error) {
    return error.what();
  }
  return "";
}

void require_contains(const std::string& message, const std::string& part) {
  CAPTURE(message, part);
  REQUIRE(message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("What is written is read back") {
  const TemporaryDirectory directory;
  const auto path = directory / "file.safetensors";
  write_safetensors(path, example());
  const Safetensors read = read_safetensors(path);
  require_equal(read, example());
  REQUIRE(read.file == path);
  REQUIRE(read.at("f64").as<double>()[1] == -1e300);
  REQUIRE(read.at("none").as<float>().empty());
  REQUIRE(read.at("bn1.num_batches_tracked").as<std::int64_t>().size() == 1);
  REQUIRE(read.find("f64") == &read.tensors[2].second);
  REQUIRE(read.find("f6") == nullptr);
}

TEST_CASE("Nothing at all is a file too") {
  const TemporaryDirectory directory;
  write_safetensors(directory / "file", {});
  REQUIRE(content(directory / "file") == file_of("{}      ", ""));
  require_equal(read_safetensors(directory / "file"), {});
}

TEST_CASE("The bytes of a file are those of the format") {
  const TemporaryDirectory directory;
  Safetensors written;
  written.metadata = {{"b", "2"}, {"a", "1"}};
  written.tensors = {{"w", entry<float>({1, 2}, {1.0f, -2.0f})},
                     {"n", entry<std::int64_t>({}, {258})}};
  write_safetensors(directory / "file", written);
  const std::string header =
      R"({"__metadata__":{"a":"1","b":"2"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
      R"("n":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}  )";
  REQUIRE(header.size() == 144);
  const std::string data("\x00\x00\x80\x3f\x00\x00\x00\xc0\x02\x01\x00\x00\x00\x00\x00\x00", 16);
  REQUIRE(content(directory / "file") ==
          std::string("\x90\x00\x00\x00\x00\x00\x00\x00", 8) + header + data);
}

TEST_CASE("A file of PyTorch's package is read") {
  // safetensors.torch.save_file({"b": [[1.5, -2, 0.25]], "half": bfloat16 [1, 2], "n": 7,
  //                              "e": zeros(0, 3)}, metadata={"format": "pt", "név": "é\n"})
  const std::string bytes = file_of(
      "{\"__metadata__\":{\"n\xc3\xa9v\":\"\xc3\xa9\\n\",\"format\":\"pt\"},"
      "\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[1,3],\"data_offsets\":[8,20]},"
      "\"e\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[20,20]},"
      "\"half\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[20,24]}}  ",
      std::string_view("\x07\0\0\0\0\0\0\0\0\0\xc0?\0\0\0\xc0\0\0\x80>\x80?\0@", 24));
  const TemporaryDirectory directory;
  Safetensors expected;
  expected.metadata = {{"format", "pt"}, {"n\xc3\xa9v", "\xc3\xa9\n"}};
  expected.tensors = {{"n", entry<std::int64_t>({}, {7})},
                      {"b", entry<float>({1, 3}, {1.5f, -2.0f, 0.25f})},
                      {"e", entry<float>({0, 3}, {})},
                      {"half", entry<std::uint16_t>({2}, {0x3f80, 0x4000})}};
  require_equal(read_safetensors(put(directory / "file", bytes)), expected);
}

TEST_CASE("Every dtype of the format is read, at its size") {
  const std::pair<std::string, int> dtypes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  const TemporaryDirectory directory;
  for (const auto& [dtype, size] : dtypes) {
    CAPTURE(dtype);
    const std::string header = R"({"a":{"dtype":")" + dtype +
                               R"(","shape":[3],"data_offsets":[0,)" + std::to_string(3 * size) +
                               "]}}";
    const auto path = put(directory / "file", file_of(header, std::string(3 * size, 'x')));
    REQUIRE(read_safetensors(path).at("a").dtype == dtype);
  }
}

TEST_CASE("Tensors come in the order of their data, however the header lists them") {
  const TemporaryDirectory directory;
  const std::string header = R"({"a":{"data_offsets":[2,4],"shape":[2],"dtype":"U8"},)"
                             "\n"
                             R"( "z":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}  )";
  const auto path = put(directory / "file", file_of(header, "zzaa"));
  const Safetensors read = read_safetensors(path);
  REQUIRE(read.tensors[0].first == "z");
  const std::string empty_last = R"({"a":{"data_offsets":[0,2],"shape":[2],"dtype":"U8"},)"
                                 R"("empty":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}  )";
  REQUIRE(read_safetensors(put(directory / "file", file_of(empty_last, "aa"))).tensors[0].first ==
          "empty");
  REQUIRE(read.at("a").as<std::uint8_t>()[1] == 'a');
}

TEST_CASE("A tensor that is missing or of another dtype names the file and the tensor") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  write_safetensors(path, example());
  const Safetensors read = read_safetensors(path);
  REQUIRE(message_of([&] { read.at("fc.\nweight"); }) ==
          path.string() + R"( has no tensor "fc.\nweight"; was it written for another model?)");
  REQUIRE(message_of([&] { read.at("f64").as<float>(); }) ==
          path.string() + R"(: tensor "f64" is of dtype "F64" where F32 is needed; )" +
              "is it of another kind of file?");
}

TEST_CASE("What cannot be written is an error, and nothing is written") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  const auto message = [&](const Safetensors& written) {
    return message_of([&] { write_safetensors(path, written); });
  };
  require_contains(message_of([] {
                     entry<float>({2, 2}, {1, 2, 3});
                   }),
                   "has 12 bytes, but its dtype and shape need 16");
  require_contains(message_of([] { entry<float>({-2}, {}); }), "negative extent -2");
  Entry wrong = entry<float>({1}, {1});
  wrong.dtype = "F64";
  require_contains(message({{}, {{"a", wrong}}, {}}), "has 4 bytes");
  wrong.dtype = "float";
  require_contains(message({{}, {{"a", wrong}}, {}}), R"(dtype "float" is unknown)");
  const Entry right = entry<float>({1}, {1});
  require_contains(message({{}, {{"a", right}, {"a", right}}, {}}), R"(two tensors named "a")");
  require_contains(message({{}, {{"__metadata__", right}}, {}}), "__metadata__");
  require_contains(message({{}, {{"\xff", right}}, {}}), "not UTF-8");
  require_contains(message({{{"a", "\xff"}}, {}, {}}), "not UTF-8");
  REQUIRE(std::filesystem::is_empty(directory.path()));
  const auto nowhere = directory / "none/file";
  require_contains(message_of([&] { write_safetensors(nowhere, {}); }),
                   "cannot write " + nowhere.string() + ": No such file or directory");
}

TEST_CASE("A file that cannot be opened says why") {
  const TemporaryDirectory directory;
  const auto message = [](const std::filesystem::path& path) {
    return message_of([&] { read_safetensors(path); });
  };
  const std::string missing = (directory / "none").string();
  REQUIRE(message(missing) ==
          "cannot read " + missing + ": No such file or directory; check the path");
  REQUIRE(message(directory.path()) ==
          "cannot read " + directory.path().string() + ": Is a directory; check the path");
}

TEST_CASE("A header that breaks a rule says which") {
  const std::string overflow = "4611686018427387904";  // 2^62
  const std::string lists(100'000, '['), objects = [] {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += R"({"a":)";
    return text;
  }();
  const auto tensor = [](const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
    return R"("a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
           "}";
  };
  const std::string a = tensor(R"("F32")", "[2]", "[0,8]");
  const std::string list = "is not a list of whole numbers from 0 to 2^63 - 1";
  const std::string nested = "the header has an object or a list where none belongs";
  const std::string fields =
      R"(tensor "a": it is not described by dtype, shape and data_offsets alone)";
  struct Case {
    std::string header, reason;
  };
  const Case cases[] = {
      {"", "the header is not a JSON object"},
      {"[]", "the header is not a JSON object"},
      {" {" + a + "}", "the header is not a JSON object"},
      {"\xef\xbb\xbf{" + a + "}", "the header is not a JSON object"},
      {lists, "the header is not a JSON object"},
      {R"({"a":)" + lists, nested},
      {R"({"a":{"b":{}}})", nested},
      {objects, nested},
      {"{", "the header is not JSON, at offset 9"},
      {"{" + a, "the header is not JSON, at offset 61"},
      {"{" + a + "}}", "the header is not JSON, at offset 62"},
      {"{" + a + "} x", "the header is not JSON, at offset 63"},
      {"{" + a + ",}", "the header is not JSON, at offset 62"},
      {"{\"\xff\":1}", "the header is not JSON, at offset 10"},
      {"{\"a\n\":1}", "the header is not JSON, at offset 11"},
      {"{" + a + "}" + std::string(3, '\0'), "the header has a zero byte at offset 62"},
      {R"({"a":1e999})", "the header has a number that is out of range"},
      {"{" + a + "," + a + "}", R"(the header has the key "a" twice)"},
      {R"({"a":{"dtype":"U8","dtype":"U8"}})", R"(the header has the key "dtype" twice)"},
      {R"({"__metadata__":{},"__metadata__":{}})",
       R"(the header has the key "__metadata__" twice)"},
      {R"({"__metadata__":[]})", "__metadata__ is not a JSON object"},
      {R"({"__metadata__":null})", "__metadata__ is not a JSON object"},
      {R"({"__metadata__":{"b":1}})", R"(__metadata__ has a "b" that is not a string)"},
      {R"({"__metadata__":{"b":{"c":[]}}})", nested},
      {R"({"a":1})", fields},
      {R"({"a":[{}]})", nested},
      {R"({"a":[[]]})", fields},
      {R"({"a":{}})", fields},
      {R"({"a":{"dtype":"U8","shape":[8]}})", fields},
      {R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"more":0}})", fields},
      {R"({"a":{"dtype":"U8","shape":[8],"offsets":[0,8]}})", fields},
      {"{" + tensor("8", "[8]", "[0,8]") + "}", R"(tensor "a": its dtype is not a string)"},
      {"{" + tensor(R"("F33")", "[2]", "[0,8]") + "}", R"(tensor "a": its dtype "F33" is unknown)"},
      {"{" + tensor(R"("F\n")", "[2]", "[0,8]") + "}", R"(tensor "a": its dtype "F\n" is unknown)"},
      {"{" + tensor(R"("F32")", "2", "[0,8]") + "}", R"(tensor "a": its shape is not a list)"},
      {"{" + tensor(R"("F32")", "{}", "[0,8]") + "}", nested},
      {"{" + tensor(R"("F32")", "[-2]", "[0,8]") + "}", R"(tensor "a": its shape )" + list},
      {"{" + tensor(R"("F32")", "[2.0]", "[0,8]") + "}", R"(tensor "a": its shape )" + list},
      {"{" + tensor(R"("F32")", R"(["2"])", "[0,8]") + "}", R"(tensor "a": its shape )" + list},
      {"{" + tensor(R"("F32")", "[9223372036854775808]", "[0,8]") + "}",
       R"(tensor "a": its shape )" + list},
      {"{" + tensor(R"("F32")", "[99999999999999999999]", "[0,8]") + "}",
       R"(tensor "a": its shape )" + list},
      {"{" + tensor(R"("F32")", "[" + overflow + "]", "[0,8]") + "}",
       R"(tensor "a": its shape has more bytes than 64 bits can count)"},
      {"{" + tensor(R"("U8")", "[" + overflow + ",4]", "[0,0]") + "}",  // 2^64, which wraps to 0
       R"(tensor "a": its shape has more bytes than 64 bits can count)"},
      {"{" + tensor(R"("F32")", "[2]", "8") + "}", R"(tensor "a": its data_offsets is not a list)"},
      {"{" + tensor(R"("F32")", "[2]", "[8]") + "}",
       R"(tensor "a": its data_offsets are 1 numbers, not 2)"},
      {"{" + tensor(R"("F32")", "[2]", "[0,8,8]") + "}",
       R"(tensor "a": its data_offsets are 3 numbers, not 2)"},
      {"{" + tensor(R"("F32")", "[2]", "[-8,0]") + "}", R"(tensor "a": its data_offsets )" + list},
      {"{" + tensor(R"("F32")", "[2]", "[0,8.5]") + "}", R"(tensor "a": its data_offsets )" + list},
      {"{" + tensor(R"("F32")", "[2]", "[8,0]") + "}",
       R"(tensor "a": its data_offsets [8, 0] end before they begin)"},
      {"{" + tensor(R"("F32")", "[2]", "[8,16]") + "}",
       R"(tensor "a": its data_offsets [8, 16] are beyond the 8 bytes of data that the file has)"},
      {"{" + tensor(R"("F32")", "[2]", "[0,9223372036854775807]") + "}",
       R"(tensor "a": its data_offsets [0, 9223372036854775807] are beyond )"
       "the 8 bytes of data that the file has"},
      {"{" + tensor(R"("F32")", "[1]", "[0,8]") + "}",
       R"(tensor "a": its data_offsets [0, 8] hold 8 bytes, but its dtype and shape need 4)"},
      {"{" + a + R"(,"b":{"dtype":"U8","shape":[2],"data_offsets":[6,8]}})",
       R"(tensor "b": its data_offsets [6, 8] overlap another tensor's)"},
      {"{" + a + R"(,"b":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
       R"(tensor "b": its data_offsets [0, 8] overlap another tensor's)"},
      {R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[6,8]}})",
       R"(tensor "b": the 6 bytes of data before it belong to no tensor)"},
      {R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       "the last 6 bytes of the file belong to no tensor"},
      {"{}", "the last 8 bytes of the file belong to no tensor"},
      {R"({"a\u0000\u001b[2J\u009b\n)" + std::string(200, 'x') + R"(":1})",
       R"(tensor "a\u0000\u001b[2J\u009b\n)" + std::string(91, 'x') +
           R"(...": it is not described by dtype, shape and data_offsets alone)"},
  };
  const TemporaryDirectory directory;
  for (const auto& [header, reason] : cases) {
    CAPTURE(header.substr(0, 200));
    REQUIRE(fault_in(put(directory / "file", file_of(header, "8 bytes."))).value_or("") == reason);
  }
  REQUIRE(!fault_in(put(directory / "file", file_of("{" + a + "}", "8 bytes."))).has_value());
}

TEST_CASE("A length that is not the header's is an error") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  REQUIRE(fault_in(put(path, "")) == "it has only 0 bytes");
  REQUIRE(fault_in(put(path, "1234567")) == "it has only 7 bytes");
  const std::string whole = file_of("{}", "");
  REQUIRE(fault_in(put(path, "\x03" + whole.substr(1))) ==
          "its header of 3 bytes is longer than the file of 10");
  REQUIRE(fault_in(put(path, std::string(16, '\xff'))) ==
          "its first 8 bytes give a header of 18446744073709551615 bytes, more than 100000000");
  REQUIRE(fault_in(put(path, std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10))) ==
          "its first 8 bytes give a header of 100000001 bytes, more than 100000000");
  REQUIRE(fault_in(put(path, std::string("\0\xe1\xf5\x05\0\0\0\0{}", 10))) ==
          "its header of 100000000 bytes is longer than the file of 10");
}

TEST_CASE("A file cut anywhere is an error") {
  const TemporaryDirectory directory;
  Safetensors large = example();
  large.tensors.emplace_back("conv", entry<float>({1000}, std::vector<float>(1000, 1.0f)));
  write_safetensors(directory / "whole", large);
  const std::string whole = content(directory / "whole");
  const std::size_t header_end = whole.find("}}") + 2;
  std::mt19937_64 random(1);
  for (std::size_t i = 0; i < header_end + 1000; ++i) {
    const std::size_t size = i < header_end ? i : random() % whole.size();
    CAPTURE(size);
    REQUIRE(fault_in(put(directory / "cut", whole.substr(0, size))).has_value());
  }
}

TEST_CASE("A header with any byte changed loads or is an error") {
  const TemporaryDirectory directory;
  write_safetensors(directory / "whole", example());
  const std::string whole = content(directory / "whole");
  const std::size_t header_end = whole.find("}}") + 2;
  std::mt19937_64 random(2);
  int errors = 0;
  for (std::size_t i = 0; i < 4 * header_end; ++i) {
    std::string changed = whole;
    changed[i / 4] = static_cast<char>(random());
    CAPTURE(i);
    errors += fault_in(put(directory / "changed", changed)).has_value();
  }
  REQUIRE(errors > static_cast<int>(2 * header_end));
}
