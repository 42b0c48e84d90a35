// Three steps of SGD against PyTorch in float64 (golden/README.md says what the files hold):
// logits, losses, every gradient, running statistics and weights, to 1e-4 relative.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>

#include "catch.h"
#include "data/input.h"
#include "devices.h"
#include "engine/checkpoint.h"
#include "engine/program.h"
#include "models/wide_resnet.h"

using namespace wrn;

namespace {

/// ||got - expected|| / ||expected||, infinite where anything is not finite.
double difference(std::span<const float> got, std::span<const float> expected) {
  if (got.size() != expected.size()) return INFINITY;
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double{got[i]} - expected[i], 2);
    norm += std::pow(double{expected[i]}, 2);
  }
  const double relative = std::sqrt(error / norm);
  return std::isfinite(relative) ? relative : INFINITY;
}

struct Golden {
  Safetensors file;

  std::span<const float> at(const std::string& name) const { return file.at(name).as<float>(); }
  float number(const char* key) const { return std::stof(file.metadata.at(key)); }
  /// "125.3 123.0 113.9" or "[125.3, 123.0, 113.9]"
  void three_numbers(const char* key, float* out) const {
    std::string text = file.metadata.at(key);
    for (char& c : text) c = c == '[' || c == ']' || c == ',' ? ' ' : c;
    std::istringstream(text) >> out[0] >> out[1] >> out[2];
  }
};

void compare(const std::string& what, std::span<const float> got, std::span<const float> expected) {
  INFO(what << " differs by " << difference(got, expected));
  CHECK(difference(got, expected) <= 1e-4);
}

/// Compares the model's whole state with the entries prefix + name; `statistics_only` as it says.
void compare_state(const Golden& golden, const std::string& prefix, const WideResNet& model,
                   bool statistics_only) {
  Safetensors state;
  export_state(model.parameters(), 0, false, state);
  int compared = 0;
  for (const auto& [name, entry] : state.tensors) {
    const bool statistic = name.find(".running_") != std::string::npos;
    if (entry.dtype != "F32" || (statistics_only && !statistic)) continue;
    compare(prefix + name, entry.as<float>(), golden.at(prefix + name));
    ++compared;
  }
  REQUIRE(compared > 0);
}

void check(const std::filesystem::path& path, Device device) {
  const Golden golden{read_safetensors(path)};
  INFO(path.filename().string() << " on " << test::name_of(device));
  const int batch = static_cast<int>(golden.number("batch"));
  constexpr int kSteps = 3;

  Dataset images;
  images.class_names.resize(10);
  const auto pixels = golden.file.at("images").as<std::uint8_t>();
  images.images.assign(pixels.begin(), pixels.end());
  for (const std::int64_t label : golden.file.at("labels").as<std::int64_t>()) {
    images.labels.push_back(static_cast<std::uint8_t>(label));
  }
  REQUIRE(images.size() == std::int64_t{kSteps} * batch);
  const ResidentData data(images, {}, device);

  WideResNetSpec spec = parse_model(golden.file.metadata.at("model"));
  const bool dropout = golden.file.metadata.contains("dropout");
  if (dropout) spec.dropout = golden.number("dropout");
  WideResNet model(spec, device);
  Safetensors init{.metadata = {}, .tensors = {}, .file = path};
  for (const auto& [name, entry] : golden.file.tensors) {
    if (name.starts_with("init.")) init.tensors.emplace_back(name.substr(5), entry);
  }
  import_state(init, false, model.parameters());

  Context context(device);
  const RunState state(device);
  const Tensor order =
      Tensor::persistent("order", {std::int64_t{kSteps} * batch}, DType::kI32, device);
  std::vector<std::int32_t> indices(static_cast<std::size_t>(order.size()));
  std::iota(indices.begin(), indices.end(), 0);
  order.write<std::int32_t>(indices);
  Input input{.order = order, .rows = batch, .normalisation = {}, .augment = false};
  golden.three_numbers("mean", input.normalisation.mean);
  golden.three_numbers("std", input.normalisation.std);
  const auto set_step = [&](int number) {
    const StepState step = {
        .seed = dropout ? std::stoull(golden.file.metadata.at("dropout_seed")) : 1,
        .step = static_cast<std::uint32_t>(number),
        .first = std::int64_t{number} * batch,
        .learning_rate = golden.number("lr"),
        .momentum = golden.number("momentum"),
        .weight_decay = golden.number("weight_decay")};
    state.step.write<StepState>(std::span(&step, 1));
  };

  Tape tape(Mode::kTraining, state, context);
  const Batch loaded = load_images(tape, data, input);
  const Tensor logits = model.forward(tape, loaded.images);
  const Tensor loss = softmax_cross_entropy(tape, logits, loaded.labels);
  tape.keep(logits);
  tape.keep(loss);
  tape.backward(loss);
  const Parameters& p = model.parameters();
  sgd(tape, p);
  Program training = tape.finish();

  Tape inference(Mode::kInference, state, context);
  const Batch again = load_images(inference, data, input);
  const Tensor eval_logits = model.forward(inference, again.images);
  inference.keep(eval_logits);
  Program evaluation = inference.finish();

  const Buffer arena(std::max(training.arena_bytes(), evaluation.arena_bytes()), "arena", device);
  training.bind(arena.data());
  evaluation.bind(arena.data());
  training.use_graph();
  for (int step = 0; step < kSteps; ++step) {
    set_step(step);
    training.run(context);
    compare(fmt::format("loss of step {}", step + 1), training.read(loss),
            golden.at("losses").subspan(static_cast<std::size_t>(step), 1));
    if (step > 0) continue;
    compare("logits", training.read(logits), golden.at("logits"));
    compare("loss", training.read(loss), golden.at("loss"));
    for (const Parameter& parameter : p.all()) {
      // The golden convolutions are OIHW; export knows the way, so let it carry the gradient.
      Safetensors carried;
      const Tensor value = parameter.value;
      const std::vector<float> saved = value.read<float>();
      value.write<float>(parameter.gradient.read<float>());
      export_state(p, 0, false, carried);
      value.write<float>(saved);
      compare("grad." + value.name(), carried.at(value.name()).as<float>(),
              golden.at("grad." + value.name()));
    }
    compare_state(golden, "step1.", model, true);
  }
  compare_state(golden, "step3.", model, false);
  set_step(0);
  evaluation.run(context);
  compare("eval_logits", evaluation.read(eval_logits), golden.at("eval_logits"));
}

/// WRN_GOLDEN_DIR, for a program that runs far from its source, else tests/golden.
std::filesystem::path golden_dir() {
  const char* given = std::getenv("WRN_GOLDEN_DIR");
  return given != nullptr ? given : WRN_SOURCE_DIR "/tests/golden";
}

}  // namespace

TEST_CASE("three training steps of every golden network equal PyTorch's") {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(golden_dir())) {
    if (entry.path().extension() != ".safetensors") continue;
    check(entry.path(), Device::kCpu);
    ++files;
  }
  REQUIRE(files == 12);
}

TEST_CASE("three training steps on CUDA, the last two by its graph, equal PyTorch's") {
  if (!test::has_gpu()) {
    std::puts("skipped: no CUDA GPU");
    return;
  }
  // Emulated, the widest and deepest would take minutes.
  std::vector<std::string> names = {"wrn-10-1", "wrn-10-1-B(1,3,1)", "wrn-10-1-B(3,1,1)-dropout"};
  if (!test::is_emulated()) names.insert(names.end(), {"wrn-16-2", "wrn-16-1-l4"});
  for (const std::string& name : names) {
    check(golden_dir() / (name + ".safetensors"), Device::kCuda);
  }
}
