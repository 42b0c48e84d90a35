#include "engine/parameters.h"

#include <algorithm>

#include "kernels/bf16.h"

namespace wrn {

Parameters::Parameters(const std::vector<ParameterSpec>& parameters,
                       const std::vector<ParameterSpec>& buffers, Device device,
                       Precision precision) {
  constexpr std::int64_t kAlignment = 64;  // elements: 256 bytes in fp32, 128 in bf16
  std::vector<std::int64_t> offsets(parameters.size());
  std::int64_t size = 0;
  for (std::size_t i = parameters.size(); i-- > 0;) {
    std::int64_t elements = 1;
    for (const std::int64_t extent : parameters[i].shape) elements *= extent;
    offsets[i] = size;
    size += (elements + kAlignment - 1) / kAlignment * kAlignment;
  }
  values_ = Tensor::persistent("weights", {size}, DType::kF32, device);
  gradients_ = Tensor::persistent("gradients", {size}, DType::kF32, device);
  momenta_ = Tensor::persistent("momentum", {size}, DType::kF32, device);
  if (precision == Precision::kBf16) {
    bf16_copies_ = Tensor::persistent("bf16 copies", {size}, DType::kBF16, device);
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, shape] = parameters[i];
    all_.push_back({Tensor::slice(name, shape, values_, offsets[i]),
                    Tensor::slice("d " + name, shape, gradients_, offsets[i]),
                    Tensor::slice("momentum of " + name, shape, momenta_, offsets[i])});
    const Tensor& value = all_.back().value;
    value.set_parameter_gradient(all_.back().gradient);
    if (bf16_copies_ && shape.size() == 4) {
      value.set_bf16_copy(Tensor::slice(name + " in bf16", shape, bf16_copies_, offsets[i]));
    }
  }
  for (const auto& [name, shape] : buffers) {
    buffers_.push_back(Tensor::persistent(name, shape, DType::kF32, device));
  }
}

Tensor Parameters::at(const std::string& name) const {
  for (const Parameter& parameter : all_) {
    if (parameter.name() == name) return parameter.value;
  }
  for (const Tensor& buffer : buffers_) {
    if (buffer.name() == name) return buffer;
  }
  fail("the model has no parameter {}", name);
}

void Parameters::sync_copies() const {
  if (!bf16_copies_) return;
  const std::vector<float> values = values_.read<float>();
  std::vector<bf16> copies(values.size());
  std::transform(values.begin(), values.end(), copies.begin(), to_bf16);
  bf16_copies_.write<bf16>(copies);
}

std::size_t Parameters::bytes() const {
  std::size_t sum = 0;
  for (const Tensor& slab : {values_, gradients_, momenta_, bf16_copies_}) {
    if (slab) sum += slab.bytes();
  }
  for (const Tensor& buffer : buffers_) sum += buffer.bytes();
  return sum;
}

std::int64_t Parameters::count() const {
  std::int64_t total = 0;
  for (const Parameter& parameter : all_) total += parameter.value.size();
  return total;
}

}  // namespace wrn
