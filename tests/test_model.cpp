// The grammar of names, and the paper's parameter counts.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "catch.h"
#include "engine/checkpoint.h"
#include "kernels/bf16.h"
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
      {"wrn-10006-1", "such as 9994 or 10000"},
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
  for (const float dropout : {1.0F, -0.1F, NAN}) {
    spec.dropout = dropout;
    REQUIRE_THROWS_AS(spec.blocks(), Error);
  }
  spec.dropout = 0;
  spec.classes = 1;
  REQUIRE_THROWS_AS(spec.blocks(), Error);
}

TEST_CASE("in the slabs the last parameter comes first, and each begins at 64 elements") {
  const WideResNet model(parse_model("wrn-10-1"), Device::kCpu, Precision::kBf16);
  const Parameters& p = model.parameters();
  const float* after = p.values().data<float>();
  for (auto each = p.all().rbegin(); each != p.all().rend(); ++each) {
    INFO(each->name());
    const auto offset = each->value.data<float>() - p.values().data<float>();
    REQUIRE((offset % 64 == 0 && each->value.data<float>() - after < 64));
    REQUIRE(each->gradient.data<float>() - p.gradients().data<float>() == offset);
    REQUIRE(each->momentum.data<float>() - p.momenta().data<float>() == offset);
    const Tensor copy = each->value.bf16_copy();
    REQUIRE((!copy || copy.data<bf16>() - p.bf16_copies().data<bf16>() == offset));
    after = each->value.data<float>() + each->value.size();
  }
  std::size_t buffers = 0;
  for (const Tensor& buffer : p.buffers()) buffers += buffer.bytes();
  REQUIRE(p.bytes() == static_cast<std::size_t>(p.values().size()) * (4 + 4 + 4 + 2) + buffers);
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
  // Fixed for good: a seed is to mean the same in every version.
  const float* const stem = model.parameters().at("conv1.weight").data<float>();
  REQUIRE((stem[0] == Approx(-0.1698305) && stem[1] == Approx(0.06069705)));
  // A draw is of one weight: neither its neighbour nor another layer has it.
  const Tensor first = model.parameters().at("block2.layer.0.conv2.weight"),
               next = model.parameters().at("block2.layer.1.conv1.weight");
  std::int64_t same = 0;
  for (std::int64_t i = 1; i < first.size(); ++i) {
    const float value = first.data<float>()[i];
    same += value == first.data<float>()[i - 1] || value == next.data<float>()[i] ? 1 : 0;
  }
  REQUIRE(same < first.size() / 1000);
  for (const Tensor& x : {first, model.parameters().at("fc.weight")}) {
    INFO(x.name());
    const double sum = std::accumulate(x.data<float>(), x.data<float>() + x.size(), 0.0);
    REQUIRE(std::abs(sum / static_cast<double>(x.size())) < 0.05 * deviation(x));
  }
  const Tensor momentum = again.parameters().all().front().momentum;
  momentum.write<float>(std::vector<float>(static_cast<std::size_t>(momentum.size()), 1));
  again.initialise(2);
  REQUIRE(momentum.read<float>() ==
          std::vector<float>(static_cast<std::size_t>(momentum.size()), 0));
  REQUIRE(model.parameters().at("fc.weight").data<float>()[0] !=
          again.parameters().at("fc.weight").data<float>()[0]);
  REQUIRE_THROWS_AS(model.parameters().at("fc.wait"), Error);
}

TEST_CASE("a model's state is imported as it was exported, or not at all") {
  WideResNet model(parse_model("wrn-10-1"));
  model.initialise(1);
  const Parameters& ours = model.parameters();
  ours.momenta().write<float>(ours.values().read<float>());
  Safetensors whole;
  whole.file = "FILE";
  export_state(ours, 123, true, whole);
  REQUIRE(whole.at("bn1.num_batches_tracked").as<std::int64_t>()[0] == 123);
  REQUIRE(whole.at("conv1.weight").shape == std::vector<std::int64_t>{16, 3, 3, 3});

  WideResNet other(parse_model("wrn-10-1"));
  other.initialise(2);
  const Parameters& theirs = other.parameters();
  const std::vector<float> before = theirs.values().read<float>();
  const auto refuses = [&](const Safetensors& file, bool optimiser, const std::string& message) {
    try {
      import_state(file, optimiser, theirs);
      FAIL("accepted");
    } catch (const Error& error) {
      REQUIRE(std::string(error.what()).starts_with(message));
    }
    REQUIRE(theirs.values().read<float>() == before);
  };
  const auto with = [&](const std::string& name, const SafetensorsEntry& entry) {
    Safetensors file = whole;
    std::erase_if(file.tensors, [&](const auto& each) { return each.first == name; });
    file.tensors.emplace_back(name, entry);
    return file;
  };
  const auto entry = [](const Shape& shape, std::size_t size) {
    return SafetensorsEntry::make<float>(shape, std::vector<float>(size));
  };
  const std::vector<double> doubles(10);
  refuses(with("fc.bias", entry({11}, 11)), false,
          "FILE: fc.bias has the shape [11], this model needs [10]");
  refuses(with("conv1.weight", entry({16, 3, 3, 2}, 288)), false,
          "FILE: conv1.weight has the shape [16,3,3,2], this model needs [16,3,3,3]");
  refuses(with("fc.bias", SafetensorsEntry::make<double>({10}, doubles)), false,
          "a tensor is of dtype \"F64\" where F32 is needed");
  refuses(with("bn2.weight", entry({10}, 10)), false, "FILE: this model has no bn2.weight");
  Safetensors weights;
  weights.file = "FILE";
  export_state(ours, 0, false, weights);
  refuses(weights, true, "FILE has no tensor \"optimizer.conv1.weight\"");

  const std::vector<float> momenta = theirs.momenta().read<float>();
  import_state(with("whitening.mean", entry({2}, 2)), false, theirs);  // optimizer.* is left alone
  REQUIRE(theirs.values().read<float>() == ours.values().read<float>());
  REQUIRE(theirs.momenta().read<float>() == momenta);
  import_state(whole, true, theirs);
  REQUIRE(theirs.momenta().read<float>() == ours.momenta().read<float>());
}
