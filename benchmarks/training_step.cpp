#include "benchmarks/training_step.h"

#include <numeric>
#include <random>

#include "apps/command_line.h"

namespace wrn {
namespace {

Dataset random_images(int count, int classes) {
  std::mt19937 generator(1);
  Dataset images;
  images.class_names.resize(static_cast<std::size_t>(classes));
  images.images.resize(static_cast<std::size_t>(count) * kImageBytes);
  for (std::uint8_t& byte : images.images) byte = static_cast<std::uint8_t>(generator() >> 24);
  for (int i = 0; i < count; ++i) images.labels.push_back(static_cast<std::uint8_t>(i % classes));
  return images;
}

Tensor first_images(int count, Device device) {
  std::vector<std::int32_t> indices(static_cast<std::size_t>(count));
  std::iota(indices.begin(), indices.end(), 0);
  const Tensor order = Tensor::persistent("order", {count}, DType::kI32, device);
  order.write<std::int32_t>(indices);
  return order;
}

WideResNet make_model(const WideResNetSpec& spec, bool fuse, const Context& context) {
  WideResNet model(spec, context.device(), context.precision());
  if (!fuse) model.fuse(false);
  return model;
}

}  // namespace

TrainingStep::TrainingStep(const WideResNetSpec& spec, int batch, Placing placing, Context& context,
                           bool fuse)
    : model_(make_model(spec, fuse, context)),
      state_(context.device()),
      data_(random_images(batch, spec.classes), {}, context.device()),
      input_{first_images(batch, context.device()),
             batch,
             {{127, 127, 127}, {64, 64, 64}},
             /*augment=*/true},
      program_(record(context).placed(placing)),
      arena_(program_.arena_bytes(), "the tensors of a step", context.device()) {
  model_.initialise(1, GammaInit::kOne);
  StepState step{};
  step.seed = 1;
  step.momentum = 0.9F;
  step.weight_decay = 5e-4F;
  state_.step.write<StepState>(std::span(&step, 1));
  program_.bind(arena_.data());
  program_.run(context);
}

Program TrainingStep::record(Context& context) const {
  return record_step(model_, data_, input_, state_, context);
}

std::vector<double> time_steps(Program& program, Stopwatch& watch, Context& context) {
  watch.mark();
  for (std::size_t i = 0; i < program.steps().size(); ++i) {
    program.run_step(i, context);
    watch.mark();
  }
  return watch.laps();
}

void warm_up(Program& program, Stopwatch& watch, Context& context) {
  for (double seconds = 0; seconds < 1;) {
    watch.mark();
    program.run(context);
    watch.mark();
    seconds += watch.laps().front();
  }
}

void StepArguments::add_flags(CLI::App& app) {
  app.add_option("--device", device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--precision", precision, "auto, fp32, tf32 or bf16")
      ->check(CLI::IsMember({"auto", "fp32", "tf32", "bf16"}));
  app.add_option("--batch-size", batch)->check(whole(1, kMostBatch))->capture_default_str();
  app.add_option("--threads", threads, "Of the CPU, 0 = all")->check(whole(0, kMostThreads));
  app.add_option("--ceilings", ceilings,
                 "What the model reckons with, in TFLOP/s and TB/s, without tiles and waves "
                 "(default for bf16 on a Hopper: those measured on an H100 or H200, with both)")
      ->expected(2)
      ->check(real(1e-3, 1e6));
}

Context StepArguments::context() {
  const Device where = resolve_device("benchmark", device);
  check_available(where);
  const Precision in = resolve_precision(precision, where, true);
  return Context(where, threads, in);
}

std::optional<Ceilings> StepArguments::ceilings_of(Context& context) const {
  if (!ceilings.empty()) return Ceilings{"as given", 1e12 * ceilings[0], 1e12 * ceilings[1]};
  std::optional<Ceilings> measured;
  if constexpr (kHasCuda) {
    if (context.device() == Device::kCuda && cuda::hopper_multiprocessors(context) > 0) {
      measured = measured_ceilings(context.precision(), device_name(Device::kCuda));
      if (measured) measured->multiprocessors = cuda::hopper_multiprocessors(context);
    }
  }
  return measured;
}

std::string kind_of(const Step& step) {
  const std::string& name = step.name;
  const std::size_t dot = name.rfind('.');
  std::string kind = name.substr(dot == std::string::npos ? 0 : dot + 1);
  std::erase_if(kind, [](char c) { return c >= '0' && c <= '9'; });
  return kind;
}

}  // namespace wrn
