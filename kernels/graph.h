// A CUDA graph: a sequence of launches recorded once and replayed as one. Free of CUDA's headers.
#pragma once

#include <functional>
#include <memory>

#include "kernels/context.h"

namespace wrn::cuda {

class Graph {
 public:
  /// Records what `launch_all` puts into the context's stream; nothing runs yet. The addresses
  /// given to the launches must stay as they are for as long as the graph is replayed.
  Graph(const std::function<void()>& launch_all, Context&);
  /// Puts a replay of it into the context's stream.
  void launch(Context&) const;

 private:
  std::shared_ptr<void> executable_;
};

/// Names what is launched while it lives, for profilers that read NVTX ranges.
class Range {
 public:
  explicit Range(const char* name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace wrn::cuda
