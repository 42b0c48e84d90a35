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

/// A list with all its room from the start, for the reason above; and a template of our own, as a
/// vector of numbers could be linked from a file that is instrumented.
template <typename T>
class List {
 public:
  explicit List(std::size_t room) : items_(new T[room]()) {}
  ~List() { delete[] items_; }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  T& operator[](std::size_t i) const { return items_[i]; }
  T* begin() const { return items_; }
  T* end() const { return items_ + count_; }
  bool empty() const { return count_ == 0; }
  void add(T item) { items_[count_++] = item; }
  void remove(T item) {
    for (T& each : *this) {
      if (each != item) continue;
      each = items_[--count_];
      return;
    }
  }
  void clear() { count_ = 0; }

 private:
  T* items_;
  std::size_t count_ = 0;
};

struct MBarrier {
  explicit MBarrier(std::size_t threads) : next(threads), waiting(threads), woken(threads) {
    for (std::size_t t = 0; t < threads; ++t) next[t] = kNone;
  }
  /// Whether one of the threads first ... first + count - 1 has waited for the phase.
  bool waited_for(std::int64_t number, std::size_t first, std::size_t count) const {
    for (std::size_t t = first; t < first + count; ++t) {
      if (next[t] > number) return true;
    }
    return false;
  }
  const void* at;
  std::uint32_t number;  // among the block's
  std::int64_t phase = 0, bytes = 0;
  unsigned count, pending;
  std::int64_t last_load = kNone;  // the latest phase that a box was to come in
  bool fenced = false;
  std::size_t by;             // which thread initialised it
  List<std::int64_t> next;    // of each thread, the phase that it waits for next
  List<std::size_t> waiting;  // threads
  List<std::size_t> woken;    // those that have not run since
};

/// Whether some thread of this one's warpgroup has waited for what came as `load`.
bool has_waited_for(std::uint32_t load);

/// Which phase of which barrier brought something: never 0, nor kGeneric.
inline std::uint32_t load_number(const MBarrier& barrier) {
  return (barrier.number + 1) << 20 | static_cast<std::uint32_t>(barrier.phase & 0xFFFFF);
}

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
        want_registers(threads),
        warpgroups((threads + 127) / 128) {
    // As ptxas gives a kernel of one block an SM, which setmaxnreg asks for.
    const int each = static_cast<int>(std::min<std::size_t>(65536 / threads, 255)) / 8 * 8;
    for (std::size_t t = 0; t < threads; ++t) registers[t] = each;
  }
  ~Hopper() override {
    for (MBarrier* barrier : barriers) delete barrier;
  }
  void check_exit() const override;
  static constexpr std::size_t kMostBarriers = 256;
  std::size_t threads;
  List<MBarrier*> barriers{kMostBarriers};
  std::vector<std::vector<Access>> unfenced;  // by thread
  List<int> registers;
  int free_registers = 0;
  List<std::size_t> want_registers;
  std::vector<WarpgroupState> warpgroups;
};
Hopper& hopper();

}  // namespace wrn::cuda::simt
