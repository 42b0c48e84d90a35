// A recorded Program: the list of steps, each tensor's place in the arena, and the loop that runs
// it.
#pragma once

#include <vector>

#include "engine/tape.h"
#include "kernels/graph.h"

namespace wrn {

enum class Placing {
  kShared,    // memory is shared between tensors whose lifetimes do not meet
  kSeparate,  // every tensor has memory of its own: the test's yardstick
};

class Program {
 public:
  explicit Program(std::vector<Step> steps, Placing placing = Placing::kShared);
  // Moved, not copied: a tensor has one address.
  Program(Program&&) = default;
  Program& operator=(Program&&) = default;

  const std::vector<Step>& steps() const { return steps_; }
  /// The same steps with the tensors placed anew.
  Program placed(Placing placing) && { return Program(std::move(steps_), placing); }
  /// Bytes of the arena that bind() needs, 64-byte aligned.
  std::size_t arena_bytes() const { return arena_bytes_; }
  /// Gives every planned tensor its address. Several Programs may share one arena, in turns.
  void bind(std::byte* arena);
  /// Bytes of the arena that the forward pass keeps for the backward pass, and those of the largest
  /// workspace.
  std::size_t saved_bytes() const { return saved_bytes_; }
  std::size_t workspace_bytes() const { return workspace_bytes_; }
  /// On CUDA, lets run() replay all steps as one CUDA graph: the first run launches them one by
  /// one, which also loads every kernel, and the second records them. Elsewhere it changes nothing.
  void use_graph() { use_graph_ = true; }
  /// Runs all steps of a Program that is bound. Allocates no memory of the device. On CUDA it
  /// returns before they are done.
  void run(Context& context);
  /// Runs steps()[i] alone, on what the steps before it left, as benchmarks do.
  void run_step(std::size_t i, Context& context);

  /// The content of an f32 or bf16 tensor after a run: a persistent one, or one that the tape was
  /// told to keep; throws for any other, because its memory has been given away.
  std::vector<float> read(const Tensor& x) const;

 private:
  std::vector<Step> steps_;
  std::vector<std::pair<Tensor, std::size_t>> offsets_;
  std::vector<std::size_t> workspace_offsets_;  // by step
  std::size_t arena_bytes_ = 0, saved_bytes_ = 0, workspace_bytes_ = 0;
  std::byte* arena_ = nullptr;
  bool use_graph_ = false, has_run_ = false;
  std::shared_ptr<const cuda::Graph> graph_;
};

}  // namespace wrn
