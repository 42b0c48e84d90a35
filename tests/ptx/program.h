// A kernel's PTX, read and made ready to be executed: every instruction has the function that
// executes it for the 32 lanes of a warp, and every operand its place in the warp's registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace wrn::ptx {

constexpr int kLanes = 32;
using Lanes = std::uint32_t;  // a set of them
constexpr Lanes kAllLanes = 0xFFFFFFFF;

class Warp;
struct Instruction;
/// Executes an instruction for the lanes of a set, which is not empty.
using Execute = void (*)(Warp&, const Instruction&, Lanes);

/// What an instruction is to the scheduler.
enum class Kind : std::uint8_t {
  kPlain,
  kBranch,
  kExit,
  // These have no guard:
  kBarrier,   // of a block's threads, and of all lanes of a warp that have not ended
  kTogether,  // of the lanes that its last operand names
  kAligned,   // of all lanes of a warp
  kPoll,      // asks whether something has happened: others go first where it has not
};

constexpr std::uint32_t kNone = 0xFFFFFFFF;

struct Instruction {
  Execute execute = nullptr;
  Kind kind = Kind::kPlain;
  bool guard_negated = false;
  std::uint32_t guard = kNone;    // the predicate's place
  std::vector<std::uint32_t> at;  // the operands' places, those of vectors one after another
  std::int64_t constant = 0;      // bytes added to an address; else what the instruction says
  int target = -1;                // of a branch: an instruction
  int line = 0;
  std::string text;  // its name
};

/// What is in a register before the first instruction, and stays there.
enum class Source : std::uint8_t { kConstant, kParameters, kSpecial };
enum class Special : std::uint8_t {
  kThreadX,
  kThreadY,
  kThreadZ,
  kBlockX,
  kBlockY,
  kBlockZ,
  kThreadsX,
  kThreadsY,
  kThreadsZ,
  kBlocksX,
  kBlocksY,
  kBlocksZ,
  kLane,
  kLanesBelow,
  kLanesUpTo
};
struct Initial {
  std::uint32_t place;
  int bytes;
  Source source;
  std::uint64_t value;  // itself, an offset, or a Special
};

struct Parameter {
  std::size_t offset, bytes;
};

struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
  std::size_t parameter_bytes = 0;
  std::size_t register_bytes = 0;  // of a warp
  std::size_t shared_bytes = 0;    // that it names itself; those of the launch follow
  std::size_t local_bytes = 0;     // of a thread
  int most_threads = 1024;         // in a block
  std::vector<Initial> initial;
  std::vector<Instruction> instructions;
};

/// Where shared memory begins for a kernel, as on sm_90, where the system has the first KiB.
constexpr std::uint32_t kWindow = 1024;

/// A PTX file's kernels, by name, and its variables in global memory.
struct Program {
  std::map<std::string, Kernel> kernels;
  std::vector<std::vector<std::uint64_t>> variables;
};
/// Throws std::runtime_error, "line n: ...", where it is not understood.
Program read_program(std::string_view text);

/// What executes an instruction, and how wide its operands are: p (a predicate), 2, 4 or 8
/// (bytes) for each, those of vectors one after another, an address's the register in it.
struct Operation {
  Execute execute = nullptr;  // branches, exits and barriers are the scheduler's
  std::string widths;
  Kind kind = Kind::kPlain;
};
/// Of the instruction with this name; `given` are the widths of the operands that it has, ? where
/// it is a constant. One without execute, and kPlain, where it is not known.
Operation find_operation(const std::string& name, const std::string& given);
// The three that it asks: arithmetic.cpp, memory.cpp, tensor.cpp.
Operation find_arithmetic(const std::string& name, const std::string& given);
Operation find_memory(const std::string& name, const std::string& given);
Operation find_tensor(const std::string& name, const std::string& given);

}  // namespace wrn::ptx
