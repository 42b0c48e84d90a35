// Which kernel a bf16 convolution is: the table, what cannot be in it, and that all that is cut
// into tiles is cut as the table says. test_cuda_hopper.cpp and test_cuda_fused.cpp compute so.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "catch.h"
#include "kernels/conv3x3/choices.h"
#include "kernels/conv3x3/v5_tiles.h"
#include "kernels/error.h"

using namespace wrn;
using namespace wrn::cuda;

namespace {

constexpr ConvShape kInner{128, 32, 32, 160, 160, 3, 1};  // 2048 blocks of pixels
constexpr int kSms = 132;

const std::vector<MeasuredChoices> kTable{
    {114,
     "a \"GPU\"",
     {{ConvProduct::kFprop, kInner, 5, 128, 0},
      {ConvProduct::kDgrad, {128, 32, 32, 160, 320, 3, 2}, 4, 0, 0},
      {ConvProduct::kWgrad, {128, 8, 8, 640, 640, 3, 1}, 5, 160, 2}}},
    {132, "another", {}}};

}  // namespace

TEST_CASE("a table comes back from its text, a line for each device and choice") {
  const std::string text = text_of(kTable);
  CHECK(text_of(choices_of(text)) == text);
  CHECK(choices_of(text)[0].choices == kTable[0].choices);
  CHECK(choices_of(text)[0].measured_on == kTable[0].measured_on);
  CHECK(std::ranges::count(text, '\n') == 6);
  CHECK(choices_of(text_of({})).empty());
  const std::string sorted = nlohmann::json::parse(text).dump();  // keys in another order
  CHECK(text_of(choices_of(sorted)) == text);
}

TEST_CASE("a text that is no table of choices is refused") {
  const auto refused = [](std::string text, const std::string& says) {
    INFO(text);
    std::string message;
    try {
      choices_of(text);
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message.find(says) != std::string::npos);
  };
  const auto with = [](const std::string& from, const std::string& to) {
    std::string text = text_of(kTable);
    return text.replace(text.find(from), from.size(), to);
  };
  refused("", "not a table");
  refused("[", "not a table");
  refused("[1]", "not a table");
  refused("{\"multiprocessors\": 132}", "not a table");
  refused(with("\"multiprocessors\": 114, ", ""), "not a table");
  refused(with("\"version\":5", "\"version\":\"5\""), "not a table");
  refused(with("\"columns\":128,", ""), "not a table");
  refused(with("[128,32", "[32"), "not a table");
  refused(with("fprop", "Fprop"), "not a table");
  refused(with("\"columns\":128", "\"columns\":128.5"), "not a table");
  refused(with("\"parts\":0", "\"parts\":0,\"halves\":1"), "not a table");
  refused("null", "not a table");
  refused("{}", "not a table");
  refused(with(": 114,", ": 114.5,"), "not a table");
  refused(with(": 114,", ": 4294967410,"), "not a table");
  refused(with(": 114,", ": 132,"), "GPUs of 132 multiprocessors are in it twice");
  refused(with("\"columns\":128", "\"columns\":96"), "no convolution can be computed");
  refused(with("[128,32", "[2147483647,32"), "no convolution can be computed");
  refused(with("[128,32,32,160,160,3,1]", "[1,32,32,160,160,5,1]"), "no convolution can be");
  refused(text_of({{1, "", {kTable[0].choices[0], kTable[0].choices[0]}}}), "is chosen twice");
}

TEST_CASE("the table in use has kernels that there are, each shape of a device once") {
  std::set<int> devices;
  for (const auto& [multiprocessors, measured_on, choices] : measured_choices()) {
    INFO(measured_on);
    CHECK(devices.insert(multiprocessors).second);
    CHECK(measured_choices(multiprocessors).data() == choices.data());
    for (std::size_t i = 0; i < choices.size(); ++i) {
      INFO("choice " << i);
      CHECK_NOTHROW(check(choices[i]));
      const auto& [product, shape, version, columns, parts] = choices[i];
      CHECK(find_choice(product, shape, {multiprocessors, choices}) == &choices[i]);
    }
  }
  CHECK(measured_choices(0).empty());
}

TEST_CASE("what is measured anew replaces its device's choices and no other's") {
  const Choice low{ConvProduct::kFprop, kInner, 4, 0, 0},
      high{ConvProduct::kWgrad, kInner, 5, 160, 1};
  const std::vector<MeasuredChoices> added = replaced(kTable, {120, "new", {high, low}});
  REQUIRE(added.size() == 3);
  CHECK(added[1].multiprocessors == 120);
  CHECK(added[1].choices == std::vector{low, high});
  const std::vector<MeasuredChoices> changed = replaced(added, {114, "newer", {high}});
  REQUIRE(changed.size() == 3);
  CHECK(changed[0].measured_on == "newer");
  CHECK(changed[0].choices == std::vector{high});
  CHECK(text_of({changed[1], changed[2]}) == text_of({added[1], added[2]}));
}

TEST_CASE("no choice is possible that no kernel is") {
  const auto refused = [](ConvProduct product, const ConvShape& s, int version, int columns,
                          int parts) {
    const Choice choice{product, s, version, columns, parts};
    INFO(columns << " columns, " << parts << " parts");
    CHECK_THROWS_AS(check(choice), Error);
    CHECK_THROWS_AS(find_choice(product, s, {kSms, {&choice, 1}}), Error);
  };
  using enum ConvProduct;
  refused(kFprop, kInner, 3, 0, 0);
  refused(kFprop, kInner, 4, 128, 0);
  refused(kWgrad, kInner, 4, 0, 1);
  refused(kFprop, kInner, 5, 96, 0);
  refused(kFprop, kInner, 5, 0, 0);
  refused(kFprop, kInner, 5, 128, 1);
  refused(kDgrad, kInner, 5, 256, 0);
  refused(kWgrad, kInner, 5, 160, 0);
  refused(kWgrad, kInner, 5, 160, 2049);
  refused(kWgrad, kInner, 5, 160, 2047);  // of two blocks each there are 1024
  refused(kFprop, {128, 32, 32, 3, 16, 3, 1}, 5, 16, 0);
  refused(kFprop, {128, 15, 15, 16, 16, 3, 1}, 5, 16, 0);
  refused(kFprop, {0, 32, 32, 160, 160, 3, 1}, 4, 0, 0);
  CHECK_NOTHROW(check({kFprop, kInner, 5, 256, 0}));
  CHECK_NOTHROW(check({kWgrad, kInner, 5, 256, 1024}));
  CHECK_NOTHROW(check({kFprop, {128, 32, 32, 3, 16, 3, 1}, 4, 0, 0}));
}

TEST_CASE("tiles are cut as was chosen, for that product and shape alone") {
  using enum ConvProduct;
  const std::vector<Choice> choices{
      {kFprop, kInner, 5, 64, 0}, {kDgrad, kInner, 4, 0, 0}, {kWgrad, kInner, 5, 32, 10}};
  const Target model{kSms}, chosen{kSms, choices};
  CHECK(v5::gather_plan(kFprop, kInner, model).columns == 160);
  CHECK(v5::gather_plan(kFprop, kInner, chosen).columns == 64);
  // Tiles of 256 x 64: 512 rows of them, two consumers each; three for 160 columns; in 12 waves.
  CHECK(v5::gather_plan(kFprop, kInner, chosen).sum_tiles() == 512 * 2);
  CHECK(v5::executed_macs(kFprop, kInner, chosen) ==
        std::int64_t{12} * kSms * 256 * 64 * (9 * 160));
  // 192 columns in tiles of 128 rows bring twice as many sums.
  const Choice wide{kFprop, kInner, 5, 192, 0};
  CHECK(v5::sums_traffic(kFprop, kInner, {kSms, {&wide, 1}}) ==
        2 * v5::sums_traffic(kFprop, kInner, chosen));

  CHECK(v5::is_chosen(kDgrad, kInner, model));
  CHECK_FALSE(v5::is_chosen(kDgrad, kInner, chosen));
  CHECK(v5::is_chosen(kFprop, kInner, chosen));
  CHECK_FALSE(v5::is_chosen(kFprop, {128, 32, 32, 3, 16, 3, 1}, chosen));

  const v5::WgradPlan plan = v5::wgrad_plan(kInner, chosen);
  CHECK(plan.columns == 32);
  CHECK(plan.blocks_of_part == 205);
  CHECK(plan.parts == 10);
  CHECK(plan.tiles() == 10 * 6 * 5);
  CHECK(v5::partial_traffic(kInner, chosen) == std::int64_t{2} * 10 * 160 * 9 * 160 * 4);

  ConvShape other = kInner;
  other.n = 64;
  CHECK(v5::gather_plan(kFprop, other, chosen).columns ==
        v5::gather_plan(kFprop, other, model).columns);
  CHECK(v5::is_chosen(kDgrad, other, chosen));
  CHECK(v5::wgrad_plan(other, chosen).columns == v5::wgrad_plan(other, model).columns);
}

TEST_CASE("the candidates are possible, different, and begin with the model's choice") {
  for (const auto product : {ConvProduct::kFprop, ConvProduct::kDgrad, ConvProduct::kWgrad}) {
    for (const ConvShape& s : {kInner,
                               {128, 32, 32, 16, 160, 1, 1},
                               {128, 8, 8, 640, 640, 3, 1},
                               {1, 8, 8, 16, 16, 3, 1},
                               {128, 32, 32, 3, 16, 3, 1}}) {
      INFO("c=" << s.c << " k=" << s.k << " product " << static_cast<int>(product));
      const std::vector<Choice> all = candidates(product, s, kSms);
      CHECK(std::set(all.begin(), all.end()).size() == all.size());
      for (const Choice& c : all) CHECK_NOTHROW(check(c));
      CHECK(std::ranges::count(all, 4, &Choice::version) == 1);
      if (!v5::takes(s)) {
        CHECK(all.size() == 1);
        continue;
      }
      const Choice& first = all.front();
      CHECK(first.version == 5);
      const v5::WgradPlan plan = v5::wgrad_plan(s, {kSms});
      const bool wgrad = product == ConvProduct::kWgrad;
      CHECK(first.columns == (wgrad ? plan.columns : v5::gather_plan(product, s, {kSms}).columns));
      CHECK(first.parts == (wgrad ? plan.parts : 0));
    }
  }
  const auto widths = [](ConvProduct product, const ConvShape& s) {
    std::set<int> columns;
    for (const Choice& c : candidates(product, s, kSms)) columns.insert(c.columns);
    return columns;
  };
  const std::set<int> upto192{0, 16, 32, 64, 128, 160, 192};
  std::set<int> all = upto192;
  all.insert(256);
  CHECK(widths(ConvProduct::kFprop, {128, 8, 8, 640, 640, 3, 1}) == all);
  CHECK(widths(ConvProduct::kDgrad, {128, 8, 8, 640, 640, 3, 1}) == upto192);
  CHECK(widths(ConvProduct::kWgrad, {128, 8, 8, 640, 640, 3, 1}) == all);
  CHECK(widths(ConvProduct::kFprop, kInner) == upto192);
  CHECK(widths(ConvProduct::kFprop, {128, 32, 32, 64, 32, 3, 1}) == std::set{0, 16, 32, 192});
  CHECK(widths(ConvProduct::kWgrad, {128, 32, 32, 96, 32, 3, 1}) == std::set{0, 16, 32, 192});
  // Tall tiles, of twice the columns, can still be better: the model chooses them.
  CHECK(widths(ConvProduct::kWgrad, {128, 32, 32, 64, 32, 3, 1}) == std::set{0, 16, 32, 64, 192});
  CHECK(v5::wgrad_plan({128, 32, 32, 64, 32, 3, 1}, {kSms}).columns == 64);
}
