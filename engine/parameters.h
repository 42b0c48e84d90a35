// The state of a model: its parameters and its buffers (running statistics), by name.
//
// The weights, gradients and momentum of all parameters lie in one slab each, so that the optimiser
// is one launch. In the slabs the parameters stand in backward order, last layer first: gradients
// become final front to back, so that a later all-reduce can be over slices of the slab.
//
// A model that computes in bf16 has a fourth slab, of bf16 copies, because the tensor cores take
// their operands as they lie in memory. Only the convolutions' filters are handed out from it: a
// batch norm's parameters and the linear layer's are read by fp32 arithmetic, and rounding them
// would save less than a thousandth of a step's traffic. The slab has their places all the same, so
// that the optimiser writes it in the pass in which it updates the values.
#pragma once

#include <string>
#include <vector>

#include "engine/tensor.h"

namespace wrn {

struct Parameter {
  Tensor value, gradient, momentum;
  const std::string& name() const { return value.name(); }
};

/// What a model asks for: a name as in the PyTorch port, and a shape in our layout.
struct ParameterSpec {
  std::string name;
  Shape shape;
};

class Parameters {
 public:
  /// `parameters` in forward order; `buffers` likewise.
  Parameters(const std::vector<ParameterSpec>& parameters,
             const std::vector<ParameterSpec>& buffers, Device device,
             Precision precision = Precision::kFp32);

  /// In forward order.
  const std::vector<Parameter>& all() const { return all_; }
  const std::vector<Tensor>& buffers() const { return buffers_; }
  /// The value of a parameter, or a buffer; throws if there is none of that name.
  Tensor at(const std::string& name) const;
  std::int64_t count() const;
  /// Of all slabs and buffers.
  std::size_t bytes() const;

  /// [slab size]; the parts between parameters are padding and stay zero.
  const Tensor& values() const { return values_; }
  const Tensor& gradients() const { return gradients_; }
  const Tensor& momenta() const { return momenta_; }
  /// No tensor unless the precision is bf16.
  const Tensor& bf16_copies() const { return bf16_copies_; }
  /// Whoever writes values from the host, and not by the optimiser, ends with this.
  void sync_copies() const;

 private:
  std::vector<Parameter> all_;
  std::vector<Tensor> buffers_;
  Tensor values_, gradients_, momenta_, bf16_copies_;
};

}  // namespace wrn
