// What every op checks of its arguments.
#pragma once

#include "engine/tape.h"

namespace wrn {

inline void check_f32(const char* op, const Tensor& x, std::size_t rank) {
  WRN_CHECK(x, "{}: a tensor is missing", op);
  WRN_CHECK(x.dtype() == DType::kF32, "{}: {} is {}", op, x.name(), name_of(x.dtype()));
  WRN_CHECK(x.shape().size() == rank, "{}: {} has the shape {}", op, x.name(),
            to_string(x.shape()));
}

/// What flows between layers: f32 or bf16, as the tape's precision has it.
inline void check_image(const char* op, const Tape& tape, const Tensor& x) {
  WRN_CHECK(x, "{}: a tensor is missing", op);
  WRN_CHECK(x.dtype() == tape.image_dtype(), "{}: {} is {} and not {}, as precision {} has it", op,
            x.name(), name_of(x.dtype()), name_of(tape.image_dtype()),
            name_of(tape.context().precision()));
  WRN_CHECK(!x.shape().empty() && x.dim(0) > 0, "{}: {} has no rows", op, x.name());
}

inline void check_image(const char* op, const Tape& tape, const Tensor& x, std::size_t rank) {
  check_image(op, tape, x);
  WRN_CHECK(x.shape().size() == rank, "{}: {} has the shape {}", op, x.name(),
            to_string(x.shape()));
}

inline void check_shape(const char* op, const Tensor& x, const Shape& shape) {
  WRN_CHECK(x, "{}: a tensor is missing", op);
  WRN_CHECK(x.shape() == shape, "{}: {} has the shape {} and not {}", op, x.name(),
            to_string(x.shape()), to_string(shape));
}

/// "block1.layer.0.conv1" of "block1.layer.0.conv1.weight": a parameter's layer.
inline std::string layer_of(const Tensor& parameter) {
  return parameter.name().substr(0, parameter.name().rfind('.'));
}

}  // namespace wrn
