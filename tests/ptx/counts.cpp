#include "ptx/counts.h"

#include <cxxabi.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <unordered_set>

namespace wrn::ptx {
namespace {

constexpr std::uintptr_t kSector = 32;

/// Adds a value to the first `count` of a list, if it is not one of them.
template <typename Count>
void add_new(std::uintptr_t* list, Count& count, std::uintptr_t value) {
  if (std::find(list, list + count, value) == list + count) list[count++] = value;
}

struct Counted {
  const char* path = std::getenv("WRN_PTX_COUNTS");
  std::map<std::string, Counts> kernels;
  std::unordered_set<std::uintptr_t> read, written;  // sectors, in this launch

  ~Counted() {
    std::FILE* file = path ? std::fopen(path, "w") : nullptr;
    if (!file) return;
    std::fprintf(file,
                 "kernel\tlaunches\tblocks\twarps\tinstructions\tloads\tload_sectors\tload_least\t"
                 "load_unique\tstores\tstore_sectors\tstore_least\tstore_unique\tshared\t"
                 "shared_passes\tshared_least\n");
    for (const auto& [name, c] : kernels) {
      int status = 0;
      char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
      std::fprintf(file, "%s", text ? text : name.c_str());
      std::free(text);
      for (const std::uint64_t n :
           {c.launches, c.blocks, c.warps, c.instructions, c.loads.requests, c.loads.sectors,
            c.loads.least, c.loads.unique, c.stores.requests, c.stores.sectors, c.stores.least,
            c.stores.unique, c.shared_requests, c.shared_passes, c.shared_least}) {
        std::fprintf(file, "\t%llu", static_cast<unsigned long long>(n));
      }
      std::fprintf(file, "\n");
    }
    std::fclose(file);
  }
};
Counted& counted() {
  static Counted all;
  return all;
}

}  // namespace

Counts* counts = nullptr;

void begin_counting(const std::string& kernel) {
  if (!counted().path) return;
  counts = &counted().kernels[kernel];
  ++counts->launches;
}
void end_counting() {
  if (!counts) return;
  counts->loads.unique += counted().read.size();
  counts->stores.unique += counted().written.size();
  counted().read.clear();
  counted().written.clear();
  counts = nullptr;
}

void count_global(const std::byte* const (&addresses)[kLanes], Lanes lanes, std::size_t bytes,
                  bool is_load) {
  Traffic& traffic = is_load ? counts->loads : counts->stores;
  std::unordered_set<std::uintptr_t>& seen = is_load ? counted().read : counted().written;
  ++traffic.requests;
  std::uintptr_t sectors[kLanes];
  std::size_t count = 0;
  for (Lanes rest = lanes; rest != 0; rest &= rest - 1) {
    const std::uintptr_t sector =
        reinterpret_cast<std::uintptr_t>(addresses[std::countr_zero(rest)]) / kSector;
    add_new(sectors, count, sector);
    seen.insert(sector);
  }
  std::uintptr_t distinct[kLanes];
  std::size_t places = 0;
  for (Lanes rest = lanes; rest != 0; rest &= rest - 1) {
    const auto at = reinterpret_cast<std::uintptr_t>(addresses[std::countr_zero(rest)]);
    add_new(distinct, places, at);
  }
  traffic.sectors += count;
  traffic.least += (places * bytes + kSector - 1) / kSector;
}

void count_global(const std::byte* address, std::size_t bytes, bool is_load) {
  Traffic& traffic = is_load ? counts->loads : counts->stores;
  std::unordered_set<std::uintptr_t>& seen = is_load ? counted().read : counted().written;
  const auto first = reinterpret_cast<std::uintptr_t>(address) / kSector;
  const auto last = (reinterpret_cast<std::uintptr_t>(address) + bytes - 1) / kSector;
  for (std::uintptr_t sector = first; sector <= last; ++sector) seen.insert(sector);
  ++traffic.requests;
  traffic.sectors += last - first + 1;
  traffic.least += (bytes + kSector - 1) / kSector;
}

/// A pass serves 32 words of different banks; wide accesses take a half or a quarter of the lanes
/// in each. Lanes that read the same word share it.
void count_shared(const std::byte* const (&addresses)[kLanes], Lanes lanes, std::size_t bytes) {
  const int parts = bytes == 16 ? 4 : bytes == 8 ? 2 : 1;
  const int each = kLanes / parts;
  ++counts->shared_requests;
  for (int part = 0; part < parts; ++part) {
    std::uintptr_t words[32][kLanes * 4];
    int used[32] = {};
    int most = 0;
    bool any = false;
    for (int lane = part * each; lane < (part + 1) * each; ++lane) {
      if ((lanes >> lane & 1) == 0) continue;
      any = true;
      for (std::size_t b = 0; b < bytes; b += 4) {
        const std::uintptr_t word = (reinterpret_cast<std::uintptr_t>(addresses[lane]) + b) / 4;
        const std::size_t bank = word % 32;
        add_new(words[bank], used[bank], word);
        most = std::max(most, used[bank]);
      }
    }
    counts->shared_passes += static_cast<std::uint64_t>(most);
    counts->shared_least += any ? 1 : 0;
  }
}

}  // namespace wrn::ptx
