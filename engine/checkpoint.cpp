#include "engine/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace wrn {
namespace {

constexpr std::string_view kMomentum = "optimizer.";
constexpr std::string_view kWhitening = "whitening.";  // of the images, not of the model
constexpr std::string_view kBatches = ".num_batches_tracked";

/// The shape in the file: [k,r,s,c] becomes [k,c,r,s].
Shape file_shape(const Tensor& x) {
  const Shape& s = x.shape();
  return s.size() == 4 ? Shape{s[0], s[3], s[1], s[2]} : s;
}

/// Calls copy(our element, the file's element) for every element.
template <typename Copy>
void for_each_element(const Tensor& x, Copy copy) {
  if (x.shape().size() != 4) {
    for (std::int64_t i = 0; i < x.size(); ++i) copy(i, i);
    return;
  }
  const std::int64_t taps = x.dim(1) * x.dim(2), c = x.dim(3);
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const std::int64_t k = i / (taps * c), tap = i / c % taps, channel = i % c;
    copy(i, (k * c + channel) * taps + tap);
  }
}

struct Named {
  std::string name;
  Tensor tensor;
};

std::vector<Named> tensors_of(const Parameters& parameters, bool optimiser) {
  std::vector<Named> all;
  for (const Parameter& p : parameters.all()) all.push_back({p.name(), p.value});
  for (const Tensor& buffer : parameters.buffers()) all.push_back({buffer.name(), buffer});
  if (optimiser) {
    for (const Parameter& p : parameters.all()) {
      all.push_back({std::string(kMomentum) + p.name(), p.momentum});
    }
  }
  return all;
}

}  // namespace

void export_state(const Parameters& parameters, std::int64_t batches, bool optimiser,
                  Safetensors& file) {
  std::vector<float> values;
  for (const auto& [name, tensor] : tensors_of(parameters, optimiser)) {
    values.resize(static_cast<std::size_t>(tensor.size()));
    const std::vector<float> from = tensor.read<float>();
    for_each_element(tensor, [&](std::int64_t ours, std::int64_t theirs) {
      values[static_cast<std::size_t>(theirs)] = from[static_cast<std::size_t>(ours)];
    });
    file.tensors.emplace_back(
        name, SafetensorsEntry::make<float>(file_shape(tensor), std::span<const float>(values)));
    constexpr std::string_view kLast = ".running_var";
    if (name.ends_with(kLast)) {
      const std::string layer = name.substr(0, name.size() - kLast.size());
      file.tensors.emplace_back(
          layer + std::string(kBatches),
          SafetensorsEntry::make<std::int64_t>({}, std::span<const std::int64_t>(&batches, 1)));
    }
  }
}

void import_state(const Safetensors& file, bool optimiser, const Parameters& parameters) {
  const std::vector<Named> wanted = tensors_of(parameters, optimiser);
  std::set<std::string_view> names;
  for (const auto& [name, tensor] : wanted) {
    names.insert(name);
    const SafetensorsEntry& entry = file.at(name);
    if (entry.shape != file_shape(tensor)) {
      fail("{}: {} has the shape {}, this model needs {}", file.file.string(), name,
           to_string(entry.shape), to_string(file_shape(tensor)));
    }
    if (!std::ranges::all_of(entry.as<float>(), [](float x) { return std::isfinite(x); })) {
      throw Error(
          fmt::format("{}: {} is not finite: the weights are ruined", file.file.string(), name),
          Status::kNotFinite);
    }
  }
  for (const auto& [name, entry] : file.tensors) {
    if (!names.contains(name) && !name.starts_with(kMomentum) && !name.starts_with(kWhitening) &&
        !name.ends_with(kBatches)) {
      fail("{}: this model has no {}", file.file.string(), name);
    }
  }
  for (const auto& [name, tensor] : wanted) {
    const std::span<const float> from = file.at(name).as<float>();
    std::vector<float> to(static_cast<std::size_t>(tensor.size()));
    for_each_element(tensor, [&](std::int64_t ours, std::int64_t theirs) {
      to[static_cast<std::size_t>(ours)] = from[static_cast<std::size_t>(theirs)];
    });
    tensor.write<float>(to);
  }
  parameters.sync_copies();
}

}  // namespace wrn
