// Times what is launched: on a GPU, where launchers return before it is done, by events.
#pragma once

#include <memory>
#include <vector>

#include "kernels/context.h"

namespace wrn {

class Stopwatch {
 public:
  virtual ~Stopwatch() = default;
  /// Notes the moment when all that was launched so far is done. On a GPU nothing waits for it.
  virtual void mark() = 0;
  /// The seconds between each mark and the next, for which it waits. Forgets the marks.
  virtual std::vector<double> laps() = 0;
  /// Leaves nothing in a GPU's L2 cache that was there before.
  virtual void flush_cache() = 0;
};

std::unique_ptr<Stopwatch> make_stopwatch(Context&);

namespace cuda {
std::unique_ptr<Stopwatch> make_stopwatch(Context&);
/// 0 where the GPU has another compute capability than 9.0.
int hopper_multiprocessors(Context&);
}  // namespace cuda

}  // namespace wrn
