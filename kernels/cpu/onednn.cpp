#include "kernels/cpu/onednn.h"

#include "kernels/error.h"

namespace wrn {

namespace {
constexpr std::size_t kAlignment = 64;
std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
}  // namespace

namespace cpu {

Primitive::Primitive(const dnnl::primitive& primitive, const memory::desc& scratchpad,
                     const std::vector<Operand>& operands, const dnnl::engine& engine)
    : primitive_(primitive), scratchpad_(scratchpad, engine, nullptr) {
  for (const Operand& operand : operands) {
    Slot slot;
    slot.direction = operand.direction;
    slot.theirs = memory(operand.theirs, engine, nullptr);
    if (operand.ours == operand.theirs) {
      slot.ours = slot.theirs;
    } else {
      slot.ours = memory(operand.ours, engine, nullptr);
      slot.reorder = operand.direction == Operand::kInput ? dnnl::reorder(slot.ours, slot.theirs)
                                                          : dnnl::reorder(slot.theirs, slot.ours);
      slot.offset = workspace_bytes_;
      workspace_bytes_ += aligned(operand.theirs.get_size());
    }
    arguments_.emplace(operand.arg, slot.theirs);
    slots_.push_back(slot);
  }
  if (scratchpad.get_size() > 0) {
    scratchpad_offset_ = workspace_bytes_;
    workspace_bytes_ += aligned(scratchpad.get_size());
    arguments_.emplace(DNNL_ARG_SCRATCHPAD, scratchpad_);
  }
}

void Primitive::run(std::initializer_list<const void*> pointers, Context& context) {
  WRN_CHECK(pointers.size() == slots_.size(), "{} pointers for {} operands", pointers.size(),
            slots_.size());
  WRN_CHECK(workspace_bytes_ == 0 || context.workspace != nullptr, "no workspace, {} bytes needed",
            workspace_bytes_);
  dnnl::stream& stream = context.library().stream;
  const void* const* pointer = pointers.begin();
  for (Slot& slot : slots_) {
    // oneDNN's handles are not const, its inputs are.
    slot.ours.set_data_handle(const_cast<void*>(*pointer++));
    if (slot.reorder) {
      slot.theirs.set_data_handle(context.workspace + slot.offset);
      if (slot.direction == Operand::kInput) slot.reorder.execute(stream, slot.ours, slot.theirs);
    }
  }
  if (scratchpad_.get_desc().get_size() > 0) {
    scratchpad_.set_data_handle(context.workspace + scratchpad_offset_);
  }
  primitive_.execute(stream, arguments_);
  for (Slot& slot : slots_) {
    if (slot.reorder && slot.direction == Operand::kOutput) {
      slot.reorder.execute(stream, slot.theirs, slot.ours);
    }
  }
  stream.wait();
}

Primitive& cached(Context& context, const PrimitiveKey& key,
                  const std::function<Primitive(const dnnl::engine&)>& make) {
  Library& library = context.library();
  auto found = library.cache.find(key);
  if (found == library.cache.end()) {
    try {
      found = library.cache.emplace(key, make(library.engine)).first;
    } catch (const dnnl::error& error) {
      fail("oneDNN has no primitive {} for the shape [{}]: {}", key[0],
           fmt::join(key.begin() + 1, key.end(), ","), error.what());
    }
  }
  return found->second;
}

memory::desc f32(const memory::dims& dims, memory::format_tag tag) {
  return memory::desc(dims, memory::data_type::f32, tag);
}

memory::desc any(const memory::dims& dims) { return f32(dims, memory::format_tag::any); }

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attributes;
}

}  // namespace cpu
}  // namespace wrn
