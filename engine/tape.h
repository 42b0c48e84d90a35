// The tape: a model runs on it once, and what comes out is a Program.
//
// Nothing is computed while recording. An op makes its output tensors, appends a Step that will
// launch its kernel, and leaves a closure that will append the steps of its backward pass.
// backward() calls those closures in reverse. The finished list of steps is the Program: what the
// planner gives memory to, what is run, and what is counted.
//
// The list is in static single assignment: a planned tensor is written by one step. A sum of
// gradients is a new tensor, not an update; that its memory is the old one's is the planner's doing
// (Step::in_place). So what a step does to each tensor can be read off it: a planned tensor in
// `writes` is overwritten; a persistent one in `writes` is overwritten, or, if it is in `reads`
// too, accumulated into.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/tensor.h"
#include "kernels/fused.h"

namespace wrn {

enum class Mode { kTraining, kInference };
enum class Phase { kForward, kBackward, kOptimiser };

/// A convolution: what tiles it is cut into follows from it.
struct ConvWork {
  ConvProduct product;
  ConvShape shape;
  bool sums_columns = false;                 // of what it writes, in its epilogue
  std::optional<ConvShape> projection = {};  // added to it
};

struct Step {
  std::string name;
  std::vector<Tensor> reads = {}, writes = {};
  /// (written, read): the kernel allows both to have one address.
  std::vector<std::pair<Tensor, Tensor>> in_place = {};
  std::size_t workspace = 0;          // bytes of Context::workspace
  std::int64_t macs = 0;              // multiply-adds of a matrix product
  std::optional<ConvWork> conv = {};  // where that is a convolution
  /// Bytes it moves beyond every tensor of `reads` and `writes` once: those it reads a second time,
  /// less those of a large one that it does not touch.
  std::int64_t extra_bytes = 0;
  std::function<void(Context&)> run = {};
  // Set by the tape:
  Phase phase = Phase::kForward;
  std::string part = {};  // of the network: a block, or what comes before or after the blocks

  std::int64_t bytes() const;  // moved
};

/// The persistent structs that every Program of a run shares.
struct RunState {
  RunState(Device device = Device::kCpu)
      : step(Tensor::of_struct<StepState>("step state", device)),
        metrics(Tensor::of_struct<Metrics>("metrics", device)) {}
  Tensor step, metrics;
};

class Program;

/// The statistics of a batch norm, [channels] each: those of a batch of `rows` rows, and the
/// running ones.
struct RunningUpdate {
  Tensor mean, variance, running_mean, running_variance;
  std::int64_t rows;
  float momentum;
};

/// Calls a launcher of Reals: `Real` is the element type of the tensor x, on the CPU always float.
/// WRN_ON_REAL(x, context, relu_forward(x.data<Real>(), y.data<Real>(), x.size(), context))
#define WRN_ON_REAL(x, context, ...)                                                        \
  ([&] {                                                                                    \
    if constexpr (::wrn::kHasCuda) {                                                        \
      if ((context).device() == ::wrn::Device::kCuda) WRN_RETURN_CUDA_REAL(x, __VA_ARGS__); \
    }                                                                                       \
    using Real = float;                                                                     \
    return ::wrn::cpu::__VA_ARGS__;                                                         \
  }())

/// The same for a launcher of fused.h, which only CUDA has. On the CPU such a step may be recorded
/// for a plan, but running it is an Error.
#define WRN_ON_CUDA_REAL(x, context, ...)                                             \
  ([&] {                                                                              \
    WRN_CHECK((context).device() == ::wrn::Device::kCuda, "a fused step on the CPU"); \
    if constexpr (::wrn::kHasCuda) WRN_RETURN_CUDA_REAL(x, __VA_ARGS__);              \
  }())

#define WRN_RETURN_CUDA_REAL(x, ...)          \
  {                                           \
    if ((x).dtype() == ::wrn::DType::kBF16) { \
      using Real = ::wrn::bf16;               \
      return ::wrn::cuda::__VA_ARGS__;        \
    }                                         \
    using Real = float;                       \
    return ::wrn::cuda::__VA_ARGS__;          \
  }

class Tape {
 public:
  /// The Context is asked for workspace sizes; nothing is launched.
  Tape(Mode mode, const RunState& state, Context& context)
      : mode_(mode), state_(state), context_(context) {}
  Tape(const Tape&) = delete;  // closures hold its address
  Tape& operator=(const Tape&) = delete;

  bool training() const { return mode_ == Mode::kTraining; }
  Context& context() const { return context_; }
  /// Of what flows between layers, up to the average pool; what follows it is f32.
  DType image_dtype() const {
    return context_.precision() == Precision::kBf16 ? DType::kBF16 : DType::kF32;
  }
  const RunState& state() const { return state_; }

  // --- For ops ---------------------------------------------------------------------------------
  /// A new planned tensor, which one step is to write.
  Tensor make(const std::string& name, const Shape& shape, DType dtype = DType::kF32);
  /// Appends a step. Throws if it reads what was not written, writes what was, or touches a tensor
  /// of another tape or device. What it writes needs a gradient if something it reads does.
  void step(Step step);
  /// In training, the running statistics follow those of the batch after the backward pass, if the
  /// loss is finite, for all norms in one step.
  void update_running_statistics(const RunningUpdate& update);
  /// `closure` will be called by backward(), latest first. Throws behind backward().
  void on_backward(std::function<void()> closure);

  bool needs_gradient(const Tensor& x) const { return training() && x.info_->needs_gradient; }
  /// The gradient gathered so far, or no tensor.
  Tensor gradient(const Tensor& x) const;
  /// A tensor for a step to write (a part of) x's gradient to; to be handed to add_gradient().
  Tensor make_gradient(const Tensor& x);
  /// Adds `part` to x's gradient. The first part becomes the gradient; a later one takes a step.
  void add_gradient(const Tensor& x, const Tensor& part);
  /// Takes `whole` for x's gradient: whoever computed it has added to it what was gathered so far.
  void replace_gradient(const Tensor& x, const Tensor& whole);

  // --- For models and trainers -----------------------------------------------------------------
  /// Names the part of the network to which the following steps and their backward steps belong.
  void begin_part(const std::string& name) { part_ = name; }
  /// Records the backward pass of `output`: a loss, or with `seed` (output's gradient) any tensor.
  void backward(const Tensor& output, const Tensor& seed = {});
  /// Keeps a planned tensor's content until the end of the run, for Program::read(). Throws behind
  /// finish().
  void keep(const Tensor& x);
  /// Throws if backward() did not leave this parameter's gradient in its slab.
  void check_gradient(const Tensor& parameter) const;
  /// Ends the tape. It takes no more steps.
  Program finish();

 private:
  void check_gradient_of(const Tensor& x, const Tensor& part) const;
  void check_usable(const Tensor& x, const std::string& step) const;

  Mode mode_;
  RunState state_;
  Context& context_;
  std::shared_ptr<const void> identity_ = std::make_shared<char>();
  std::vector<Step> steps_;
  std::vector<RunningUpdate> running_updates_;
  std::vector<std::function<void()>> closures_;
  std::unordered_map<const void*, Tensor> gradients_;  // by Tensor::info_
  Phase phase_ = Phase::kForward;
  std::string part_ = "input";
  bool finished_ = false;
};

}  // namespace wrn
