// The grammar of names, and the paper's parameter counts.
#include <algorithm>
#include <cmath>

#include "catch.h"
#include "models/wide_resnet.h"

using namespace wrn;

TEST_CASE("every parameter count of the paper") {
  const std::vector<std::pair<const char*, std::int64_t>> counts = {{"wrn-10-1", 77850},
                                                                    {"wrn-16-1", 175066},
                                                                    {"wrn-16-4", 2748890},
                                                                    {"wrn-16-8", 10961370},
                                                                    {"wrn-16-10", 17116634},
                                                                    {"wrn-22-8", 17158106},
                                                                    {"wrn-22-10", 26797914},
                                                                    {"wrn-28-10", 36479194},
                                                                    {"wrn-28-12", 52517850},
                                                                    {"wrn-40-1", 563930},
                                                                    {"wrn-40-2", 2243546},
                                                                    {"wrn-40-4", 8949210},
                                                                    {"wrn-40-8", 35748314},
                                                                    {"wrn-40-10", 55841754},
                                                                    {"wrn-52-1", 758362},
                                                                    {"wrn-40-2-B(1,3,1)", 1429082},
                                                                    {"wrn-40-2-B(3,1)", 1211354},
                                                                    {"wrn-40-2-B(1,3)", 1297370},
                                                                    {"wrn-40-2-B(3,1,1)", 1343066},
                                                                    {"wrn-28-2", 1467610},
                                                                    {"wrn-22-2-B(3,1,3)", 1145498},
                                                                    {"wrn-40-2-l1", 2243546},
                                                                    {"wrn-40-2-l2", 2243546},
                                                                    {"wrn-40-2-l3", 2243546},
                                                                    {"wrn-40-2-l4", 2243546}};
  for (const auto& [name, count] : counts) {
    INFO(name);
    REQUIRE(WideResNet(parse_model(name)).parameters().count() == count);
  }
  WideResNetSpec cifar100 = parse_model("wrn-28-10");
  cifar100.classes = 100;
  REQUIRE(WideResNet(cifar100).parameters().count() == 36536884);
}

TEST_CASE("names are read and written alike") {
  for (const char* name : {"wrn-28-10", "wrn-40-2-B(3,1)", "wrn-40-2-l3", "wrn-10-1-B(1,3,1)"}) {
    REQUIRE(parse_model(name).name() == name);
  }
  REQUIRE(parse_model("wrn-28-10-B(3,3)").name() == "wrn-28-10");
  REQUIRE(parse_model("WRN-28-10-l2").name() == "wrn-28-10");
  REQUIRE(parse_model("wrn-40-2-l3").blocks() == 4);
  REQUIRE(parse_model("wrn-40-2-B(3,3,3)").blocks() == 6);
}

TEST_CASE("what is wrong with a name is said") {
  std::string long_name = "wrn-28-10-B(3";
  for (int i = 0; i < 100'000; ++i) long_name += ",3";
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"resnet-18", "a name is like"},
      {"wrn-28", "a name is like"},
      {"wrn-28-10 ", "a name is like"},
      {"wrn-28-10-B()", "a name is like"},
      {"wrn-28-10-B(3,1", "a name is like"},
      {"wrn-99999999999-1", "a name is like"},
      {"", "a name is like"},
      {long_name + ")", "a name is like"},
      {"wrn-30-10", "such as 28 or 34"},
      {"wrn-5-1", "such as 10 or 16"},
      {"wrn-0-1", "such as 10 or 16"},
      {"wrn-10003-1", "such as 9994 or 10000"},
      {"wrn-40-2-l5", "such as 34 or 49"},
      {"wrn-40-2-l0", "1 to 16 a block"},
      {"wrn-55-2-l17", "1 to 16 a block"},
      {"wrn-28-0", "widening factor 0"},
      {"wrn-28-1001", "widening factor 1001"},
      {"wrn-28-10-B(5)", "1x1 or 3x3"}};
  for (const auto& [name, part] : cases) {
    INFO(name.substr(0, 100));
    try {
      parse_model(name);
      FAIL("accepted");
    } catch (const Error& error) {
      INFO(error.what());
      REQUIRE(error.status == Status::kUsage);
      REQUIRE(std::string(error.what()).find(part) != std::string::npos);
    }
  }
  WideResNetSpec spec;
  spec.dropout = 1;
  REQUIRE_THROWS_AS(spec.blocks(), Error);
  spec.dropout = 0;
  spec.classes = 1;
  REQUIRE_THROWS_AS(spec.blocks(), Error);
}

TEST_CASE("initialisation: the paper's deviations, one seed one network") {
  WideResNet model(parse_model("wrn-16-4")), again(parse_model("wrn-16-4"));
  model.initialise(1);
  again.initialise(1);
  const auto deviation = [](const Tensor& x) {
    double sum = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) sum += x.data<float>()[i] * x.data<float>()[i];
    return std::sqrt(sum / static_cast<double>(x.size()));
  };
  for (const Parameter& p : model.parameters().all()) {
    INFO(p.name());
    const Tensor other = again.parameters().at(p.name());
    REQUIRE(std::equal(p.value.data<float>(), p.value.data<float>() + p.value.size(),
                       other.data<float>()));
    if (p.value.shape().size() == 4) {
      const double fan_in = static_cast<double>(p.value.size() / p.value.dim(0));
      REQUIRE(deviation(p.value) == Approx(std::sqrt(2 / fan_in)).epsilon(0.1));
    }
  }
  REQUIRE(deviation(model.parameters().at("fc.weight")) ==
          Approx(1 / std::sqrt(3 * 256.0)).epsilon(0.1));
  REQUIRE(model.parameters().at("bn1.weight").data<float>()[5] == 1);
  REQUIRE(model.parameters().at("bn1.bias").data<float>()[5] == 0);
  REQUIRE(model.parameters().at("bn1.running_var").data<float>()[5] == 1);
  again.initialise(1, GammaInit::kUniform);
  for (const Parameter& p : again.parameters().all()) {
    INFO(p.name());
    const std::vector<float> ours = p.value.read<float>(),
                             ones = model.parameters().at(p.name()).read<float>();
    const bool gamma = p.value.shape().size() == 1 && p.name().ends_with(".weight");
    REQUIRE((ours == ones) == !gamma);
    REQUIRE(std::all_of(ours.begin(), ours.end(),
                        [&](float value) { return !gamma || (value >= 0 && value <= 1); }));
  }
  REQUIRE(deviation(again.parameters().at("bn1.weight")) ==
          Approx(std::sqrt(1 / 3.0)).epsilon(0.1));
  again.initialise(2);
  REQUIRE(model.parameters().at("fc.weight").data<float>()[0] !=
          again.parameters().at("fc.weight").data<float>()[0]);
  REQUIRE_THROWS_AS(model.parameters().at("fc.wait"), Error);
}
