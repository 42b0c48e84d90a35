// What hopper.cpp and wgmma.cpp keep for a block.
#pragma once

#include <cstdint>
#include <vector>

#include "simt/device.h"
#include "simt/hopper.h"

namespace wrn::cuda::simt {

constexpr unsigned kWindow = 1024;  // where shared memory begins, as 32-bit addresses see it
constexpr std::int64_t kNone = -2;
constexpr std::uint32_t kGeneric = ~std::uint32_t{0};  // Shadow::load of what a thread stored

/// The swizzle of rows of 128, 64 or 32 bytes.
inline std::size_t swizzled(unsigned row_bytes, std::size_t address) {
  return address ^ ((address >> 7 & (row_bytes / 16 - 1)) << 4);
}

/// Objects that threads hand to each other. They are kept: ThreadSanitizer takes it for a race when
/// memory that one fiber has allocated is freed by another. T has a T* `spare`.
template <typename T>
class Pool {
 public:
  T* take() {
    if (!first_) return new T;
    T* object = first_;
    first_ = object->spare;
    return object;
  }
  void give(T* object) {
    object->spare = first_;
    first_ = object;
  }

 private:
  T* first_ = nullptr;
};

/// The vectors have room for all threads from the start, for the reason above.
struct MBarrier {
  const void* at;
  std::int64_t phase = 0, bytes = 0;
  unsigned count, pending;
  bool fenced = false;
  std::size_t by;                    // which thread initialised it
  std::vector<std::int64_t> next;    // of each thread, the phase that it waits for next
  std::vector<std::size_t> waiting;  // threads, and those that have not run since they were woken
  std::vector<std::size_t> woken;
};

/// A thread's own access to shared memory that no proxy fence has followed.
struct Access {
  Shadow* shadow;
  bool write;
};

struct PendingProduct;
struct Accumulators;
struct WarpgroupState {
  bool fenced = false;
  PendingProduct *first = nullptr, *last = nullptr;  // in order; run and waited for from the front
  unsigned committed = 0;
  Accumulators* accumulators[8] = {};
};

struct Hopper : BlockState {
  Hopper()
      : threads(std::size_t{current->block_dim.x} * current->block_dim.y * current->block_dim.z),
        unfenced(threads),
        registers(threads),
        warpgroups((threads + 127) / 128) {
    // As ptxas gives a kernel of one block an SM, which setmaxnreg asks for.
    const int each = static_cast<int>(std::min<std::size_t>(65536 / threads, 255)) / 8 * 8;
    for (int& count : registers) count = each;
    want_registers.reserve(threads);
    barriers.reserve(256);
  }
  ~Hopper() override {
    for (MBarrier* barrier : barriers) delete barrier;
  }
  std::size_t threads;
  std::vector<MBarrier*> barriers;
  std::vector<std::vector<Access>> unfenced;  // by thread
  std::vector<int> registers;
  int free_registers = 0;
  std::vector<std::size_t> want_registers;
  std::vector<WarpgroupState> warpgroups;
};
Hopper& hopper();

}  // namespace wrn::cuda::simt
