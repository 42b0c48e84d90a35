// oneDNN behind one adapter: the only header that includes it.
//
// oneDNN compiles a primitive for a shape, and lets it choose the memory layout that it likes best.
// A Primitive here is such a compiled primitive together with the layouts of our tensors: where the
// two differ it copies ("reorders") through the workspace, before the run for an input and after it
// for an output. That holds for the filters always (every step anew, so that they can never be
// stale). Primitives are cached in the Context by what made them.
#pragma once

#include <array>
#include <dnnl.hpp>
#include <functional>
#include <initializer_list>
#include <map>
#include <vector>

#include "kernels/context.h"

namespace wrn::cpu {

using dnnl::memory;

struct Operand {
  int arg;              // DNNL_ARG_SRC, ...
  memory::desc ours;    // the layout of the pointer given to run()
  memory::desc theirs;  // the layout that the primitive wants
  enum Direction { kInput, kOutput } direction;
};

class Primitive {
 public:
  Primitive(const dnnl::primitive& primitive, const memory::desc& scratchpad,
            const std::vector<Operand>& operands, const dnnl::engine& engine);
  std::size_t workspace_bytes() const { return workspace_bytes_; }
  /// `pointers`: one for each operand, in order.
  void run(std::initializer_list<const void*> pointers, Context& context);

 private:
  struct Slot {
    memory ours, theirs;     // the same object where no reorder is needed
    dnnl::reorder reorder;   // empty where none is
    std::size_t offset = 0;  // of `theirs` in the workspace, when reordered
    Operand::Direction direction;
  };
  dnnl::primitive primitive_;
  std::vector<Slot> slots_;
  memory scratchpad_;
  std::size_t scratchpad_offset_ = 0, workspace_bytes_ = 0;
  std::unordered_map<int, memory> arguments_;
};

/// What a primitive was made from: a tag for the kind, then shape numbers.
using PrimitiveKey = std::array<std::int64_t, 10>;

struct Library {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<PrimitiveKey, Primitive> cache;
};

/// The cached primitive of `key`; `make` is called when there is none yet.
Primitive& cached(Context& context, const PrimitiveKey& key,
                  const std::function<Primitive(const dnnl::engine&)>& make);

/// A dense fp32 tensor. For images the dims are given as oneDNN orders them, n,c,h,w.
memory::desc f32(const memory::dims& dims, memory::format_tag tag);
/// `dims` in whatever layout the primitive likes.
memory::desc any(const memory::dims& dims);

/// Scratch memory comes from our workspace and not from oneDNN's own allocations.
dnnl::primitive_attr user_scratchpad();

/// The primitive descriptor of P, from the arguments that v2's P::desc and v3's
/// P::primitive_desc share. `hint` is the forward primitive's, for backward ones.
template <typename P, typename... Args>
typename P::primitive_desc describe(const dnnl::engine& engine, const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename P::primitive_desc(engine, args..., user_scratchpad());
#else
  return typename P::primitive_desc(typename P::desc(args...), user_scratchpad(), engine);
#endif
}

template <typename P, typename Hint, typename... Args>
typename P::primitive_desc describe_backward(const dnnl::engine& engine, const Hint& hint,
                                             const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename P::primitive_desc(engine, args..., hint, user_scratchpad());
#else
  return typename P::primitive_desc(typename P::desc(args...), user_scratchpad(), engine, hint);
#endif
}

}  // namespace wrn::cpu
