// Executes PTX: a block's warps take turns, and the lanes of a warp go together
// wherever they are at the same instruction.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ptx/program.h"

namespace wrn::ptx {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

/// What a kernel must not do: one line that names the kernel, the block, the warp, and the
/// instruction by its line in the PTX.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Lanes of a warp that are at the same instruction.
struct Group {
  enum class State : std::uint8_t { kReady, kWaitsForLanes, kWaitsForBlock, kWaitsForEvent };
  int at;
  Lanes lanes;
  State state = State::kReady;
  int barrier = 0;  // that it waits for
};

/// What a thread has started with cp.async and not waited for.
struct Copy {
  std::byte* to;
  const std::byte* from;
  unsigned bytes, from_source;
};
struct Copies {
  std::deque<std::vector<Copy>> groups;
  std::vector<Copy> open;
  bool under_way() const {
    for (const std::vector<Copy>& group : groups) {
      if (!group.empty()) return true;
    }
    return !open.empty();
  }
};

class Block;

/// The allocation of device memory that `address` is in, or {}. Whoever links the interpreter has
/// it.
struct Range {
  const std::byte *begin, *end;
};
Range device_memory(const void* address);

class Warp {
 public:
  Warp(Block& block, int number);
  /// Goes on until all its lanes wait for others. Returns how many instructions it executed.
  long run();
  void start(Lanes lanes);  // at the kernel's beginning
  bool has_ended() const { return groups_.empty(); }
  Lanes alive() const;
  /// Lets those go on that wait at a barrier of the block; `any`: what bar.red.or gives.
  void pass(int barrier, bool any);
  /// Where its lanes are, for a message.
  std::string where() const;
  /// Throws a Fault.
  [[noreturn]] void fail(const Instruction&, const std::string& what) const;

  /// A register's values in the 32 lanes.
  template <typename T>
  T* at(std::uint32_t place) {
    return reinterpret_cast<T*>(registers_ + place);
  }
  Lanes& predicate(std::uint32_t place) { return *at<Lanes>(place); }

  /// Addresses of `bytes` bytes, checked.
  std::byte* shared(const Instruction&, std::uint64_t address, std::size_t bytes);
  std::byte* global(const Instruction&, std::uint64_t address, std::size_t bytes);
  std::byte* local(const Instruction&, int lane, std::uint64_t address, std::size_t bytes);

  Block& block;
  const int number;
  std::array<Copies, kLanes> copies;

 private:
  void fill_registers(bool special);
  void check_alignment(const Instruction&, std::uint64_t address, std::size_t bytes) const;
  void arrive(Group&, const Instruction&);
  void branch(Group&, const Instruction&, Lanes taken);
  void exit(Group&, const Instruction&, Lanes lanes);
  Lanes lanes_named(const Group&, const Instruction&);
  Group* lowest_ready();
  void merge();

  std::byte* registers_ = nullptr;
  std::unique_ptr<std::byte[]> register_memory_;
  std::vector<std::byte> local_;
  std::vector<Group> groups_;
};

/// A thread's barrier in shared memory, of 8 bytes. (PTX ISA, mbarrier: opaque.)
struct MemoryBarrier {
  std::uint16_t count;
  std::uint16_t pending : 15, phase : 1;
  std::int32_t bytes;       // to come
  void complete_if_due() {  // a phase
    if (pending != 0 || bytes != 0) return;
    phase ^= 1;
    pending = count;
  }
};
static_assert(sizeof(MemoryBarrier) == 8);

class Block {
 public:
  Block(const Kernel&, Extent grid, Extent threads, std::size_t shared,
        const std::byte* parameters);
  /// Runs the block at `index` of the grid from beginning to end.
  void run(Extent index);

  /// A barrier's threads have not all arrived: how many wait, how many it is for (0: all there
  /// are), and whether any that arrived said so.
  struct Barrier {
    unsigned waiting = 0, threads = 0;
    bool any = false;
  };
  std::array<Barrier, 16> barriers;
  bool event_came = false;  // that a poll asked for
  Range last_used{};        // of device memory, most likely to be used again

  const Kernel& kernel;
  const Extent grid, threads;
  Extent index;
  const std::byte* const parameters;
  std::string where() const;
  std::byte* shared_begin() { return shared_; }
  std::size_t shared_bytes() const { return shared_bytes_; }

 private:
  bool pass_barriers();

  std::size_t shared_bytes_;
  std::unique_ptr<std::byte[]> shared_memory_;
  std::byte* shared_;  // aligned
  std::vector<std::unique_ptr<Warp>> warps_;
};

/// In which order a block's warps take turns is drawn from a seed.
void set_order_seed(std::uint64_t seed);

/// Runs all blocks, one after another. `parameters`: Kernel::parameter_bytes of them, aligned
/// to 64. Throws a Fault.
void run(const Kernel&, Extent grid, Extent threads, std::size_t shared,
         const std::byte* parameters);

}  // namespace wrn::ptx
