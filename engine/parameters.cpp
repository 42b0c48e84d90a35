#include "engine/parameters.h"

namespace wrn {

Parameters::Parameters(const std::vector<ParameterSpec>& parameters,
                       const std::vector<ParameterSpec>& buffers, Device device) {
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
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, shape] = parameters[i];
    all_.push_back({Tensor::slice(name, shape, values_, offsets[i]),
                    Tensor::slice("d " + name, shape, gradients_, offsets[i]),
                    Tensor::slice("momentum of " + name, shape, momenta_, offsets[i])});
    all_.back().value.set_parameter_gradient(all_.back().gradient);
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

std::int64_t Parameters::count() const {
  std::int64_t total = 0;
  for (const Parameter& parameter : all_) total += parameter.value.size();
  return total;
}

}  // namespace wrn
