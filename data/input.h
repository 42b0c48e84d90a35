// The data set on the device, and the step that turns rows of it into the network's input.
#pragma once

#include "data/dataset.h"
#include "data/whitening.h"
#include "engine/tape.h"
#include "kernels/kernels.h"

namespace wrn {

/// Training and test images behind one another, resident on the device: images [n,32,32,3] as
/// bytes, or as f32 where they are whitened, and labels [n].
struct ResidentData {
  Tensor images, labels;
  std::int64_t train_size = 0;  // the test images' indices start here

  ResidentData(const Dataset& train, const Dataset& test, Device device);
  /// Whitened; there is never a second copy of the floats.
  ResidentData(const Dataset& train, const Dataset& test, const Whitening&, Context&);

 private:
  ResidentData(const Dataset& train, const Dataset& test, DType images, Device device);
};

/// Which images a Program works on, and how it sees them.
struct Input {
  Tensor order;  // i32 [n], persistent: the images' indices; negative = padding
  int rows;      // of a batch: those of `order` from StepState::first on
  Normalisation normalisation;
  bool augment = false;
};

struct Batch {
  Tensor images;  // [rows,32,32,3]
  Tensor labels;  // i32 [rows], -1 where there is no image
};

/// The first step of every Program: gather, augment, normalise.
Batch load_images(Tape&, const ResidentData&, const Input&);

}  // namespace wrn
