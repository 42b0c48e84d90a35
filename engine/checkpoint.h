// A model's state as named safetensors entries, in the names and layouts of the common PyTorch
// port: convolutions OIHW (ours are KRSC, the same data in another order), momentum under
// "optimizer.", and a num_batches_tracked for each batch norm, so that PyTorch loads the weights
// with strict=True.
#pragma once

#include "engine/parameters.h"
#include "engine/safetensors.h"

namespace wrn {

/// Appends the weights and running statistics to `file`; with `optimiser` the momentum too.
/// `batches`: how many steps have been trained.
void export_state(const Parameters&, std::int64_t batches, bool optimiser, Safetensors& file);

/// Reads them back, checking everything before changing anything. Throws an Error that names the
/// file and the tensor where one is missing, unknown, or of another shape or dtype.
void import_state(const Safetensors& file, bool optimiser, const Parameters&);

}  // namespace wrn
