// Loads, stores, atomics, and what orders them, which is nothing here: blocks and warps run one
// after another. (PTX ISA 9.7.9 and 9.7.13.)
#include <bit>
#include <cstring>

#include "ptx/counts.h"
#include "ptx/interpreter.h"

namespace wrn::ptx {
namespace {

enum class Space { kGlobal, kShared, kLocal, kParameters };

/// A place of `bytes` bytes for a lane, at the address that operand `n` and the constant say.
template <Space space>
std::byte* address(Warp& warp, const Instruction& i, std::size_t n, int lane, std::size_t bytes) {
  const std::uint64_t add = static_cast<std::uint64_t>(i.constant);
  if constexpr (space == Space::kShared) {
    return warp.shared(i, warp.at<std::uint32_t>(i.at[n])[lane] + static_cast<std::uint32_t>(add),
                       bytes);
  } else {
    const std::uint64_t base = warp.at<std::uint64_t>(i.at[n])[lane] + add;
    if constexpr (space == Space::kGlobal) return warp.global(i, base, bytes);
    if constexpr (space == Space::kLocal) return warp.local(i, lane, base, bytes);
    return reinterpret_cast<std::byte*>(base);
  }
}

/// The lanes' addresses.
template <Space space>
void find_addresses(Warp& warp, const Instruction& i, std::size_t n, Lanes lanes, std::size_t bytes,
                    bool is_load, std::byte* (&addresses)[kLanes]) {
  for (Lanes rest = lanes; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    addresses[lane] = address<space>(warp, i, n, lane, bytes);
  }
  if (!counts) return;
  if constexpr (space == Space::kGlobal) count_global(addresses, lanes, bytes, is_load);
  if constexpr (space == Space::kShared) count_shared(addresses, lanes, bytes);
}

/// ld: `count` neighbours of type M, extended as its sign says to registers of type R.
template <Space space, typename M, typename R, int count>
void load(Warp& warp, const Instruction& i, Lanes lanes) {
  std::byte* addresses[kLanes];
  M values[count];
  find_addresses<space>(warp, i, count, lanes, sizeof values, true, addresses);
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = std::countr_zero(lanes);
    std::memcpy(values, addresses[lane], sizeof values);
    for (int n = 0; n < count; ++n) warp.at<R>(i.at[n])[lane] = static_cast<R>(values[n]);
  }
}
template <Space space, typename M, typename R, int count>
void store(Warp& warp, const Instruction& i, Lanes lanes) {
  std::byte* addresses[kLanes];
  M values[count];
  find_addresses<space>(warp, i, 0, lanes, sizeof values, false, addresses);
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = std::countr_zero(lanes);
    for (int n = 0; n < count; ++n) values[n] = static_cast<M>(warp.at<R>(i.at[n + 1])[lane]);
    std::memcpy(addresses[lane], values, sizeof values);
  }
}

template <Space space, typename M, typename R>
Execute access(bool is_load, int count) {
  if (count == 4) return is_load ? load<space, M, R, 4> : store<space, M, R, 4>;
  if (count == 2) return is_load ? load<space, M, R, 2> : store<space, M, R, 2>;
  return is_load ? load<space, M, R, 1> : store<space, M, R, 1>;
}
template <Space space, typename M>
Execute access(bool is_load, int count, char width) {
  if (width == '2') return access<space, M, std::uint16_t>(is_load, count);
  if (width == '4') return access<space, M, std::uint32_t>(is_load, count);
  return access<space, M, std::uint64_t>(is_load, count);
}
template <Space space>
Execute access(bool is_load, int count, char width, const std::string& type) {
  if (type == ".s8") return access<space, std::int8_t>(is_load, count, width);
  if (type == ".s16") return access<space, std::int16_t>(is_load, count, width);
  if (type == ".s32") return access<space, std::int32_t>(is_load, count, width);
  if (type.ends_with("8")) return access<space, std::uint8_t>(is_load, count, width);
  if (type.ends_with("16")) return access<space, std::uint16_t>(is_load, count, width);
  if (type.ends_with("32")) return access<space, std::uint32_t>(is_load, count, width);
  return access<space, std::uint64_t>(is_load, count, width);
}

template <Space space>
void atomic_add(Warp& warp, const Instruction& i, Lanes lanes) {
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = std::countr_zero(lanes);
    std::byte* p = address<space>(warp, i, 1, lane, 4);
    std::uint32_t old;
    std::memcpy(&old, p, 4);
    const std::uint32_t sum = old + warp.at<std::uint32_t>(i.at[2])[lane];
    std::memcpy(p, &sum, 4);
    warp.at<std::uint32_t>(i.at[0])[lane] = old;
  }
}

void nothing(Warp&, const Instruction&, Lanes) {}

/// A part between dots, ".v4" of "ld.global.v4.f32", is taken out of `name`.
bool take(std::string& name, const std::string& part) {
  const std::size_t at = name.find(part + ".");
  if (at == std::string::npos) return false;
  name.erase(at, part.size());
  return true;
}

}  // namespace

Operation find_memory(const std::string& full_name, const std::string& given) {
  std::string name = full_name;
  for (const char* needless : {"membar.", "fence.", "griddepcontrol.", "setmaxnreg.",
                               "cp.async.bulk.commit_group", "cp.async.bulk.wait_group"}) {
    if (name.starts_with(needless)) return {nothing, std::string(given.size(), '4')};
  }
  if (name == "bar.sync") return {nullptr, std::string(given.size(), '4'), Kind::kBarrier};
  if (name == "bar.red.or.pred") {
    return {nullptr, given.size() == 3 ? "p4p" : "p44p", Kind::kBarrier};
  }
  if (name == "bar.warp.sync") return {nullptr, "4", Kind::kTogether};
  if (name == "atom.shared.add.u32") return {atomic_add<Space::kShared>, "444"};
  if (name == "atom.global.add.u32") return {atomic_add<Space::kGlobal>, "484"};

  const bool is_load = name.starts_with("ld.");
  if (!is_load && !name.starts_with("st.")) return {};
  take(name, ".volatile");
  take(name, ".nc");  // of memory that nobody writes
  const int count = take(name, ".v4") ? 4 : take(name, ".v2") ? 2 : 1;
  const std::size_t dot = name.find('.', 3);
  if (dot == std::string::npos) return {};  // of generic addresses
  const std::string space = name.substr(3, dot - 3), type = name.substr(dot);
  const std::size_t value = is_load ? 0 : 1;  // the first of the operands that are values
  // A constant that is stored has the width of what it is stored as.
  char width = '?';
  for (std::size_t n = value; n < value + static_cast<std::size_t>(count); ++n) {
    if (given[n] != '?') width = given[n];
  }
  if (width == '?') width = type.ends_with("64") ? '8' : type.ends_with("32") ? '4' : '2';
  const std::string values(static_cast<std::size_t>(count), width);
  const char pointer = space == "shared" ? '4' : '8';
  Operation operation;
  operation.widths = is_load ? values + pointer : pointer + values;
  if (space == "global") operation.execute = access<Space::kGlobal>(is_load, count, width, type);
  if (space == "shared") operation.execute = access<Space::kShared>(is_load, count, width, type);
  if (space == "local") operation.execute = access<Space::kLocal>(is_load, count, width, type);
  if (space == "param") operation.execute = access<Space::kParameters>(is_load, count, width, type);
  return operation;
}

}  // namespace wrn::ptx
