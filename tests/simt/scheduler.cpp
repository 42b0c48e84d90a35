// Runs the threads of a kernel as fibers. The sanitizers are told of every switch (their functions
// are weak here: null in a build without them), so AddressSanitizer knows which stack is in use,
// and ThreadSanitizer takes every GPU thread for a thread.
//
// This file is never compiled with -fsanitize=thread: what the scheduler itself reads and writes
// must not count as the threads' accesses. For the same reason it keeps to types of its own: a
// standard template that a kernel file uses too could be linked in its instrumented form.
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/tsan_interface.h>
#include <sys/mman.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/stack_context.hpp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#include "simt/device.h"
#include "simt/internal.h"
#include "simt/simt.h"

#pragma weak __sanitizer_start_switch_fiber
#pragma weak __sanitizer_finish_switch_fiber
#pragma weak __tsan_get_current_fiber
#pragma weak __tsan_create_fiber
#pragma weak __tsan_switch_to_fiber
#pragma weak __tsan_acquire
#pragma weak __tsan_release

/// A process waits a second at its end for races of other threads. Here there are none, and every
/// case is a process.
extern "C" const char* __tsan_default_options() { return "atexit_sleep_ms=0"; }

namespace wrn::cuda::simt {

ThreadContext* current = nullptr;

namespace {

using boost::context::fiber;

// --- The sanitizers' view ------------------------------------------------------------------------
void acquire(void* object) {
  if (__tsan_acquire) __tsan_acquire(object);
}
void release(void* object) {
  if (__tsan_release) __tsan_release(object);
}
/// Without order: what one fiber did before does not happen before what the other does.
void tsan_switch(void* to) {
  if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to, __tsan_switch_to_fiber_no_sync);
}

/// One side of a switch, as AddressSanitizer sees it.
struct Stack {
  const void* bottom = nullptr;
  std::size_t size = 0;
  void* fake_stack = nullptr;
};
void start_switch(Stack& from, const Stack& to) {
  if (__sanitizer_start_switch_fiber) {
    __sanitizer_start_switch_fiber(&from.fake_stack, to.bottom, to.size);
  }
}
void finish_switch(Stack& to, Stack* from) {
  if (!__sanitizer_finish_switch_fiber) return;
  __sanitizer_finish_switch_fiber(to.fake_stack, from ? &from->bottom : nullptr,
                                  from ? &from->size : nullptr);
}

// --- Workers: fibers that run one GPU thread after another, kept for the life of the process -----
//
// ThreadSanitizer holds what one worker does to be in order. So that races between blocks are
// found, a block takes other workers than the last one, going around a ring; races of a block with
// its ring-fellows go unseen, until another seed's order of blocks parts them. (A fresh fiber of
// ThreadSanitizer's for each thread would cost a millisecond, in g++ 12.)
constexpr std::size_t kStackBytes = 256 * 1024, kGuardBytes = 4096;
constexpr std::size_t kRing = 512;

struct Worker {
  Stack stack;
  fiber self, host;
  void* tsan = nullptr;
};
Stack host_stack;
std::vector<Worker*>& workers = *new std::vector<Worker*>;  // never destroyed: nor are the fibers
std::size_t ring_position = 0;

struct WorkerStack {  // Boost's StackAllocator
  boost::context::stack_context memory;
  boost::context::stack_context allocate() { return memory; }
  void deallocate(boost::context::stack_context&) {}
};

void run_thread();
void switch_to_master();

Worker* new_worker() {
  void* memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE) != 0) {
    fatal("no memory for the stacks of a block's threads");
  }
  auto* worker = new Worker;
  worker->stack.bottom = static_cast<char*>(memory) + kGuardBytes;
  worker->stack.size = kStackBytes;
  if (__tsan_create_fiber) worker->tsan = __tsan_create_fiber(0);
  boost::context::stack_context context;
  context.size = kStackBytes;
  context.sp = static_cast<char*>(memory) + kGuardBytes + kStackBytes;
  worker->self = fiber(std::allocator_arg, WorkerStack{context}, [worker](fiber&& host) {
    worker->host = std::move(host);
    finish_switch(worker->stack, &host_stack);
    for (;;) {
      run_thread();
      switch_to_master();
    }
    return fiber{};
  });
  return worker;
}

Worker* next_worker() {
  Worker*& worker = workers[ring_position++ % workers.size()];
  if (!worker) worker = new_worker();
  return worker;
}

// --- Blocks, threads, meetings -------------------------------------------------------------------
/// Where threads wait for each other. Reused once all have left, by the same warp or block.
struct Meeting {
  const char* what = nullptr;
  Where where;
  unsigned mask = 0, expected = 0, arrived = 0, left = 0;
  Meeting* next = nullptr;
};

struct Block;

struct Thread : ThreadContext {
  Block* owner = nullptr;
  Worker* worker = nullptr;
  std::size_t index = 0;  // in the block
  Meeting* meeting = nullptr;
  void* operand = nullptr;
  const Parked* parked = nullptr;
  bool waited = false;  // for previous kernels
  bool exited = false;
};

/// The threads that meet: a warp, or the block.
struct Group {
  Thread* first = nullptr;
  std::size_t size = 0;
  Meeting* meetings = nullptr;
};

/// On the heap, and with it its meetings, so that ThreadSanitizer forgets them with the block.
struct Block {
  const Launch& launch;
  void* shared = nullptr;
  std::vector<Thread> threads;
  std::vector<Thread*> ready;
  std::vector<Group> warps, warpgroups;
  Group all, named[16];
  Worker* master = nullptr;  // allocates, forks, joins and frees: a fiber for ThreadSanitizer alone
  std::size_t exited = 0;
  std::vector<Shadow> shadow;               // of shared memory
  std::unique_ptr<BlockState> state;        // hopper.cpp's
  char forked = 0, joined = 0, fenced = 0;  // objects of ThreadSanitizer's, as is a Meeting
};

Thread* running = nullptr;
Block* running_block = nullptr;
constinit Random order(0);  // a seed may be set before this file's own initialisation
std::map<std::string, int>& launches = *new std::map<std::string, int>;
// Objects of ThreadSanitizer's, a launch's own.
char* device_fence = nullptr;
char* previous_kernels = nullptr;

void switch_to_thread(Thread& thread) {
  running = &thread;
  current = &thread;
  Worker& worker = *thread.worker;
  tsan_switch(worker.tsan);
  start_switch(host_stack, worker.stack);
  worker.self = std::move(worker.self).resume();
  finish_switch(host_stack, nullptr);
  running = nullptr;
  current = nullptr;
}

void switch_to_master() {
  Worker& worker = *running->worker;
  tsan_switch(running->owner->master->tsan);
  start_switch(worker.stack, host_stack);
  worker.host = std::move(worker.host).resume();
  finish_switch(worker.stack, &host_stack);
}

[[noreturn]] void fail_here(const std::string& message);

void run_thread() {
  Block& block = *running->owner;
  acquire(&block.forked);
  block.launch.body();
  if (!running->waited) fail_here("exits without having waited for previous kernels");
  if (running->copies.oldest()) fail_here("exits with copies under way, which nobody waited for");
  if (running->stores.oldest()) {
    fail_here("exits with bulk stores under way, which it has not waited for");
  }
  running->exited = true;
  ++block.exited;
  release(&block.joined);
}

// --- Errors ------------------------------------------------------------------------------------
std::string triple(const uint3& v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

[[noreturn]] void fail_in(const Block& block, const std::string& message) {
  fatal("kernel " + block.launch.name + ", block " + triple(block.threads[0].block) + message);
}
[[noreturn]] void fail_here(const std::string& message) {
  fail_in(*running->owner, ", thread " + triple(running->thread) + ": " + message);
}

std::string describe(const char* what, unsigned mask, const Where& where) {
  char text[32] = "";
  if (mask != 0) std::snprintf(text, sizeof text, " of the lanes 0x%08x", mask);
  return what + std::string(text) + " at " + where.file_name() + ":" + std::to_string(where.line());
}

std::string state_of(const Thread& thread) {
  if (thread.exited) return "has exited";
  if (thread.parked) return thread.parked->text();
  return "waits at " + describe(thread.meeting->what, thread.meeting->mask, thread.meeting->where);
}

/// No thread can run, and not all have exited: says what each waits for, neighbours together.
[[noreturn]] void fail_stuck(const Block& block) {
  std::string message;
  for (std::size_t begin = 0, end = 0; begin < block.threads.size(); begin = end) {
    const std::string state = state_of(block.threads[begin]);
    while (end < block.threads.size() && state_of(block.threads[end]) == state) ++end;
    if (message.size() > 1000) {
      message += "; ...";
      break;
    }
    message += (message.empty() ? ": no thread can go on: " : "; ");
    message += begin + 1 == end ? "thread " + std::to_string(begin) + " "
                                : "each of threads " + std::to_string(begin) + "-" +
                                      std::to_string(end - 1) + " ";
    message += state;
  }
  fail_in(block, message);
}

// --- Meetings ----------------------------------------------------------------------------------
Meeting* join(Group& group, const char* what, unsigned mask, unsigned expected,
              const Where& where) {
  Meeting* unused = nullptr;
  for (Meeting* m = group.meetings; m; m = m->next) {
    if (m->arrived == 0) {
      unused = m;
    } else if (m->arrived < m->expected && m->mask == mask && m->where.line() == where.line() &&
               m->where.column() == where.column() &&
               std::strcmp(m->where.file_name(), where.file_name()) == 0) {
      return m;
    }
  }
  if (!unused) {
    unused = new Meeting;
    unused->next = group.meetings;
    group.meetings = unused;
  }
  unused->what = what;
  unused->where = where;
  unused->mask = mask;
  unused->expected = expected;
  return unused;
}

/// At most one of the two combines: of 32 lanes, or of the 128 threads of a warpgroup.
void meet(Group& group, const char* what, unsigned mask, unsigned expected, void* operand,
          Combine combine, CombineWarpgroup combine_warpgroup, bool orders_memory,
          const Where& where) {
  Thread& self = *running;
  Meeting* meeting = join(group, what, mask, expected, where);
  if (orders_memory) release(meeting);
  self.meeting = meeting;
  self.operand = operand;
  if (++meeting->arrived == meeting->expected) {
    void* operands[32] = {};
    void* warpgroup[128] = {};
    for (std::size_t i = 0; i < group.size; ++i) {
      Thread& thread = group.first[i];
      if (thread.meeting != meeting) continue;
      if (combine) operands[thread.lane] = thread.operand;
      if (combine_warpgroup) warpgroup[i] = thread.operand;
      self.owner->ready.push_back(&thread);
    }
    if (combine) combine(operands);
    if (combine_warpgroup) combine_warpgroup(warpgroup);
  }
  switch_to_master();
  if (orders_memory) acquire(meeting);
  self.meeting = nullptr;
  if (++meeting->left == meeting->expected) meeting->arrived = meeting->left = 0;
}

struct Shuffle {
  std::uint64_t bits, result;
  int source;
};
void combine_shuffle(void* const (&operands)[32]) {
  for (void* operand : operands) {
    if (!operand) continue;
    auto& lane = *static_cast<Shuffle*>(operand);
    lane.result = static_cast<const Shuffle*>(operands[lane.source])->bits;
  }
}

struct Vote {
  bool predicate;
  unsigned result;
};
void combine_vote(void* const (&operands)[32]) {
  unsigned votes = 0;
  for (unsigned i = 0; i < 32; ++i) {
    if (operands[i] && static_cast<const Vote*>(operands[i])->predicate) votes |= 1U << i;
  }
  for (void* operand : operands) {
    if (operand) static_cast<Vote*>(operand)->result = votes;
  }
}

// --- Effects -----------------------------------------------------------------------------------
// Those to come. Not a vector: whoever runs adds to it, and ThreadSanitizer would see the vector's
// memory grow in one fiber and be freed in another.
constexpr std::size_t kMostEffects = std::size_t{1} << 20;
Effect* effects[kMostEffects];
std::size_t effect_count = 0;

void run_effect(std::size_t i) {
  Effect* effect = effects[i];
  effects[i] = effects[--effect_count];
  effects[i]->index = i;
  effect->index = Effect::kHasRun;
  effect->run();
}

/// Between two threads' turns: with Progress::kRandom now and then one of those to come, or all of
/// them, one by one, when no thread can go on.
void let_effects_happen(const Block& block) {
  if (effect_count == 0) return;
  const bool due = progress() == Progress::kRandom && order.below(4) == 0;
  if (due || block.ready.empty()) run_effect(order.below(effect_count));
}

// --- Running a kernel ----------------------------------------------------------------------------
void start_threads(Block& block, const uint3& index) {
  const dim3& dim = block.launch.block;
  const std::size_t n = std::size_t{dim.x} * dim.y * dim.z;
  block.threads.resize(n);
  block.ready.reserve(n);
  for (std::size_t i = 0; i < n; ++i) {
    Thread& thread = block.threads[i];
    const auto linear = static_cast<unsigned>(i);
    thread.thread = {linear % dim.x, linear / dim.x % dim.y, linear / dim.x / dim.y};
    thread.block = index;
    thread.block_dim = dim;
    thread.grid_dim = block.launch.grid;
    thread.lane = static_cast<int>(i % 32);
    thread.owner = &block;
    thread.index = i;
    thread.worker = next_worker();
    block.ready.push_back(&thread);
  }
  for (std::size_t i = 0; i < n; i += 32) {
    block.warps.push_back({&block.threads[i], std::min<std::size_t>(32, n - i)});
  }
  for (std::size_t i = 0; i < n; i += 128) {
    block.warpgroups.push_back({&block.threads[i], std::min<std::size_t>(128, n - i)});
  }
  block.all = {block.threads.data(), n};
  for (Group& group : block.named) group = block.all;
  release(&block.forked);
}

void run_block(const Launch& launch, const uint3& index, char* kernel_joined) {
  void* const host = __tsan_get_current_fiber ? __tsan_get_current_fiber() : nullptr;
  Worker* const master = next_worker();
  tsan_switch(master->tsan);
  acquire(&launch.enqueued);
  auto block = std::make_unique<Block>(launch);
  block->master = master;
  running_block = block.get();
  constexpr std::size_t kAlignment = 1024;
  if (launch.shared > 0 && posix_memalign(&block->shared, kAlignment, launch.shared) != 0) {
    fatal("no memory for shared memory");
  }
  if (launch.shared > 0) std::memset(block->shared, poison(), launch.shared);
  block->shadow.resize((launch.shared + 15) / 16);
  start_threads(*block, index);

  while (!block->ready.empty() || effect_count > 0) {
    let_effects_happen(*block);
    if (block->ready.empty()) continue;
    std::swap(block->ready[order.below(block->ready.size())], block->ready.back());
    Thread* next = block->ready.back();
    block->ready.pop_back();
    switch_to_thread(*next);
  }
  if (block->exited != block->threads.size()) fail_stuck(*block);
  if (block->state) block->state->check_exit();

  acquire(&block->joined);
  std::vector<Group>& groups = block->warps;
  groups.push_back(block->all);
  groups.insert(groups.end(), block->warpgroups.begin(), block->warpgroups.end());
  groups.insert(groups.end(), std::begin(block->named), std::end(block->named));
  for (const Group& group : groups) {
    for (Meeting *m = group.meetings, *next; m; m = next) {
      next = m->next;
      delete m;
    }
  }
  std::free(block->shared);
  block.reset();
  running_block = nullptr;
  release(kernel_joined);
  tsan_switch(host);
}

}  // namespace

void meet_warp(const char* what, unsigned mask, void* operand, Combine combine, bool orders_memory,
               Where where) {
  if ((mask >> running->lane & 1) == 0) {
    fail_here(describe(what, mask, where) + " does not name the lane that calls it, " +
              std::to_string(running->lane));
  }
  meet(running->owner->warps[running->index / 32], what, mask,
       static_cast<unsigned>(std::popcount(mask)), operand, combine, nullptr, orders_memory, where);
}

void meet_warpgroup(const char* what, void* operand, CombineWarpgroup combine, Where where) {
  meet(running->owner->warpgroups[running->index / 128], what, 0, 128, operand, nullptr, combine,
       false, where);
}

void meet_block(const char* what, Where where) {
  Block& block = *running->owner;
  meet(block.all, what, 0, static_cast<unsigned>(block.threads.size()), nullptr, nullptr, nullptr,
       true, where);
}

void meet_named(const char* what, unsigned number, unsigned threads, Where where) {
  meet(running->owner->named[number], what, 0, threads, nullptr, nullptr, nullptr, true, where);
}

void park(const Parked& parked) {
  running->parked = &parked;
  switch_to_master();
  running->parked = nullptr;
}
std::size_t thread_index() { return running->index; }
void wake(std::size_t index) { running_block->ready.push_back(&running_block->threads[index]); }
std::unique_ptr<BlockState>& block_state() { return running_block->state; }

std::uint64_t shuffle(const char* what, unsigned mask, std::uint64_t bits, int source,
                      Where where) {
  if (source < 0 || source > 31 || (mask >> source & 1) == 0) {
    fail_here(describe(what, mask, where) + " reads lane " + std::to_string(source) +
              ", which is not among them");
  }
  Shuffle lane{bits, 0, source};
  meet_warp(what, mask, &lane, combine_shuffle, false, where);
  return lane.result;
}

unsigned ballot(const char* what, unsigned mask, bool predicate, Where where) {
  Vote lane{predicate, 0};
  meet_warp(what, mask, &lane, combine_vote, false, where);
  return lane.result;
}

/// Fences order each other, as they are met; whether the flag between them is right is for the
/// values to show.
void fence(bool whole_device) {
  char* object = whole_device ? device_fence : &running->owner->fenced;
  release(object);
  acquire(object);
}

void wait_for_previous_kernels() {
  acquire(previous_kernels);
  running->waited = true;
}

void begin(Effect& effect) {
  if (effect_count == kMostEffects) fail_here("has more under way than the emulation has room for");
  effect.index = effect_count;
  effects[effect_count++] = &effect;
  const bool now =
      progress() == Progress::kAtOnce || (progress() == Progress::kRandom && order.below(4) == 0);
  if (now) run_effect(effect.index);
}

void finish(Effect& effect) {
  if (effect.index != Effect::kHasRun) run_effect(effect.index);
}

Shadow* shadow_of(const void* p) {
  Block& block = *running_block;
  const auto offset =
      reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(block.shared);
  return offset < block.launch.shared ? &block.shadow[offset / 16] : nullptr;
}

void fail_at(const char* what, const Where& where, const std::string& message) {
  fail_here(describe(what, 0, where) + " " + message);
}
void fail_in_block(const std::string& message) { fail_in(*running_block, ": " + message); }
std::string describe(const char* what, const Where& where) { return describe(what, 0, where); }

std::size_t shared_offset(const void* p) {
  const auto offset =
      reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(running_block->shared);
  if (offset >= running_block->launch.shared) fail_in_block("an address outside of shared memory");
  return offset;
}
std::size_t shared_bytes() { return running_block->launch.shared; }
void* shared_begin() { return running_block->shared; }

void* shared_memory(std::size_t bytes) {
  const Block& block = *running->owner;
  if (bytes > block.launch.shared) {
    fail_here("shared_storage() of " + std::to_string(bytes) + " bytes, launched with " +
              std::to_string(block.launch.shared));
  }
  return block.shared;
}

void set_order_seed(std::uint64_t seed) { order = Random(seed); }
std::map<std::string, int> launched_kernels() { return launches; }

void fatal(const std::string& message) {
  std::fprintf(stderr, "simt: %s\n", message.c_str());
  std::abort();
}

void order_after_now(const Launch& launch) { release(&launch.enqueued); }

void run_kernel(const Launch& launch) {
  ++launches[launch.name];
  const dim3& grid = launch.grid;
  std::vector<std::uint64_t> blocks(std::size_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0);
  for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[order.below(i)]);

  // Objects of this launch alone. Blocks are ordered after what preceded the launch, their threads
  // from where they wait on after what preceded the kernel in its stream, and all before what
  // follows it; but not with each other.
  auto preceded = std::make_unique<char>(), joined = std::make_unique<char>();
  auto fenced = std::make_unique<char>();
  device_fence = fenced.get();
  previous_kernels = preceded.get();
  release(previous_kernels);
  const std::size_t workers_needed =
      std::size_t{launch.block.x} * launch.block.y * launch.block.z + 1;
  const std::size_t ring =
      __tsan_create_fiber ? std::max(kRing, 2 * workers_needed) : workers_needed;
  if (workers.size() < ring) workers.resize(ring);
  for (const std::uint64_t i : blocks) {
    run_block(launch,
              {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
               static_cast<unsigned>(i / grid.x / grid.y)},
              joined.get());
  }
  acquire(joined.get());
  device_fence = previous_kernels = nullptr;
}

}  // namespace wrn::cuda::simt
