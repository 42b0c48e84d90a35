#include "engine/program.h"

#include <algorithm>
#include <map>

namespace wrn {
namespace {

constexpr std::size_t kAlignment = 256;  // what cudaMalloc gives, and whole cache lines

/// A piece of the arena, in use from the step `first` to the step `last`. Tensors that are computed
/// in place of one another share it.
struct Block {
  std::size_t bytes = 0, offset = 0;
  std::size_t first = 0, last = 0;
  std::size_t taken_over = 0;  // the last step that wrote its result in place
  bool meets(const Block& other) const { return first <= other.last && other.first <= last; }
};

/// Places the largest blocks first, each as low as those already placed that are in use at the same
/// time let it. Returns the bytes of the whole.
std::size_t place(std::vector<Block>& blocks) {
  std::vector<Block*> order;
  for (Block& block : blocks) order.push_back(&block);
  std::stable_sort(order.begin(), order.end(),
                   [](const Block* a, const Block* b) { return a->bytes > b->bytes; });
  std::vector<const Block*> placed;  // by offset
  std::size_t end_of_all = 0;
  for (Block* block : order) {
    for (const Block* other : placed) {
      if (!block->meets(*other)) continue;
      if (block->offset + block->bytes <= other->offset) break;
      block->offset = std::max(block->offset, other->offset + other->bytes);
    }
    end_of_all = std::max(end_of_all, block->offset + block->bytes);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), block,
                         [](const Block* a, const Block* b) { return a->offset < b->offset; }),
        block);
  }
  return end_of_all;
}

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

Program::Program(std::vector<Step> steps, Placing placing) : steps_(std::move(steps)) {
  // Lifetimes: from the step that writes a tensor to the last one that reads it, or is that step.
  std::map<const void*, std::size_t> last_use;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    for (const auto* list : {&steps_[i].reads, &steps_[i].writes}) {
      for (const Tensor& x : *list) {
        last_use[x.info_.get()] = x.info_->kept ? steps_.size() : i;
      }
    }
  }
  std::vector<Block> blocks;
  std::map<const void*, std::size_t> block_of;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    for (const Tensor& y : steps_[i].writes) {
      if (y.is_persistent()) continue;
      std::size_t block = blocks.size();
      for (const auto& [written, read] : steps_[i].in_place) {
        if (placing == Placing::kSeparate || !(written == y) || read.is_persistent()) continue;
        // In place only where the value read dies here, and once.
        const std::size_t candidate = block_of.at(read.info_.get());
        const Block& memory = blocks[candidate];
        if (last_use.at(read.info_.get()) == i && memory.taken_over != i &&
            memory.bytes == aligned(y.bytes())) {
          block = candidate;
          blocks[block].taken_over = i;
          break;
        }
      }
      if (block == blocks.size()) {
        blocks.push_back({.bytes = aligned(y.bytes()), .first = i});
      }
      blocks[block].last = last_use.at(y.info_.get());
      block_of.emplace(y.info_.get(), block);
      offsets_.emplace_back(y, block);
    }
    if (steps_[i].workspace > 0) {
      blocks.push_back({.bytes = aligned(steps_[i].workspace), .first = i, .last = i});
    }
    workspace_offsets_.push_back(blocks.size() - 1);
  }
  const auto backward = static_cast<std::size_t>(
      std::find_if(steps_.begin(), steps_.end(),
                   [](const Step& step) { return step.phase != Phase::kForward; }) -
      steps_.begin());
  for (const Block& block : blocks) {
    if (block.first < backward && block.last >= backward) saved_bytes_ += block.bytes;
  }
  for (const Step& step : steps_) workspace_bytes_ = std::max(workspace_bytes_, step.workspace);
  if (placing == Placing::kSeparate) {
    for (Block& block : blocks) {
      block.first = 0;
      block.last = steps_.size();
    }
  }
  arena_bytes_ = place(blocks);
  // From here on the numbers of blocks are offsets.
  for (auto& [tensor, offset] : offsets_) offset = blocks[offset].offset;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    workspace_offsets_[i] = steps_[i].workspace > 0 ? blocks[workspace_offsets_[i]].offset : 0;
  }
}

void Program::bind(std::byte* arena) {
  arena_ = arena;
  graph_.reset();  // it holds the old addresses
  for (const auto& [tensor, offset] : offsets_) tensor.info_->data = arena + offset;
}

void Program::run_step(std::size_t i, Context& context) {
  WRN_CHECK(!context.only_plans(), "a Program that was recorded only to be looked at is run");
  WRN_CHECK(arena_ != nullptr || arena_bytes_ == 0, "a Program is run that is not bound");
  const Step& step = steps_.at(i);
  context.workspace = step.workspace > 0 ? arena_ + workspace_offsets_[i] : nullptr;
  if constexpr (kHasCuda) {
    if (context.named_ranges) {
      const cuda::Range range(step.name.c_str());
      return step.run(context);
    }
  }
  step.run(context);
}

void Program::run(Context& context) {
  const auto run_all = [&] {
    for (std::size_t i = 0; i < steps_.size(); ++i) run_step(i, context);
  };
  if constexpr (kHasCuda) {
    // A graph hides its steps from whoever wants to see their names.
    if (use_graph_ && has_run_ && context.device() == Device::kCuda && !context.named_ranges) {
      if (graph_ == nullptr) graph_ = std::make_shared<cuda::Graph>(run_all, context);
      return graph_->launch(context);
    }
  }
  run_all();
  has_run_ = true;
}

std::vector<float> Program::read(const Tensor& x) const {
  WRN_CHECK(x.is_persistent() || x.info_->kept, "{} was not kept, its memory has been reused",
            x.name());
  if (x.dtype() == DType::kBF16) {
    const std::vector<bf16> values = x.read<bf16>();
    std::vector<float> floats(values.size());
    std::transform(values.begin(), values.end(), floats.begin(),
                   [](bf16 v) { return to_float(v); });
    return floats;
  }
  WRN_CHECK(x.dtype() == DType::kF32, "{} is {}", x.name(), name_of(x.dtype()));
  return x.read<float>();
}

}  // namespace wrn
