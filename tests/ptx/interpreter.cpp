#include "ptx/interpreter.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <random>
#include <utility>

#include "ptx/counts.h"

namespace wrn::ptx {
namespace {

std::minstd_rand order;

std::byte* aligned(std::byte* p, std::size_t to) {
  return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) + to - 1) / to * to);
}

std::uint64_t value_of(Special special, const Block& block, int thread) {
  const int x = static_cast<int>(block.threads.x), y = static_cast<int>(block.threads.y);
  switch (special) {
    case Special::kThreadX:
      return thread % x;
    case Special::kThreadY:
      return thread / x % y;
    case Special::kThreadZ:
      return thread / x / y;
    case Special::kBlockX:
      return block.index.x;
    case Special::kBlockY:
      return block.index.y;
    case Special::kBlockZ:
      return block.index.z;
    case Special::kThreadsX:
      return block.threads.x;
    case Special::kThreadsY:
      return block.threads.y;
    case Special::kThreadsZ:
      return block.threads.z;
    case Special::kBlocksX:
      return block.grid.x;
    case Special::kBlocksY:
      return block.grid.y;
    case Special::kBlocksZ:
      return block.grid.z;
    case Special::kLane:
      return thread % kLanes;
    case Special::kLanesBelow:
      return (1U << thread % kLanes) - 1;
    case Special::kLanesUpTo:
      return (2U << thread % kLanes) - 1;
  }
  return 0;
}

bool is_reduction(const Instruction& instruction) {
  return instruction.text.starts_with("bar.red");
}

}  // namespace

void set_order_seed(std::uint64_t seed) { order.seed(static_cast<unsigned>(seed) + 1); }

// --- Warps ---------------------------------------------------------------------------------------
Warp::Warp(Block& block_, int number_)
    : block(block_),
      number(number_),
      register_memory_(new std::byte[block_.kernel.register_bytes + 64]),
      local_(block_.kernel.local_bytes * kLanes) {
  registers_ = aligned(register_memory_.get(), 64);
  std::memset(registers_, 0xA5, block.kernel.register_bytes);
  fill_registers(false);
}

void Warp::start(Lanes lanes) {
  std::fill(local_.begin(), local_.end(), std::byte{0xFF});  // not what the block before left
  groups_.clear();
  groups_.push_back({0, lanes});
  fill_registers(true);
}

/// Those that keep what they begin with: constants once, and the special ones for each block.
void Warp::fill_registers(bool special) {
  for (const Initial& initial : block.kernel.initial) {
    if ((initial.source == Source::kSpecial) != special) continue;
    for (int lane = 0; lane < kLanes; ++lane) {
      std::uint64_t value = initial.value;
      if (initial.source == Source::kParameters) {
        value += reinterpret_cast<std::uintptr_t>(block.parameters);
      } else if (initial.source == Source::kSpecial) {
        value = value_of(static_cast<Special>(initial.value), block, number * kLanes + lane);
      }
      std::memcpy(registers_ + initial.place + lane * initial.bytes, &value, initial.bytes);
    }
  }
}

Lanes Warp::alive() const {
  Lanes lanes = 0;
  for (const Group& group : groups_) lanes |= group.lanes;
  return lanes;
}

void Warp::arrive(Group& group, const Instruction& instruction) {
  // bar.sync barrier {, threads}; bar.red.or.pred result, barrier {, threads}, predicate
  const int lane = std::countr_zero(group.lanes);
  const std::size_t first = is_reduction(instruction) ? 1 : 0;
  const std::size_t operands = instruction.at.size() - 2 * first;
  const unsigned barrier = at<unsigned>(instruction.at[first])[lane];
  if (barrier >= block.barriers.size()) fail(instruction, "names no barrier");
  group.state = Group::State::kWaitsForBlock;
  group.barrier = static_cast<int>(barrier);
  Block::Barrier& state = block.barriers[barrier];
  const unsigned threads = operands > 1 ? at<unsigned>(instruction.at[first + 1])[lane] : 0;
  if (threads % kLanes != 0) fail(instruction, "is for a part of a warp");
  if (state.waiting != 0 && state.threads != threads) {
    fail(instruction, "is for another number of threads than those that wait there");
  }
  state.threads = threads;
  state.waiting += static_cast<unsigned>(std::popcount(group.lanes));
  if (threads != 0 && state.waiting > threads) {
    fail(instruction, "has more threads than it is for");
  }
  if (first == 1 && (predicate(instruction.at.back()) & group.lanes) != 0) state.any = true;
}

void Warp::pass(int barrier, bool any) {
  for (Group& group : groups_) {
    if (group.state != Group::State::kWaitsForBlock || group.barrier != barrier) continue;
    const Instruction& instruction = block.kernel.instructions[group.at];
    if (is_reduction(instruction)) {
      Lanes& result = predicate(instruction.at[0]);
      result = any ? result | group.lanes : result & ~group.lanes;
    }
    group.state = Group::State::kReady;
    ++group.at;
  }
}

std::string Warp::where() const {
  std::string text;
  for (const Group& group : groups_) {
    const Instruction& instruction = block.kernel.instructions[static_cast<std::size_t>(group.at)];
    text += fmt::format("{}warp {}, lanes {:08x} at {}, line {}", text.empty() ? "" : "; ", number,
                        group.lanes, instruction.text, instruction.line);
  }
  return text;
}

void Warp::fail(const Instruction& instruction, const std::string& what) const {
  throw Fault(fmt::format("{}, warp {}, line {}: {} {}", block.where(), number, instruction.line,
                          instruction.text, what));
}

/// The lanes that must execute it together. All of them name the same.
Lanes Warp::lanes_named(const Group& group, const Instruction& instruction) {
  if (instruction.kind == Kind::kAligned) return kAllLanes;
  const Lanes* by_lane = at<Lanes>(instruction.at.back());
  const Lanes named = by_lane[std::countr_zero(group.lanes)];
  for (Lanes rest = group.lanes; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    if (by_lane[lane] != named || (named >> lane & 1) == 0) {
      fail(instruction, "is executed by lanes that are not those it names");
    }
  }
  return named;
}

/// Those that are behind go first, so that lanes that parted meet again as soon as they can.
Group* Warp::lowest_ready() {
  Group* lowest = nullptr;
  for (Group& group : groups_) {
    if (group.state == Group::State::kReady && (!lowest || group.at < lowest->at)) lowest = &group;
  }
  return lowest;
}

/// Lanes that have come to the same instruction go on together; those that waited look again.
void Warp::merge() {
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    for (std::size_t j = groups_.size() - 1; j > i; --j) {
      if (groups_[i].at != groups_[j].at || groups_[i].state == Group::State::kWaitsForBlock ||
          groups_[j].state == Group::State::kWaitsForBlock) {
        continue;
      }
      groups_[i].lanes |= groups_[j].lanes;
      groups_[i].state = Group::State::kReady;
      groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(j));
    }
  }
}

void Warp::branch(Group& group, const Instruction& instruction, Lanes taken) {
  const Lanes others = group.lanes & ~taken;
  if (taken == 0) {
    ++group.at;
  } else if (others == 0) {
    group.at = instruction.target;
  } else {
    group.lanes = others;
    ++group.at;
    groups_.push_back({instruction.target, taken});
  }
}

void Warp::exit(Group& group, const Instruction& instruction, Lanes lanes) {
  for (Lanes rest = lanes; rest != 0; rest &= rest - 1) {
    Copies& of_lane = copies[static_cast<std::size_t>(std::countr_zero(rest))];
    if (of_lane.under_way()) fail(instruction, "with copies under way");
    of_lane = {};
  }
  for (Group& other : groups_) {  // that may have waited for these
    if (other.state == Group::State::kWaitsForLanes) other.state = Group::State::kReady;
  }
  group.lanes &= ~lanes;
  ++group.at;
  if (group.lanes == 0) groups_.erase(groups_.begin() + (&group - groups_.data()));
}

long Warp::run() {
  for (Group& group : groups_) {
    if (group.state == Group::State::kWaitsForEvent) group.state = Group::State::kReady;
  }
  for (long done = 0;; ++done) {
    if (groups_.size() > 1) merge();
    Group* const found = lowest_ready();
    if (!found) return done;
    Group& group = *found;
    const Instruction& instruction = block.kernel.instructions[static_cast<std::size_t>(group.at)];
    Lanes lanes = group.lanes;
    if (instruction.guard != kNone) {
      const Lanes guard = predicate(instruction.guard);
      lanes &= instruction.guard_negated ? ~guard : guard;
    }
    switch (instruction.kind) {
      case Kind::kPlain:
        if (lanes != 0) instruction.execute(*this, instruction, lanes);
        ++group.at;
        break;
      case Kind::kBranch:
        branch(group, instruction, lanes);
        break;
      case Kind::kExit:
        exit(group, instruction, lanes);
        break;
      case Kind::kBarrier:
        if ((alive() & ~group.lanes) != 0) {
          group.state = Group::State::kWaitsForLanes;
        } else {
          arrive(group, instruction);
        }
        break;
      case Kind::kTogether:
      case Kind::kAligned: {
        const Lanes named = lanes_named(group, instruction);
        if ((named & alive() & ~group.lanes) != 0) {
          group.state = Group::State::kWaitsForLanes;
        } else {
          if (instruction.kind == Kind::kAligned && group.lanes != kAllLanes) {
            fail(instruction, "lacks lanes");
          }
          if (instruction.execute) instruction.execute(*this, instruction, group.lanes);
          ++group.at;
        }
        break;
      }
      case Kind::kPoll:
        instruction.execute(*this, instruction, group.lanes);
        ++group.at;
        if ((predicate(instruction.at[0]) & group.lanes) != group.lanes) {
          group.state = Group::State::kWaitsForEvent;
        } else {
          block.event_came = true;
        }
        break;
    }
  }
}

/// `bytes` is a power of two.
void Warp::check_alignment(const Instruction& instruction, std::uint64_t address,
                           std::size_t bytes) const {
  if ((address & (bytes - 1)) != 0) {
    fail(instruction, fmt::format("is not aligned: {} bytes at {:#x}", bytes, address));
  }
}

std::byte* Warp::shared(const Instruction& instruction, std::uint64_t address, std::size_t bytes) {
  if (address < kWindow || address - kWindow + bytes > block.shared_bytes()) {
    fail(instruction,
         fmt::format("is outside of shared memory: {} bytes at {} of {}", bytes,
                     static_cast<std::int64_t>(address) - kWindow, block.shared_bytes()));
  }
  check_alignment(instruction, address, bytes);
  return block.shared_begin() + (address - kWindow);
}

std::byte* Warp::global(const Instruction& instruction, std::uint64_t address, std::size_t bytes) {
  Range& last = block.last_used;
  auto* p = reinterpret_cast<std::byte*>(address);
  const auto is_outside = [&] {  // also where address + bytes begins at 0 again
    return p < last.begin || p >= last.end || bytes > static_cast<std::size_t>(last.end - p);
  };
  if (is_outside()) {
    last = device_memory(p);
    if (is_outside()) {
      fail(instruction,
           fmt::format("is outside of device memory: {} bytes at {:#x}", bytes, address));
    }
  }
  check_alignment(instruction, address, bytes);
  return p;
}

std::byte* Warp::local(const Instruction& instruction, int lane, std::uint64_t address,
                       std::size_t bytes) {
  const std::size_t each = block.kernel.local_bytes;
  if (address > each || bytes > each - address) {
    fail(instruction, fmt::format("is outside of local memory: {} bytes at {} of {}", bytes,
                                  static_cast<std::int64_t>(address), each));
  }
  check_alignment(instruction, address, bytes);
  return local_.data() + static_cast<std::size_t>(lane) * each + address;
}

// --- Blocks --------------------------------------------------------------------------------------
Block::Block(const Kernel& kernel_, Extent grid_, Extent threads_, std::size_t shared,
             const std::byte* parameters_)
    : kernel(kernel_),
      grid(grid_),
      threads(threads_),
      parameters(parameters_),
      shared_bytes_(kernel_.shared_bytes + shared),
      shared_memory_(new std::byte[shared_bytes_ + 1024]),
      shared_(aligned(shared_memory_.get(), 1024)) {
  const unsigned all = threads.x * threads.y * threads.z;
  for (unsigned first = 0; first < all; first += kLanes) {
    warps_.push_back(std::make_unique<Warp>(*this, static_cast<int>(first / kLanes)));
  }
}

/// Lets those go on whose barrier all have reached: as many as it says, or all that have not ended.
/// Returns whether any do.
bool Block::pass_barriers() {
  bool passes = false;
  unsigned alive = 0;
  for (const auto& warp : warps_) alive += static_cast<unsigned>(std::popcount(warp->alive()));
  for (int barrier = 0; barrier < static_cast<int>(barriers.size()); ++barrier) {
    Barrier& state = barriers[static_cast<std::size_t>(barrier)];
    if (state.waiting == 0 || state.waiting < (state.threads != 0 ? state.threads : alive)) {
      continue;
    }
    const bool any = std::exchange(state, {}).any;
    for (const auto& warp : warps_) warp->pass(barrier, any);
    passes = true;
  }
  return passes;
}

void Block::run(Extent index_) {
  index = index_;
  std::memset(shared_, 0xFF, shared_bytes_);
  const unsigned all = threads.x * threads.y * threads.z;
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    const unsigned lanes = std::min<unsigned>(all - static_cast<unsigned>(w) * kLanes, kLanes);
    warps_[w]->start(kAllLanes >> (kLanes - lanes));
  }
  for (int idle = 0; true;) {
    event_came = false;
    long done = 0;
    bool ended = true;
    const std::size_t first = order() % warps_.size();
    for (std::size_t w = 0; w < warps_.size(); ++w) {
      const auto& warp = warps_[(first + w) % warps_.size()];
      if (warp->has_ended()) continue;
      done += warp->run();
      ended = ended && warp->has_ended();
    }
    if (counts) counts->instructions += static_cast<std::uint64_t>(done);
    if (ended) return;
    // A poll that fails takes a few instructions.
    const bool goes_on =
        pass_barriers() || event_came || done > 8 * static_cast<long>(warps_.size());
    idle = goes_on ? 0 : idle + 1;
    if (idle < 1000) continue;
    std::string text;
    for (const auto& warp : warps_) {
      if (!warp->has_ended()) text += (text.empty() ? "" : "; ") + warp->where();
    }
    throw Fault(where() + ": nothing goes on: " + text);
  }
}

std::string Block::where() const {
  return fmt::format("kernel {}, block ({},{},{})", kernel.name, index.x, index.y, index.z);
}

void run(const Kernel& kernel, Extent grid, Extent threads, std::size_t shared,
         const std::byte* parameters) {
  Block block(kernel, grid, threads, shared, parameters);
  begin_counting(kernel.name);
  if (counts) {
    const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
    counts->blocks += blocks;
    counts->warps += blocks * ((threads.x * threads.y * threads.z + kLanes - 1) / kLanes);
  }
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) block.run({x, y, z});
    }
  }
  end_counting();
}

}  // namespace wrn::ptx
