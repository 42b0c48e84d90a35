// Training steps of a wide residual network in double precision, over oracle.h, rounding where the
// program rounds: in bf16 whatever is stored between layers, forward and backward, and in tf32 what
// convolutions multiply. What then remains between the two is fp32 arithmetic, and the elements
// that it pushes over to the neighbouring bf16.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/bf16.h"
#include "models/wide_resnet.h"
#include "oracle.h"

namespace wrn::test {

class ReferenceNet {
 public:
  using Values = oracle::Values;

  /// `fused`: whether it rounds as the fused ops do: any sum, forward and backward, but once.
  ReferenceNet(const WideResNetSpec& spec, Precision precision, bool fused)
      : spec_(spec), precision_(precision), fused_(fused) {}

  /// Goes on from the weights and momentum of a model, which has no dropout.
  void take_over(const Parameters& parameters) {
    const auto to_double = [](const Tensor& x) {
      const std::vector<float> values = x.read<float>();
      return Values(values.begin(), values.end());
    };
    for (const Parameter& parameter : parameters.all()) {
      weights_[parameter.name()] = to_double(parameter.value);
      momenta_[parameter.name()] = to_double(parameter.momentum);
      shapes_[parameter.name()] = parameter.value.shape();
    }
  }

  /// One step of SGD on images [n,32,32,3], which are normalised already. Returns the loss.
  double step(const std::vector<float>& images, const std::vector<std::int32_t>& labels,
              const StepState& s) {
    gradients_.clear();
    backward_.clear();
    const Image x =
        image(stored({images.begin(), images.end()}), static_cast<int>(labels.size()), 32, 3);
    const double loss = forward(x, labels);
    for (; !backward_.empty(); backward_.pop_back()) backward_.back()();
    for (auto& [name, w] : weights_) {
      for (std::size_t i = 0; i < w.size(); ++i) {
        const double g = gradients_.at(name)[i] + double{s.weight_decay} * w[i];
        double& m = momenta_.at(name)[i];
        m = double{s.momentum} * m + g;
        w[i] -= double{s.learning_rate} * (g + double{s.momentum} * m);
      }
    }
    return loss;
  }

  const Values& weights(const std::string& name) const { return weights_.at(name); }
  /// Of the last step.
  const Values& gradients(const std::string& name) const { return gradients_.at(name); }

 private:
  struct Node {
    Values value, gradient;
    int n, side, channels;
  };
  using Image = std::shared_ptr<Node>;

  static double to_bf16_value(double x) { return to_float(to_bf16(static_cast<float>(x))); }
  /// The nearest of 11 significant bits, of two the one further from zero.
  static double to_tf32_value(double x) {
    if (x == 0) return 0;
    const int shift = 10 - std::ilogb(x);
    return std::ldexp(std::round(std::ldexp(x, shift)), -shift);
  }
  Values stored(Values x) const {
    for (double& value : x) value = precision_ == Precision::kBf16 ? to_bf16_value(value) : value;
    return x;
  }
  Values operand(Values x) const {
    if (precision_ == Precision::kBf16) return stored(std::move(x));
    for (double& value : x) value = precision_ == Precision::kTf32 ? to_tf32_value(value) : value;
    return x;
  }

  static Image image(Values value, int n, int side, int channels) {
    return std::make_shared<Node>(Node{std::move(value), {}, n, side, channels});
  }
  void add_gradient(const Image& x, Values part) const {
    if (!fused_) part = stored(std::move(part));
    x->gradient = x->gradient.empty() ? part : oracle::add(std::move(x->gradient), part);
    if (!fused_) x->gradient = stored(std::move(x->gradient));
  }
  void add_gradient(const std::string& parameter, const Values& part) {
    gradients_[parameter] = part;  // each is used once
  }

  /// `residual`: what is added before y is stored, or nothing. `folded`: y is added to another's.
  Image conv(const Image& x, const std::string& layer, int stride, const Values& residual = {},
             bool folded = false) {
    const std::string name = layer + ".weight";
    const Shape& w = shapes_.at(name);
    const ConvShape shape{
        x->n,  x->side, x->side, x->channels, static_cast<int>(w[0]), static_cast<int>(w[1]),
        stride};
    const Values filters = operand(weights_.at(name));
    Values value = oracle::conv(operand(x->value), filters, shape);
    if (!residual.empty()) value = oracle::add(std::move(value), residual);
    if (!folded) value = stored(std::move(value));
    const Image y = image(std::move(value), x->n, shape.p(), shape.k);
    backward_.push_back([=, this] {
      const Values dy = operand(y->gradient);
      add_gradient(name, oracle::conv_wgrad(operand(x->value), dy, shape));
      if (layer != "conv1") add_gradient(x, oracle::conv_dgrad(dy, filters, shape));
    });
    return y;
  }

  Image batch_norm_relu(const Image& x, const std::string& layer) {
    const Values gamma = weights_.at(layer + ".weight"), beta = weights_.at(layer + ".bias");
    const oracle::Statistics statistics = oracle::statistics(x->value, gamma.size());
    const Image y =
        image(stored(oracle::relu(oracle::normalise(x->value, statistics, gamma, beta))), x->n,
              x->side, x->channels);
    backward_.push_back([=, this] {
      Values dy = stored(y->gradient);
      for (std::size_t i = 0; i < dy.size(); ++i) dy[i] = y->value[i] > 0 ? dy[i] : 0;
      const oracle::NormGradient g = oracle::batch_norm_gradient(x->value, dy, statistics, gamma);
      add_gradient(layer + ".weight", g.dgamma);
      add_gradient(layer + ".bias", g.dbeta);
      add_gradient(x, g.dx);
    });
    return y;
  }

  Image block(const Image& x, const std::string& name, int stride) {
    const bool projects = weights_.contains(name + ".convShortcut.weight");
    Image h = x, shortcut = x;
    for (std::size_t i = 1; i <= spec_.kernels.size(); ++i) {
      h = batch_norm_relu(h, fmt::format("{}.bn{}", name, i));
      if (i == 1 && projects) shortcut = conv(h, name + ".convShortcut", stride, {}, fused_);
      const bool adds = fused_ && i == spec_.kernels.size();
      h = conv(h, fmt::format("{}.conv{}", name, i), i == 1 ? stride : 1,
               adds ? shortcut->value : Values());
    }
    const Image y =
        fused_ ? h
               : image(stored(oracle::add(h->value, shortcut->value)), h->n, h->side, h->channels);
    backward_.push_back([=, this] {
      if (!fused_) add_gradient(h, y->gradient);
      add_gradient(shortcut, stored(y->gradient));
    });
    return y;
  }

  /// The whole network and its loss; the average pool and what follows is fp32.
  double forward(const Image& images, const std::vector<std::int32_t>& labels) {
    Image h = conv(images, "conv1", 1);
    for (int group = 0; group < 3; ++group) {
      for (int i = 0; i < spec_.blocks(); ++i) {
        h = block(h, fmt::format("block{}.layer.{}", group + 1, i), group > 0 && i == 0 ? 2 : 1);
      }
    }
    h = batch_norm_relu(h, "bn1");
    const PoolShape pool{h->n, h->side, h->side, h->channels, h->side};
    const Values features = oracle::average_pool(h->value, pool);
    const Values &w = weights_.at("fc.weight"), &b = weights_.at("fc.bias");
    const Values logits = oracle::linear(features, w, b);
    const Values d = oracle::cross_entropy_gradient(logits, labels);
    Values dw(w.size()), db(b.size()), dfeatures(features.size());
    const std::size_t in = w.size() / b.size(), pixels = h->value.size() / features.size();
    for (std::size_t row = 0; row < labels.size(); ++row)
      for (std::size_t k = 0; k < b.size(); ++k) {
        db[k] += d[row * b.size() + k];
        for (std::size_t i = 0; i < in; ++i) {
          dw[k * in + i] += d[row * b.size() + k] * features[row * in + i];
          dfeatures[row * in + i] += d[row * b.size() + k] * w[k * in + i];
        }
      }
    add_gradient("fc.weight", dw);
    add_gradient("fc.bias", db);
    Values dh(h->value.size());
    for (std::size_t i = 0; i < dh.size(); ++i) {
      dh[i] = dfeatures[i / (pixels * in) * in + i % in] / static_cast<double>(pixels);
    }
    add_gradient(h, dh);
    return oracle::cross_entropy(logits, labels);
  }

  WideResNetSpec spec_;
  Precision precision_;
  bool fused_;
  std::map<std::string, Values> weights_, gradients_, momenta_;
  std::map<std::string, Shape> shapes_;
  std::vector<std::function<void()>> backward_;
};

}  // namespace wrn::test
