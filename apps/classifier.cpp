#include "apps/classifier.h"

#include <cmath>
#include <numeric>

#include "engine/checkpoint.h"

namespace wrn {

Classifier::Classifier(const std::filesystem::path& checkpoint, int batch_size, Context& context)
    : context_(context), batch_size_(batch_size), state_(context.device()) {
  const Safetensors file = read_safetensors(checkpoint);
  checkpoint_ = checkpoint_of(file);
  if (checkpoint_.classes != std::ssize(checkpoint_.class_names)) {
    fail("{}: its metadata has {} classes and {} names of classes", checkpoint.string(),
         checkpoint_.classes, checkpoint_.class_names.size());
  }
  WideResNetSpec spec = parse_model(checkpoint_.settings.model);
  spec.classes = checkpoint_.classes;
  model_.emplace(spec, context.device());
  import_state(file, false, model_->parameters());

  const auto blank = [&](int n) {
    const auto images = static_cast<std::size_t>(n);
    return Dataset{"images", checkpoint_.class_names,
                   std::vector<std::uint8_t>(images * kImageBytes),
                   std::vector<std::uint8_t>(images)};
  };
  const Dataset images = blank(batch_size), one = blank(1);  // both splits must have some
  if (checkpoint_.whitening) {
    data_.emplace(images, one, *checkpoint_.whitening, context);
  } else {
    data_.emplace(images, one, context.device());
  }
  order_ = Tensor::persistent("order", {batch_size}, DType::kI32, context.device());

  Tape tape(Mode::kInference, state_, context);
  const Batch batch =
      load_images(tape, *data_, {order_, batch_size, checkpoint_.normalisation, false});
  logits_ = model_->forward(tape, batch.images);
  tape.keep(logits_);
  program_ = tape.finish();
  if (const std::size_t free = available_memory(context.device()); program_->arena_bytes() > free) {
    throw Error(fmt::format("out of memory: a batch of {} needs {:.1f} MiB, {:.1f} MiB are free; "
                            "give a smaller --batch-size",
                            batch_size, static_cast<double>(program_->arena_bytes()) / 0x1p20,
                            static_cast<double>(free) / 0x1p20),
                Status::kOutOfMemory);
  }
  arena_.emplace(program_->arena_bytes(), "the tensors of a batch", context.device());
  program_->bind(arena_->data());
  program_->use_graph();
}

std::vector<std::vector<Answer>> Classifier::classify(std::span<const std::uint8_t> images,
                                                      std::size_t count) {
  const auto n = images.size() / kImageBytes, rows = static_cast<std::size_t>(batch_size_);
  WRN_CHECK(n * kImageBytes == images.size() && n <= rows, "{} bytes of images, batches of {}",
            images.size(), rows);
  std::vector<std::uint8_t> padded(images.begin(), images.end());
  padded.resize((rows + 1) * kImageBytes);
  if (checkpoint_.whitening) {
    std::vector<float> whitened(padded.size());
    checkpoint_.whitening->apply(padded, whitened, context_.threads());
    data_->images.write<float>(whitened);
  } else {
    data_->images.write<std::uint8_t>(padded);
  }
  std::vector<std::int32_t> order(rows, -1);
  std::iota(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n), 0);
  order_.write<std::int32_t>(order);
  const StepState step{};
  WRN_ON(context_, upload(state_.step.data<StepState>(), &step, sizeof step, context_));
  program_->run(context_);

  const std::vector<float> logits = program_->read(logits_);
  const auto classes = static_cast<std::size_t>(checkpoint_.classes);
  std::vector<std::vector<Answer>> answers;
  for (std::size_t i = 0; i < n; ++i) {
    answers.push_back(most_probable(std::span(logits).subspan(i * classes, classes), count));
    if (!std::isfinite(answers.back().front().probability)) {
      throw Error("the network's outputs are not finite: its weights are ruined",
                  Status::kNotFinite);
    }
  }
  return answers;
}

}  // namespace wrn
