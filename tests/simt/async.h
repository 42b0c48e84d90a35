// What a thread starts and something else carries out later: asynchronous copies and products.
//
// When such an effect takes place is drawn, as Progress says (simt.h): at once, at a random moment,
// or as late as possible, which is when somebody waits for it, or when no thread can go on. So a
// missing wait shows with one progress, and memory reused too soon with another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <source_location>
#include <string>

namespace wrn::cuda::simt {

using Where = std::source_location;

/// Has an instruction's effect in run(), which is called once, by whatever fiber is running: so it
/// stands in a file that is not compiled with -fsanitize=thread. The scheduler forgets an effect
/// before it runs it; one that nobody waits for may delete itself.
struct Effect {
  virtual ~Effect() = default;
  virtual void run() = 0;

  static constexpr std::size_t kHasRun = ~std::size_t{0};
  std::size_t index = kHasRun;  // among the effects to come
  Effect* next = nullptr;       // in a Groups
  unsigned group = 0;
};
/// From now on the effect may take place.
void begin(Effect& effect);
/// The effect has taken place when this returns.
void finish(Effect& effect);

/// What a thread has started and not yet waited for, in groups: how commit_group and wait_group
/// count. Owns its effects.
class Groups {
 public:
  void add(Effect* effect);  // to the open group
  void commit() { ++open_; }
  /// Finishes all groups but the `newest` ones, calling done(effect) for each effect, and forgets
  /// them. An open group is not waited for.
  void wait(unsigned newest, void (*done)(Effect&));
  const Effect* oldest() const { return first_; }

 private:
  Effect *first_ = nullptr, *last_ = nullptr;
  unsigned open_ = 0;  // how many groups were committed
};

/// What is known of 16 bytes of the block's shared memory.
struct Shadow {
  std::uint8_t writes_under_way = 0;  // by asynchronous copies that nobody has waited for
  // The asynchronous proxy's (hopper.cpp): loads of boxes that have not arrived; reads by stores of
  // boxes and by wgmma; accesses of the threads themselves that no proxy fence has followed; and
  // which load brought the bytes, as a number of barrier and phase, or 0.
  std::uint8_t loads = 0, reads = 0;
  std::uint16_t unfenced_writes = 0, unfenced_reads = 0;
  std::uint32_t load = 0;
};
/// Of the 16 bytes where p points; null where p is not in the block's shared memory.
Shadow* shadow_of(const void* p);

/// Where p is in the block's shared memory, and what there is of it. May be asked by an effect.
std::size_t shared_offset(const void* p);
std::size_t shared_bytes();
void* shared_begin();

/// What a thread that was suspended waits for.
struct Parked {
  virtual std::string text() const = 0;  // "waits at ..."
};
/// Suspends the thread that runs, until someone wakes thread `index` of the block.
void park(const Parked& parked);
void wake(std::size_t index);
std::size_t thread_index();

/// What hopper.cpp keeps for a block: it makes it, and it ends with the block.
struct BlockState {
  virtual ~BlockState() = default;
  /// Fails where the block's threads have exited and left something under way.
  virtual void check_exit() const = 0;
};
std::unique_ptr<BlockState>& block_state();

/// Tells the sanitizers of an access by the thread that runs, one that they do not see, or that
/// takes place later.
void announce_read(const void* p, std::size_t bytes);
void announce_write(void* p, std::size_t bytes);

/// Ends the program with a line that names kernel, block, thread and, as "what at file:line", the
/// instruction.
[[noreturn]] void fail_at(const char* what, const Where& where, const std::string& message);
/// The same without a thread, for an effect.
[[noreturn]] void fail_in_block(const std::string& message);
std::string describe(const char* what, const Where& where);

}  // namespace wrn::cuda::simt
