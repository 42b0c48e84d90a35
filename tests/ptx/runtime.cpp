// What a program compiled by nvcc asks of the CUDA runtime beyond the functions of
// simt/runtime.cpp and simt/streams.cpp: to register its kernels, and to launch them.
#include <cuda_runtime_api.h>
#include <zstd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>

#include "ptx/interpreter.h"
#include "simt/internal.h"
#include "simt/state.h"

namespace wrn::ptx {
namespace {

/// The images of a .cu file, as nvcc embeds them: entries for architectures, each PTX or machine
/// code. (cuda's fatbinary format; its header says no more than that it exists.)
struct FatHeader {
  std::uint32_t magic;
  std::uint16_t version, header_bytes;
  std::uint64_t bytes;
};
struct FatEntry {
  std::uint16_t kind, version;
  std::uint32_t header_bytes;
  std::uint64_t bytes;
  std::uint32_t compressed_bytes, options_offset;
  std::uint16_t minor, major;
  std::uint32_t architecture;
};
constexpr std::uint32_t kFatMagic = 0xBA55ED50;
constexpr std::uint16_t kPtx = 1;
struct FatWrapper {
  std::int32_t magic, version;
  const std::byte* data;
};

/// A .cu file's kernels, read when one of them is first launched.
struct File {
  const FatWrapper* wrapper;
  std::optional<Program> program;
};

struct Registered {
  File* file;
  std::string name;
};

/// The program's kernels, by their addresses on the host, and how often each has been launched.
/// Appends both to the file WRN_PTX_LOG at the end, for coverage.py.
struct Kernels {
  std::map<const void*, Registered> registered;
  std::map<std::string, int> launches;

  ~Kernels() {
    const char* path = std::getenv("WRN_PTX_LOG");
    std::FILE* file = path ? std::fopen(path, "a") : nullptr;
    if (!file) return;
    std::setvbuf(file, nullptr, _IONBF, 0);  // one write, which other programs do not interrupt
    std::string lines;
    for (const auto& [address, kernel] : registered) lines += "has\t" + kernel.name + '\n';
    for (const auto& [name, count] : launches) lines += "launched\t" + name + '\n';
    std::fwrite(lines.data(), 1, lines.size(), file);
    std::fclose(file);
  }
};
Kernels& kernels() {
  static Kernels all;
  return all;
}
std::map<const std::byte*, std::size_t>& variables() {  // address -> bytes
  static std::map<const std::byte*, std::size_t> all;
  return all;
}

/// The PTX of the newest architecture that the device can run. Throws where the format is another.
std::string ptx_of(const FatWrapper& wrapper) {
  cudaDeviceProp device;
  if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) return {};
  const auto newest = static_cast<std::uint32_t>(device.major * 10 + device.minor);
  FatHeader header;
  std::memcpy(&header, wrapper.data, sizeof header);
  if (header.magic != kFatMagic) throw std::runtime_error("its fat binary is not known");
  const std::byte* p = wrapper.data + header.header_bytes;
  const std::byte* const end = p + header.bytes;
  std::string best;
  std::uint32_t architecture = 0;
  while (p < end) {
    FatEntry entry;
    const auto left = static_cast<std::size_t>(end - p);
    if (left >= sizeof entry) std::memcpy(&entry, p, sizeof entry);
    if (left < sizeof entry || entry.header_bytes < sizeof entry || entry.header_bytes > left ||
        entry.bytes > left - entry.header_bytes || entry.compressed_bytes > entry.bytes) {
      throw std::runtime_error("an entry of its fat binary is not known");
    }
    const std::byte* const payload = p + entry.header_bytes;
    p = payload + entry.bytes;
    if (entry.kind != kPtx || entry.architecture <= architecture) continue;
    if (entry.architecture > newest) continue;
    architecture = entry.architecture;
    if (entry.compressed_bytes == 0) {
      best.assign(reinterpret_cast<const char*>(payload), entry.bytes);
      continue;
    }
    const unsigned long long whole = ZSTD_getFrameContentSize(payload, entry.compressed_bytes);
    if (whole == ZSTD_CONTENTSIZE_ERROR || whole == ZSTD_CONTENTSIZE_UNKNOWN) {
      throw std::runtime_error("it is not compressed by zstd; nvcc --compress-mode=size does that");
    }
    best.resize(whole);
    if (ZSTD_decompress(best.data(), whole, payload, entry.compressed_bytes) != whole) {
      throw std::runtime_error("it cannot be decompressed");
    }
  }
  return best;
}

const Kernel* find_kernel(const void* function) {
  const auto found = kernels().registered.find(function);
  if (found == kernels().registered.end()) return nullptr;
  auto& [file, name] = found->second;
  if (!file->program) {
    try {
      file->program = read_program(ptx_of(*file->wrapper));
    } catch (const std::exception& error) {
      cuda::simt::fatal("the PTX of " + name + ": " + error.what());
    }
    for (const auto& variable : file->program->variables) {
      variables()[reinterpret_cast<const std::byte*>(variable.data())] = variable.size() * 8;
    }
  }
  const auto kernel = file->program->kernels.find(name);
  return kernel != file->program->kernels.end() ? &kernel->second : nullptr;
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments,
                   std::size_t shared, cudaStream_t stream) {
  const Kernel* kernel = find_kernel(function);
  if (!kernel) return cuda::simt::result(cudaErrorInvalidDeviceFunction);
  if (block.x * block.y * block.z > static_cast<unsigned>(kernel->most_threads)) {
    return cuda::simt::result(cudaErrorInvalidValue);
  }
  // A tensor map among the parameters must be aligned.
  struct alignas(64) Piece {
    std::byte bytes[64];
  };
  const std::shared_ptr<Piece[]> parameters(new Piece[kernel->parameter_bytes / 64 + 1]);
  for (std::size_t i = 0; i < kernel->parameters.size(); ++i) {
    const auto [offset, bytes] = kernel->parameters[i];
    std::memcpy(parameters[0].bytes + offset, arguments[i], bytes);
  }
  return cuda::simt::launch(kernel->name.c_str(), grid, block, shared, stream, [=] {
    try {
      run(*kernel, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared,
          parameters[0].bytes);
    } catch (const Fault& fault) {
      cuda::simt::fatal(fault.what());
    }
  });
}

}  // namespace

Range device_memory(const void* address) {
  const auto range_in = [&](const auto& allocations, auto p) -> Range {
    auto after = allocations.upper_bound(p);
    if (after == allocations.begin()) return {};
    const auto& [first, bytes] = *--after;
    const auto* begin = reinterpret_cast<const std::byte*>(first);
    return {begin, begin + bytes};
  };
  const auto* p = static_cast<const std::byte*>(address);
  const Range range = range_in(cuda::simt::state().device, reinterpret_cast<const char*>(p));
  return p < range.end ? range : range_in(variables(), p);
}

}  // namespace wrn::ptx

// What the rest of the emulated runtime asks of whoever runs kernels.
namespace wrn::cuda::simt {
void fatal(const std::string& message) {
  std::fprintf(stderr, "simt: %s\n", message.c_str());
  std::abort();
}
void set_order_seed(std::uint64_t seed) { ptx::set_order_seed(seed); }
void order_after_now(const Launch&) {}
void run_kernel(const Launch& launch) {
  ++ptx::kernels().launches[launch.name];
  launch.body();
}
std::map<std::string, int> launched_kernels() { return ptx::kernels().launches; }
}  // namespace wrn::cuda::simt

namespace {
struct Configuration {
  dim3 grid, block;
  std::size_t shared;
  cudaStream_t stream;
};
thread_local Configuration pushed;
}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(
      new wrn::ptx::File{static_cast<const wrn::ptx::FatWrapper*>(wrapper), {}});
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void** file) { delete reinterpret_cast<wrn::ptx::File*>(file); }
void __cudaRegisterFunction(void** file, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  wrn::ptx::kernels().registered[host] = {reinterpret_cast<wrn::ptx::File*>(file), name};
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, std::size_t, int, int) {}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared, void* stream) {
  pushed = {grid, block, shared, static_cast<cudaStream_t>(stream)};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<cudaStream_t*>(stream) = pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             std::size_t shared, cudaStream_t stream) {
  return wrn::ptx::launch(function, grid, block, arguments, shared, stream);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               std::size_t shared, cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                void** arguments) {
  return wrn::ptx::launch(function, config->gridDim, config->blockDim, arguments,
                          config->dynamicSmemBytes, config->stream);
}

// What Thrust and CUB ask.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int,
                                                                   std::size_t, unsigned) {
  *blocks = 1;
  return cudaSuccess;
}

}  // extern "C"
