#include "models/wide_resnet.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>
#include <regex>

#include "kernels/philox.h"

namespace wrn {
namespace {

constexpr int kStemWidth = 16;
constexpr int kGroups = 3;
constexpr int kMostDepth = 10000;

std::string block_name(int group, int block) {
  return fmt::format("block{}.layer.{}", group + 1, block);
}

/// Calls visit(group, block, input width, width, stride) for every block, in order.
template <typename Visit>
void for_each_block(const WideResNetSpec& spec, Visit visit) {
  int in = kStemWidth;
  for (int group = 0; group < kGroups; ++group) {
    const int width = (kStemWidth << group) * spec.widen;
    for (int block = 0; block < spec.blocks(); ++block) {
      visit(group, block, in, width, group > 0 && block == 0 ? 2 : 1);
      in = width;
    }
  }
}

struct Declarations {
  std::vector<ParameterSpec> parameters, buffers;

  void conv(const std::string& layer, int out, int kernel, int in) {
    parameters.push_back({layer + ".weight", {out, kernel, kernel, in}});
  }
  void norm(const std::string& layer, int width) {
    for (const char* what : {".weight", ".bias"}) parameters.push_back({layer + what, {width}});
    for (const char* what : {".running_mean", ".running_var"}) {
      buffers.push_back({layer + what, {width}});
    }
  }
};

Declarations declare(const WideResNetSpec& spec) {
  Declarations d;
  d.conv("conv1", kStemWidth, 3, 3);
  for_each_block(spec, [&](int group, int block, int in, int width, int) {
    const std::string name = block_name(group, block);
    for (std::size_t i = 0; i < spec.kernels.size(); ++i) {
      const int from = i == 0 ? in : width;
      d.norm(fmt::format("{}.bn{}", name, i + 1), from);
      d.conv(fmt::format("{}.conv{}", name, i + 1), width, spec.kernels[i], from);
    }
    if (in != width) d.conv(name + ".convShortcut", width, 1, in);
  });
  const int features = (kStemWidth << (kGroups - 1)) * spec.widen;
  d.norm("bn1", features);
  d.parameters.push_back({"fc.weight", {spec.classes, features}});
  d.parameters.push_back({"fc.bias", {spec.classes}});
  return d;
}

}  // namespace

int WideResNetSpec::blocks() const {
  const auto usage = [&](const std::string& what) { throw Error(what, Status::kUsage); };
  if (widen < 1 || widen > 1000) usage(fmt::format("widening factor {}: must be 1 to 1000", widen));
  if (classes < 2) usage(fmt::format("{} classes: a network needs two or more", classes));
  if (!(dropout >= 0 && dropout < 1)) {
    usage(fmt::format("dropout {}: must be at least 0 and less than 1", dropout));
  }
  if (kernels.empty() || kernels.size() > 16 ||
      std::any_of(kernels.begin(), kernels.end(), [](int r) { return r != 1 && r != 3; })) {
    usage(fmt::format("block B({}): convolutions are 1x1 or 3x3, 1 to 16 a block",
                      fmt::join(kernels, ",")));
  }
  const int step = deepening > 0 ? kGroups * deepening : 6;
  if (depth < 4 + step || depth > kMostDepth || (depth - 4) % step != 0) {
    const int below = std::clamp((std::max(depth, 4) - 4) / step, 1, (kMostDepth - 4) / step - 1);
    usage(fmt::format("depth {} does not fit {}: the depth is {} N + 4, such as {} or {}", depth,
                      deepening > 0 ? fmt::format("the deepening factor {}", deepening)
                                    : fmt::format("B({})", fmt::join(kernels, ",")),
                      step, 4 + below * step, 4 + (below + 1) * step));
  }
  return (depth - 4) / step;
}

std::string WideResNetSpec::name() const {
  std::string name = fmt::format("wrn-{}-{}", depth, widen);
  if (deepening > 0) return name + fmt::format("-l{}", deepening);
  if (kernels != std::vector<int>{3, 3}) name += fmt::format("-B({})", fmt::join(kernels, ","));
  return name;
}

WideResNetSpec parse_model(const std::string& name) {
  // Longer than any name: std::regex calls itself for every repetition that it matches.
  constexpr std::size_t kMostCharacters = 100;
  static const std::regex grammar(
      R"(wrn-(\d{1,5})-(\d{1,4})(?:-B\(([0-9](?:,[0-9])*)\)|-l(\d{1,2}))?)", std::regex::icase);
  std::smatch match;
  if (name.size() > kMostCharacters || !std::regex_match(name, match, grammar)) {
    throw Error(fmt::format("model '{}': a name is like wrn-28-10, wrn-40-2-B(3,1) or wrn-40-2-l3",
                            name.substr(0, kMostCharacters)),
                Status::kUsage);
  }
  WideResNetSpec spec;
  spec.depth = std::stoi(match[1]);
  spec.widen = std::stoi(match[2]);
  if (match[3].matched) {
    spec.kernels.clear();
    for (const char c : match[3].str()) {
      if (c != ',') spec.kernels.push_back(c - '0');
    }
  }
  if (match[4].matched) {
    spec.deepening = std::stoi(match[4]);
    spec.kernels.assign(static_cast<std::size_t>(spec.deepening), 3);
    if (spec.deepening == 2) spec.deepening = 0;  // the two rules agree, and so do the names
  }
  spec.blocks();
  return spec;
}

std::vector<ParameterSpec> parameters_of(const WideResNetSpec& spec) {
  return declare(spec).parameters;
}

std::int64_t parameter_count(const WideResNetSpec& spec) {
  std::int64_t count = 0;
  for (const ParameterSpec& parameter : parameters_of(spec)) {
    count += std::accumulate(parameter.shape.begin(), parameter.shape.end(), std::int64_t{1},
                             std::multiplies<>());
  }
  return count;
}

WideResNet::WideResNet(const WideResNetSpec& spec, Device device, Precision precision)
    : spec_(spec), parameters_(declare(spec).parameters, declare(spec).buffers, device, precision) {
  conv1_ = parameters_.at("conv1.weight");
  for_each_block(spec, [&](int group, int block, int in, int width, int stride) {
    const std::string name = block_name(group, block);
    Block& b = blocks_.emplace_back();
    b.name = name;
    b.stride = stride;
    for (std::size_t i = 1; i <= spec.kernels.size(); ++i) {
      b.norms.push_back(batch_norm_at(fmt::format("{}.bn{}", name, i)));
      b.filters.push_back(parameters_.at(fmt::format("{}.conv{}.weight", name, i)));
    }
    if (in != width) b.projection = parameters_.at(name + ".convShortcut.weight");
  });
  last_norm_ = batch_norm_at("bn1");
  fc_weight_ = parameters_.at("fc.weight");
  fc_bias_ = parameters_.at("fc.bias");
}

BatchNorm WideResNet::batch_norm_at(const std::string& layer) const {
  return {.gamma = parameters_.at(layer + ".weight"),
          .beta = parameters_.at(layer + ".bias"),
          .running_mean = parameters_.at(layer + ".running_mean"),
          .running_variance = parameters_.at(layer + ".running_var")};
}

Measured WideResNet::forward(Tape& tape, const Block& block, Measured x, int& dropouts) const {
  tape.begin_part(block.name);
  const std::size_t convolutions = block.filters.size();
  if (x.mean) {  // fused
    Shortcut shortcut{x.image};
    for (std::size_t i = 0; i < convolutions; ++i) {
      PreactConv p{.norm = block.norms[i], .filters = block.filters[i]};
      if (i == 0) {
        p.stride = block.stride;
        p.projection = block.projection;
      } else {
        p.dropout = spec_.dropout;
        p.dropout_layer = dropouts++;
      }
      p.adds_shortcut = i + 1 == convolutions;
      x = preact_conv(tape, x, shortcut, p);
    }
    return x;
  }
  Tensor h = batch_norm_relu(tape, x, block.norms[0]), shortcut = x.image;
  if (block.projection) shortcut = conv2d(tape, h, block.projection, block.stride);
  h = conv2d(tape, h, block.filters[0], block.stride);
  for (std::size_t i = 1; i < convolutions; ++i) {
    h = batch_norm_relu(tape, h, block.norms[i]);
    h = dropout(tape, h, spec_.dropout, dropouts++);
    h = conv2d(tape, h, block.filters[i], 1);
  }
  return add(tape, h, shortcut);
}

Tensor WideResNet::forward(Tape& tape, const Tensor& images) const {
  WRN_CHECK(images.shape().size() == 4 && images.dim(1) == 32 && images.dim(2) == 32 &&
                images.dim(3) == 3,
            "images of the shape {}", to_string(images.shape()));
  int dropouts = 0;
  tape.begin_part("conv1");
  const bool fuses = fused_ && tape.training() && tape.context().precision() != Precision::kFp32;
  Measured x = fuses ? conv2d_measured(tape, images, conv1_, 1) : conv2d(tape, images, conv1_, 1);
  for (const Block& block : blocks_) x = forward(tape, block, x, dropouts);
  tape.begin_part("bn1, fc");
  Tensor h = batch_norm_relu(tape, x, last_norm_);
  h = average_pool(tape, h, 8);
  return linear(tape, h, fc_weight_, fc_bias_);
}

void WideResNet::initialise(std::uint64_t seed, GammaInit gamma) {
  const auto fill = [](const Tensor& x, float value) {
    x.write<float>(std::vector<float>(static_cast<std::size_t>(x.size()), value));
  };
  std::uint32_t row = 0;  // the parameter's number
  for (const Parameter& parameter : parameters_.all()) {
    const Tensor& w = parameter.value;
    fill(parameter.momentum, 0);
    std::vector<float> values(static_cast<std::size_t>(w.size()));
    const bool is_gamma = w.shape().size() == 1 && w.name().ends_with(".weight");
    const double fan_in = static_cast<double>(w.size() / w.dim(0));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const PhiloxWords random =
          philox(seed, static_cast<std::uint32_t>(i / 2), row, 0, RandomUse::kInitialise);
      const std::uint32_t* word = random.word + 2 * (i % 2);
      const double u = (word[0] + 0.5) / 4294967296.0, v = (word[1] + 0.5) / 4294967296.0;
      double value = 0;  // of a bias
      if (is_gamma) {
        value = gamma == GammaInit::kUniform ? u : 1;
      } else if (w.shape().size() == 4) {
        value = std::sqrt(2 / fan_in) * std::sqrt(-2 * std::log(u)) *
                std::cos(2 * std::numbers::pi * v);  // Box and Muller
      } else if (w.shape().size() == 2) {
        value = (2 * u - 1) / std::sqrt(fan_in);
      }
      values[i] = static_cast<float>(value);
    }
    w.write<float>(values);
    ++row;
  }
  for (const Tensor& buffer : parameters_.buffers()) {
    fill(buffer, buffer.name().ends_with(".running_var") ? 1 : 0);
  }
  parameters_.sync_copies();
}

}  // namespace wrn
