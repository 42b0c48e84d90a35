// Barriers, boxes and registers of sm_90a; its products are in wgmma.cpp. Compiled as scheduler.cpp
// is: the sanitizers are told of accesses.
#include "simt/hopper.h"

#include <sanitizer/tsan_interface.h>

#include <algorithm>
#include <cstring>

#include "simt/device.h"
#include "simt/hopper_state.h"
#include "simt/internal.h"
#include "simt/tensor_map.h"

#pragma weak __tsan_acquire
#pragma weak __tsan_release

namespace wrn::cuda::simt {

Hopper& hopper() {
  std::unique_ptr<BlockState>& state = block_state();
  if (!state) state = std::make_unique<Hopper>();
  return static_cast<Hopper&>(*state);
}

namespace {
std::string text_of(const MBarrier& b) {
  return "the mbarrier at shared memory + " + std::to_string(shared_offset(b.at)) + ": phase " +
         std::to_string(b.phase) + ", pending " + std::to_string(b.pending) + " of " +
         std::to_string(b.count) + ", " + std::to_string(b.bytes) + " bytes to come";
}
}  // namespace

void Hopper::check_exit() const {
  for (const MBarrier* barrier : barriers) {
    if (barrier->last_load != kNone && !barrier->waited_for(barrier->last_load, 0, threads)) {
      fail_in_block("its threads have exited, and nobody has waited for a box that came to " +
                    text_of(*barrier));
    }
  }
  for (const WarpgroupState& warpgroup : warpgroups) {
    if (warpgroup.first) {
      fail_in_block("its threads have exited, and nobody has waited for products under way");
    }
  }
}

unsigned shared_address(const void* p) { return kWindow + static_cast<unsigned>(shared_offset(p)); }

// --- mbarrier ------------------------------------------------------------------------------------
namespace {

/// One that is in use; an error else.
MBarrier& barrier_at(const void* p, const char* what, const Where& where) {
  for (MBarrier* barrier : hopper().barriers) {
    if (barrier->at == p) return *barrier;
  }
  fail_at(what, where, "uses an mbarrier that was not initialised");
}

struct BarrierWait : Parked {
  const MBarrier& barrier;
  const Where& where;
  std::int64_t phase;
  BarrierWait(const MBarrier& b, const Where& w, std::int64_t p) : barrier(b), where(w), phase(p) {}
  std::string text() const override {
    return "waits at " + describe("mbarrier.try_wait", where) + " for phase " +
           std::to_string(phase) + " of " + text_of(barrier);
  }
};

void complete_if_due(MBarrier& b) {
  if (b.pending != 0 || b.bytes != 0) return;
  ++b.phase;
  b.pending = b.count;
  for (const std::size_t thread : b.waiting) {
    b.woken.add(thread);
    wake(thread);
  }
  b.waiting.clear();
}

void arrive_with(const void* p, unsigned bytes, const char* what, const Where& where) {
  MBarrier& b = barrier_at(p, what, where);
  if (__tsan_release) __tsan_release(&b);
  if (b.pending == 0) fail_at(what, where, "arrives once too often at " + text_of(b));
  if (!b.woken.empty() && b.pending == 1 && b.bytes + bytes == 0) {
    fail_at(what, where,
            "completes a phase before those who waited for the last one have seen it, of " +
                text_of(b));
  }
  b.bytes += bytes;
  --b.pending;
  complete_if_due(b);
}

}  // namespace

void init_barrier(const std::uint64_t& barrier, unsigned count, Where where) {
  for (const MBarrier* b : hopper().barriers) {
    if (b->at == &barrier) fail_at("mbarrier.init", where, "of one that is in use");
  }
  if (count == 0) fail_at("mbarrier.init", where, "with a count of 0");
  static std::uint32_t made = 0;
  if (hopper().barriers.empty()) made = 0;
  if (made == Hopper::kMostBarriers)
    fail_at("mbarrier.init", where, "of more than there is room for");
  auto* b = new MBarrier(hopper().threads);
  b->number = made++;
  b->at = &barrier;
  b->count = b->pending = count;
  b->by = thread_index();
  hopper().barriers.add(b);
}

void fence_barrier_init() {
  for (MBarrier* b : hopper().barriers) b->fenced = b->fenced || b->by == thread_index();
}

void arrive(const std::uint64_t& barrier, Where where) {
  arrive_with(&barrier, 0, "mbarrier.arrive", where);
}
void arrive_expecting(const std::uint64_t& barrier, unsigned bytes, Where where) {
  arrive_with(&barrier, bytes, "mbarrier.arrive.expect_tx", where);
}

void wait(const std::uint64_t& barrier, unsigned parity, Where where) {
  constexpr const char* kWhat = "mbarrier.try_wait";
  MBarrier& b = barrier_at(&barrier, kWhat, where);
  // Of each thread, the phase that it has not seen yet. That before the first is phase -1.
  std::int64_t& next = b.next[thread_index()];
  if (next == kNone) next = parity == 1 ? -1 : 0;
  const std::int64_t wanted = next++;
  if ((wanted & 1) != static_cast<std::int64_t>(parity)) {
    fail_at(kWhat, where,
            "waits for parity " + std::to_string(parity) + " when the phase to wait for is " +
                std::to_string(wanted) + ", of " + text_of(b));
  }
  if (b.phase > wanted + 1) {
    fail_at(kWhat, where,
            "waits for phase " + std::to_string(wanted) + ", and another one has passed, of " +
                text_of(b));
  }
  if (b.phase <= wanted) {
    const std::size_t self = thread_index();
    b.waiting.add(self);
    park(BarrierWait(b, where, wanted));
    b.woken.remove(self);
  }
  if (__tsan_acquire) __tsan_acquire(&b);
}

bool has_waited_for(std::uint32_t load) {
  if (load == kGeneric) return true;
  const MBarrier& barrier = *hopper().barriers[(load >> 20) - 1];
  return barrier.waited_for(load & 0xFFFFF, thread_index() / 128 * 128, 128);
}

// --- The generic and the asynchronous proxy ------------------------------------------------------
namespace {

std::vector<Access>& accesses() { return hopper().unfenced[thread_index()]; }

Shadow& shadow_at(const void* p) {
  static_cast<void>(shared_offset(p));  // fails outside
  return *shadow_of(p);
}

}  // namespace

void fence_async_proxy() {
  for (const Access& access : accesses()) {
    --(access.write ? access.shadow->unfenced_writes : access.shadow->unfenced_reads);
  }
  accesses().clear();
}

void store_shared(void* p, unsigned value, Where where) {
  constexpr const char* kWhat = "a store to shared memory";
  Shadow& shadow = shadow_at(p);
  if (shadow.loads > 0) fail_at(kWhat, where, "where a box is arriving");
  if (shadow.reads > 0) {
    fail_at(kWhat, where, "over what an asynchronous store or product still reads");
  }
  announce_write(p, sizeof value);
  std::memcpy(p, &value, sizeof value);
  shadow.load = kGeneric;
  ++shadow.unfenced_writes;
  accesses().push_back({&shadow, true});
}

unsigned load_shared(const void* p, Where where) {
  Shadow& shadow = shadow_at(p);
  constexpr const char* kWhat = "a load from shared memory";
  if (shadow.loads > 0) fail_at(kWhat, where, "where a box is arriving");
  if (shadow.load == 0) fail_at(kWhat, where, "where nothing has been written");
  if (!has_waited_for(shadow.load)) {
    fail_at(kWhat, where, "which came in a phase that no thread of the warpgroup has waited for");
  }
  announce_read(p, sizeof(unsigned));
  unsigned value;
  std::memcpy(&value, p, sizeof value);
  ++shadow.unfenced_reads;
  accesses().push_back({&shadow, false});
  return value;
}

// --- Boxes ---------------------------------------------------------------------------------------
namespace {

constexpr const char* kLoad = "cp.async.bulk.tensor to shared memory";
constexpr const char* kStore = "cp.async.bulk.tensor to global memory";

/// Not by memcpy, of which ThreadSanitizer knows.
void copy_element(char* to, const char* from) {
  to[0] = from[0];
  to[1] = from[1];
}

/// A box between a tensor and shared memory.
struct Box {
  TensorMap map;
  std::int64_t coordinate[5] = {};
  char* shared;

  /// f(16 bytes in shared memory, their first element's address in the tensor, how many of the 8
  /// elements are inside: all or a part from the first or to the last one; see `inside`).
  template <typename F>
  void for_each_group(F f) const {
    const std::size_t groups = map.box[0] / 8;
    std::size_t rows = 1;
    for (int i = 1; i < map.rank; ++i) rows *= map.box[i];
    for (std::size_t row = 0; row < rows; ++row) {
      std::size_t rest = row;
      bool inside = true;
      std::int64_t at = 0;
      for (int i = 1; i < map.rank; ++i) {
        const std::int64_t x = coordinate[i] + static_cast<std::int64_t>(rest % map.box[i]);
        rest /= map.box[i];
        inside = inside && x >= 0 && x < map.size(i);
        at += x * static_cast<std::int64_t>(map.stride[i]);
      }
      for (std::size_t g = 0; g < groups; ++g) {
        const std::size_t to =
            swizzled(map.swizzle_bytes, shared_address(shared) + (row * groups + g) * 16) -
            shared_address(shared);
        const std::int64_t c = coordinate[0] + static_cast<std::int64_t>(g) * 8;
        f(shared + to, map.base + at + c * 2, c, inside);
      }
    }
  }
  std::size_t bytes() const {
    std::size_t bytes = map.box[0] * 2;
    for (int i = 1; i < map.rank; ++i) bytes *= map.box[i];
    return bytes;
  }
};

Box make_box(const CUtensorMap_st& map, const void* shared, std::initializer_list<int> coordinates,
             const char* what, const Where& where) {
  Box box;
  box.shared = static_cast<char*>(const_cast<void*>(shared));
  box.map = reinterpret_cast<const TensorMap&>(map);
  if (box.map.magic != TensorMap::kMagic) fail_at(what, where, "by what is no tensor map");
  if (box.map.rank != static_cast<int>(coordinates.size())) {
    fail_at(what, where,
            "of " + std::to_string(coordinates.size()) + " coordinates by a map of " +
                std::to_string(box.map.rank));
  }
  int rank = 0;
  for (const int c : coordinates) box.coordinate[rank++] = c;
  const unsigned pattern = box.map.swizzle_bytes * 8;
  if (shared_address(shared) % pattern != 0) {
    fail_at(what, where,
            "at shared memory + " + std::to_string(shared_offset(shared)) +
                ", which is not aligned to the swizzle's " + std::to_string(pattern) + " bytes");
  }
  if (shared_offset(shared) + box.bytes() > shared_bytes()) {
    fail_at(what, where, "of a box that ends outside of shared memory");
  }
  return box;
}

struct Load : Effect {
  Box box;
  MBarrier* barrier;
  std::uint32_t number;
  Load* spare;

  void run() override {
    box.for_each_group([&](char* to, const char* from, std::int64_t c, bool inside) {
      for (int e = 0; e < 8; ++e) {
        const bool real = inside && c + e >= 0 && c + e < box.map.size(0);
        copy_element(to + 2 * e, real ? from + 2 * e : "\0");
      }
      Shadow& shadow = *shadow_of(to);
      --shadow.loads;
      shadow.load = number;
    });
    barrier->bytes -= static_cast<std::int64_t>(box.bytes());
    complete_if_due(*barrier);
    loads().give(this);
  }
  static Pool<Load>& loads() {
    static Pool<Load> pool;
    return pool;
  }
};

void start_load(void* shared, const CUtensorMap_st& map, const void* at,
                std::initializer_list<int> coordinates, const Where& where) {
  MBarrier& barrier = barrier_at(at, kLoad, where);
  if (!barrier.fenced) fail_at(kLoad, where, "at an mbarrier without fence.mbarrier_init");
  Load* load = Load::loads().take();
  load->box = make_box(map, shared, coordinates, kLoad, where);
  load->barrier = &barrier;
  load->number = load_number(barrier);
  barrier.last_load = barrier.phase;
  load->box.for_each_group([&](char* to, const char* from, std::int64_t c, bool inside) {
    Shadow& shadow = *shadow_of(to);
    if (shadow.reads > 0) {
      fail_at(kLoad, where, "over what an asynchronous product or store still reads");
    }
    if (shadow.loads > 0) fail_at(kLoad, where, "where another box is arriving");
    if (shadow.unfenced_reads > 0 || shadow.unfenced_writes > 0) {
      fail_at(kLoad, where, "over what a thread has used itself, with no fence.proxy.async since");
    }
    ++shadow.loads;
    announce_write(to, 16);
    if (inside && c >= 0 && c + 8 <= load->box.map.size(0)) announce_read(from, 16);
  });
  if (__tsan_release) __tsan_release(&barrier);
  begin(*load);
}

/// To the sanitizers the thread that issues it reads and writes, then.
struct Store : Effect {
  Box box;

  void run() override {
    box.for_each_group([&](char* from, const char* to, std::int64_t c, bool inside) {
      for (int e = 0; e < 8; ++e) {
        const bool real = inside && c + e < box.map.size(0);
        if (real) copy_element(const_cast<char*>(to) + 2 * e, from + 2 * e);
      }
      --shadow_of(from)->reads;
    });
  }
};

}  // namespace

void load_box(void* shared, const CUtensorMap_st& map, const std::uint64_t& barrier, int c0, int c1,
              int c2, Where where) {
  start_load(shared, map, &barrier, {c0, c1, c2}, where);
}
void load_box(void* shared, const CUtensorMap_st& map, const std::uint64_t& barrier, int c0, int c1,
              int c2, int c3, Where where) {
  start_load(shared, map, &barrier, {c0, c1, c2, c3}, where);
}

void store_box(const CUtensorMap_st& map, const void* shared, int c0, int c1, int c2, int c3,
               Where where) {
  auto* store = new Store;
  store->box = make_box(map, shared, {c0, c1, c2, c3}, kStore, where);
  if (c0 < 0 || c1 < 0 || c2 < 0 || c3 < 0) fail_at(kStore, where, "has a negative coordinate");
  store->box.for_each_group([&](char* from, const char* to, std::int64_t c, bool inside) {
    Shadow& shadow = *shadow_of(from);
    if (shadow.unfenced_writes > 0) {
      fail_at(kStore, where, "reads what was stored with no fence.proxy.async since");
    }
    ++shadow.reads;
    announce_read(from, 16);
    if (inside && c + 8 <= store->box.map.size(0)) announce_write(const_cast<char*>(to), 16);
  });
  current->stores.add(store);
}

void commit_stores() { current->stores.commit(); }
void wait_for_stores(int newest) {
  current->stores.wait(static_cast<unsigned>(newest), [](Effect&) {});
}

// --- Registers and named barriers ----------------------------------------------------------------
namespace {

struct RegisterWait : Parked {
  const Where& where;
  int count;
  RegisterWait(const Where& w, int n) : where(w), count(n) {}
  std::string text() const override {
    return "waits at " + describe("setmaxnreg.inc", where) + " for " + std::to_string(count) +
           " registers a thread; " + std::to_string(hopper().free_registers) + " are free";
  }
};

}  // namespace

void set_registers(int count, bool more, Where where) {
  const char* what = more ? "setmaxnreg.inc" : "setmaxnreg.dec";
  meet_warpgroup(what, nullptr, nullptr, where);
  Hopper& state = hopper();
  int& own = state.registers[thread_index()];
  if (more ? count < own : count > own) {
    fail_at(what, where, "to " + std::to_string(count) + " from " + std::to_string(own));
  }
  while (count - own > state.free_registers) {
    state.want_registers.add(thread_index());
    park(RegisterWait(where, count));
  }
  state.free_registers -= count - own;
  own = count;
  for (const std::size_t thread : state.want_registers) wake(thread);
  state.want_registers.clear();
}

void named_barrier(int number, int threads, Where where) {
  static constexpr const char* kNames[] = {
      "bar.sync 0",  "bar.sync 1",  "bar.sync 2",  "bar.sync 3", "bar.sync 4",  "bar.sync 5",
      "bar.sync 6",  "bar.sync 7",  "bar.sync 8",  "bar.sync 9", "bar.sync 10", "bar.sync 11",
      "bar.sync 12", "bar.sync 13", "bar.sync 14", "bar.sync 15"};
  if (number < 1 || number > 15 || threads % 32 != 0) {
    fail_at("bar.sync", where,
            "of number " + std::to_string(number) + " and " + std::to_string(threads) + " threads");
  }
  meet_named(kNames[number], static_cast<unsigned>(number), static_cast<unsigned>(threads), where);
}

}  // namespace wrn::cuda::simt
