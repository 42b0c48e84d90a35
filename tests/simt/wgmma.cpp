// wgmma: products of a warpgroup, under way until they are waited for. Compiled as scheduler.cpp
// is.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "simt/device.h"
#include "simt/hopper_state.h"
#include "simt/internal.h"

namespace wrn::cuda::simt {

/// A tile of D while products into it are under way; the threads' own registers hold NaNs.
struct Accumulators {
  int n, under_way;
  float* registers[128];
  float value[64][256];
  Accumulators* spare;
};

/// Products of a warpgroup run in order: each runs the first that has not.
struct PendingProduct : Effect {
  void run() override;

  WarpgroupState* warpgroup;
  Product product;
  Accumulators* accumulators;
  Shadow* reads[128 + 512];  // of A, and of B at its widest, 16 bytes each
  int read_count;
  unsigned batch;
  bool has_run;
  PendingProduct *next, *spare;
};

namespace {

constexpr const char* kWhat = "wgmma.mma_async";

int row_of(int thread, int i) { return 16 * (thread / 32) + thread % 32 / 4 + 8 * (i / 2 % 2); }
int column_of(int thread, int i) { return 8 * (i / 4) + 2 * (thread % 4) + i % 2; }

/// An operand as its descriptor says: extent x 16 elements.
struct Operand {
  unsigned start, lbo, sbo, row_bytes;
  bool mn;

  Operand(std::uint64_t descriptor, bool contiguous_along_mn, const Where& where)
      : mn(contiguous_along_mn) {
    const auto field = [&](int bit) {
      return static_cast<unsigned>(descriptor >> bit & 0x3FFF) << 4;
    };
    start = field(0);
    lbo = field(16);
    sbo = field(32);
    constexpr unsigned kRowBytes[] = {0, 128, 64, 32};
    row_bytes = kRowBytes[descriptor >> 62];
    if (row_bytes == 0) fail_at(kWhat, where, "has an operand without swizzle: not emulated");
    if (descriptor >> 49 & 7) fail_at(kWhat, where, "has an operand with a base offset");
    // The pattern repeats every 8 rows; along k the start may be within a row.
    const unsigned inside = start % (8 * row_bytes);
    if (mn ? inside != 0 : inside >= row_bytes) {
      fail_at(kWhat, where, "has an operand that does not begin with 8 rows of the swizzle");
    }
  }
  /// Of element (mn, k), k a multiple of 8 or (contiguous along mn) mn one: its 16 bytes.
  unsigned address(int i, int k) const {
    const auto m = static_cast<unsigned>(i), kk = static_cast<unsigned>(k);
    const unsigned across = row_bytes / 2;
    const unsigned offset =
        mn ? 2 * (m % across) + m / across * lbo + kk % 8 * row_bytes + kk / 8 * sbo
           : m % 8 * row_bytes + m / 8 * sbo + 2 * kk;
    return static_cast<unsigned>(swizzled(row_bytes, start + offset));
  }
  /// f(the 16 bytes, first mn, first k) for all of them.
  template <typename F>
  void for_each_group(int extent, F f) const {
    for (int i = 0; i < extent; i += mn ? 8 : 1) {
      for (int k = 0; k < 16; k += mn ? 1 : 8) f(address(i, k), i, k);
    }
  }
};

const char* pointer_to(unsigned address) {
  return static_cast<const char*>(shared_begin()) + (address - kWindow);
}

/// Out of line and without instrumentation: nearly all of the emulation's arithmetic is here. (And
/// without memset, of which ThreadSanitizer knows.)
__attribute__((noinline, no_sanitize("address", "undefined"),
               optimize("O3", "no-tree-loop-distribute-patterns"))) void
multiply_tile(int n, bool accumulate, const float (*a)[64], const float (*b)[256],
              float (*d)[256]) {
  for (int m = 0; m < 64; ++m) {
    for (int i = 0; i < n && !accumulate; ++i) d[m][i] = 0;
    for (int k = 0; k < 16; ++k) {
      const float factor = a[k][m];
      for (int i = 0; i < n; ++i) d[m][i] += factor * b[k][i];
    }
  }
}

template <int kExtent>
void read(const Operand& operand, int extent, float (*out)[kExtent]) {
  operand.for_each_group(extent, [&](unsigned address, int i, int k) {
    std::uint16_t bits[8];
    std::memcpy(bits, pointer_to(address), sizeof bits);
    for (int e = 0; e < 8; ++e) {
      float& element = operand.mn ? out[k][i + e] : out[k + e][i];
      element = std::bit_cast<float>(static_cast<std::uint32_t>(bits[e]) << 16);
    }
  });
}

void run_product(PendingProduct& pending) {
  static float a[16][64], b[16][256];
  const Product& p = pending.product;
  const Where nowhere;
  read<64>(Operand(p.a, p.mn_a, nowhere), 64, a);
  read<256>(Operand(p.b, p.mn_b, nowhere), p.n, b);
  multiply_tile(p.n, p.accumulate, a, b, pending.accumulators->value);
  pending.has_run = true;
}

Pool<PendingProduct> pending_products;
Pool<Accumulators> all_accumulators;

WarpgroupState& own_warpgroup() { return hopper().warpgroups[thread_index() / 128]; }

/// What the product reads has come, in one phase of one barrier, and is fenced; notes the reads.
void check_operand(const Operand& operand, int extent, const char* name, PendingProduct& pending,
                   const Where& where) {
  std::uint32_t load = 0;
  const auto fail = [&](unsigned address, const char* why) {
    fail_at(kWhat, where,
            std::string("reads ") + name + " at shared memory + " +
                std::to_string(address - kWindow) + ", " + why);
  };
  operand.for_each_group(extent, [&](unsigned address, int i, int k) {
    if (address < kWindow || address - kWindow + 16 > shared_bytes()) {
      fail(address, "which is outside of shared memory");
    }
    Shadow& shadow = *shadow_of(pointer_to(address));
    if (shadow.loads > 0) fail(address, "where a box is still arriving");
    if (shadow.unfenced_writes > 0) {
      fail(address, "which was stored with no fence.proxy.async since");
    }
    if (shadow.load == 0) fail(address, "where nothing has been written");
    if (i == 0 && k == 0) {
      load = shadow.load;
      if (!has_waited_for(load)) {
        fail(address, "which came in a phase that no thread of the warpgroup has waited for");
      }
    }
    if (shadow.load != load)
      fail(address, "which is of another tile than the operand's first bytes");
    ++shadow.reads;
    pending.reads[pending.read_count++] = &shadow;
  });
}

Accumulators& accumulators_of(WarpgroupState& state, void* const (&operands)[128],
                              const Where& where) {
  const auto& first = *static_cast<const Product*>(operands[0]);
  Accumulators** slot = nullptr;
  for (Accumulators*& accumulators : state.accumulators) {
    if (accumulators && accumulators->registers[0] == first.d) return *accumulators;
    if (!accumulators) slot = &accumulators;
  }
  if (!slot) fail_at(kWhat, where, "into more tiles than the emulation has room for");
  if (!state.fenced) fail_at(kWhat, where, "on registers that no wgmma.fence came before");
  Accumulators* fresh = *slot = all_accumulators.take();
  fresh->n = first.n;
  fresh->under_way = 0;
  for (int t = 0; t < 128; ++t) {
    fresh->registers[t] = static_cast<const Product*>(operands[t])->d;
    for (int i = 0; i < first.n / 2; ++i) {
      float& own = fresh->registers[t][i];
      fresh->value[row_of(t, i)][column_of(t, i)] = own;
      own = std::numeric_limits<float>::quiet_NaN();
    }
  }
  return *fresh;
}

const Where* place = nullptr;  // of the instruction that a combine is called for

void combine_product(void* const (&operands)[128]) {
  const auto& first = *static_cast<const Product*>(operands[0]);
  for (void* operand : operands) {
    const auto& p = *static_cast<const Product*>(operand);
    if (p.a != first.a || p.b != first.b || p.accumulate != first.accumulate) {
      fail_at(kWhat, *place, "has other descriptors in some threads than in others");
    }
  }
  WarpgroupState& state = own_warpgroup();
  PendingProduct* pending = pending_products.take();
  pending->warpgroup = &state;
  pending->product = first;
  pending->read_count = 0;
  pending->batch = state.committed;
  pending->has_run = false;
  pending->next = nullptr;
  check_operand(Operand(first.a, first.mn_a, *place), 64, "A", *pending, *place);
  check_operand(Operand(first.b, first.mn_b, *place), first.n, "B", *pending, *place);
  pending->accumulators = &accumulators_of(state, operands, *place);
  ++pending->accumulators->under_way;
  (state.first ? state.last->next : state.first) = pending;
  state.last = pending;
  begin(*pending);
}

void give_back(Accumulators& accumulators) {
  for (int t = 0; t < 128; ++t) {
    for (int i = 0; i < accumulators.n / 2; ++i) {
      accumulators.registers[t][i] = accumulators.value[row_of(t, i)][column_of(t, i)];
    }
  }
}

void combine_wait(void* const (&operands)[128]) {
  WarpgroupState& state = own_warpgroup();
  const auto newest = static_cast<unsigned>(*static_cast<const int*>(operands[0]));
  while (state.first && state.first->batch + newest < state.committed) {
    PendingProduct* pending = state.first;
    finish(*pending);
    for (int i = 0; i < pending->read_count; ++i) --pending->reads[i]->reads;
    --pending->accumulators->under_way;
    state.first = pending->next;
    pending_products.give(pending);
  }
  for (Accumulators*& accumulators : state.accumulators) {
    if (!accumulators || accumulators->under_way > 0) continue;
    give_back(*accumulators);
    all_accumulators.give(accumulators);
    accumulators = nullptr;
  }
  state.fenced = false;
}

}  // namespace

void PendingProduct::run() {
  PendingProduct* due = warpgroup->first;
  while (due->has_run) due = due->next;
  run_product(*due);
}

void fence_products(Where where) {
  meet_warpgroup("wgmma.fence", nullptr, nullptr, where);
  own_warpgroup().fenced = true;
}

void multiply_async(Product product, Where where) {
  place = &where;
  meet_warpgroup(kWhat, &product, combine_product, where);
}

void commit_products(Where where) {
  meet_warpgroup(
      "wgmma.commit_group", nullptr, [](void* const(&)[128]) { ++own_warpgroup().committed; },
      where);
}

void wait_for_products(int newest, Where where) {
  meet_warpgroup("wgmma.wait_group", &newest, combine_wait, where);
}

}  // namespace wrn::cuda::simt
