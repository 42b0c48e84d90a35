#include "engine/tape.h"

#include "engine/program.h"

namespace wrn {

std::int64_t Step::bytes() const {
  std::int64_t sum = extra_bytes;
  for (const auto* list : {&reads, &writes}) {
    for (const Tensor& x : *list) sum += static_cast<std::int64_t>(x.bytes());
  }
  return sum;
}

Tensor Tape::make(const std::string& name, const Shape& shape, DType dtype) {
  Tensor tensor;
  tensor.info_ = std::make_shared<Tensor::Info>();
  tensor.info_->name = name;
  tensor.info_->shape = shape;
  tensor.info_->dtype = dtype;
  tensor.info_->device = context_.device();
  tensor.info_->tape = identity_;
  return tensor;
}

void Tape::check_usable(const Tensor& x, const std::string& step) const {
  WRN_CHECK(x, "{}: a tensor is missing", step);
  WRN_CHECK(x.device() == context_.device(), "{}: {} is on another device", step, x.name());
  if (x.is_persistent()) return;
  WRN_CHECK(x.info_->tape == identity_, "{}: {} belongs to another tape, its lifetime is over",
            step, x.name());
}

void Tape::step(Step step) {
  WRN_CHECK(!finished_, "{}: the tape is finished and takes no more steps", step.name);
  bool needs_gradient = false;
  for (const Tensor& x : step.reads) {
    check_usable(x, step.name);
    WRN_CHECK(x.is_persistent() || x.info_->written, "{} reads {}, which no step has written",
              step.name, x.name());
    needs_gradient = needs_gradient || x.info_->needs_gradient;
  }
  for (const Tensor& y : step.writes) {
    check_usable(y, step.name);
    if (y.is_persistent()) continue;
    WRN_CHECK(!y.info_->written, "{} writes {}, which has been written", step.name, y.name());
    y.info_->written = true;
    y.info_->needs_gradient = needs_gradient;
  }
  step.phase = phase_;
  step.part = part_;
  steps_.push_back(std::move(step));
}

void Tape::update_running_statistics(const RunningUpdate& update) {
  if (!training()) return;
  for (const RunningUpdate& other : running_updates_) {
    WRN_CHECK(other.running_mean.info_ != update.running_mean.info_,
              "{} is updated twice on one tape", update.running_mean.name());
  }
  running_updates_.push_back(update);
}

void Tape::on_backward(std::function<void()> closure) {
  if (!training()) return;
  WRN_CHECK(phase_ == Phase::kForward, "an op behind the backward pass, which leaves it out");
  closures_.push_back([this, part = part_, closure = std::move(closure)] {
    part_ = part;
    closure();
  });
}

Tensor Tape::gradient(const Tensor& x) const {
  const auto found = gradients_.find(x.info_.get());
  return found == gradients_.end() ? Tensor() : found->second;
}

Tensor Tape::make_gradient(const Tensor& x) {
  if (x.info_->parameter_gradient != nullptr && !gradient(x)) {
    Tensor tensor;
    tensor.info_ = x.info_->parameter_gradient;
    return tensor;
  }
  return make("d " + x.name(), x.shape(), x.dtype());
}

void Tape::check_gradient_of(const Tensor& x, const Tensor& part) const {
  WRN_CHECK(part.shape() == x.shape() && part.dtype() == x.dtype(), "a gradient {} {} for {} {} {}",
            name_of(part.dtype()), to_string(part.shape()), x.name(), name_of(x.dtype()),
            to_string(x.shape()));
}

void Tape::replace_gradient(const Tensor& x, const Tensor& whole) {
  check_gradient_of(x, whole);
  gradients_.insert_or_assign(x.info_.get(), whole);
}

void Tape::add_gradient(const Tensor& x, const Tensor& part) {
  check_gradient_of(x, part);
  const Tensor before = gradient(x);
  if (!before) {
    gradients_.emplace(x.info_.get(), part);
    return;
  }
  // A parameter's sum belongs in its slab; any other tensor may be somebody else's gradient too.
  const bool in_slab = before.info_ == x.info_->parameter_gradient;
  const Tensor sum = in_slab ? before : make("d " + x.name(), x.shape(), x.dtype());
  step({.name = x.name() + " gradient sum",
        .reads = {before, part},
        .writes = {sum},
        .in_place = {{sum, before}, {sum, part}},
        .run = [=](Context& context) {
          WRN_ON_REAL(
              sum, context,
              add(before.data<Real>(), part.data<Real>(), sum.data<Real>(), sum.size(), context));
        }});
  gradients_[x.info_.get()] = sum;
}

void Tape::backward(const Tensor& output, const Tensor& seed) {
  WRN_CHECK(training(), "backward on a tape that records inference");
  WRN_CHECK(phase_ == Phase::kForward, "a second backward on one tape");
  check_usable(output, "backward");
  phase_ = Phase::kBackward;
  if (seed) add_gradient(output, seed);
  // Taking each closure off frees what it holds as the pass proceeds.
  for (; !closures_.empty(); closures_.pop_back()) closures_.back()();
  phase_ = Phase::kOptimiser;
  part_ = "optimiser";
  if (running_updates_.empty()) return;
  const Tensor metrics = state_.metrics;
  Step update{.name = "running statistics", .reads = {metrics}};
  for (const RunningUpdate& norm : running_updates_) {
    for (const Tensor& x : {norm.mean, norm.variance}) update.reads.push_back(x);
    for (const Tensor& x : {norm.running_mean, norm.running_variance}) {
      update.reads.push_back(x);
      update.writes.push_back(x);
    }
  }
  update.run = [norms = std::move(running_updates_), metrics](Context& context) {
    std::vector<RunningStatistics> all;
    for (const auto& [mean, variance, running_mean, running_variance, rows, momentum] : norms) {
      all.push_back({mean.data<float>(), variance.data<float>(), running_mean.data<float>(),
                     running_variance.data<float>(), static_cast<int>(mean.size()), rows,
                     momentum});
    }
    WRN_ON(context, update_running_statistics(all, metrics.data<Metrics>(), context));
  };
  step(std::move(update));
}

void Tape::keep(const Tensor& x) {
  WRN_CHECK(!finished_, "the tape is finished, and memory is given away");
  check_usable(x, "keep");
  x.info_->kept = true;
}

void Tape::check_gradient(const Tensor& parameter) const {
  const Tensor found = gradient(parameter);
  WRN_CHECK(found && found.info_ == parameter.info_->parameter_gradient,
            "parameter {} gets no gradient in its slab", parameter.name());
}

Program Tape::finish() {
  WRN_CHECK(!finished_, "the tape is finished already");
  finished_ = true;
  return Program(std::move(steps_));
}

}  // namespace wrn
