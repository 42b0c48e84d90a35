// cp.async, ldmatrix and mma. Compiled as scheduler.cpp is: the sanitizers are told of accesses.
#include "simt/tensor_core.h"

#include <bit>

#include "simt/device.h"
#include "simt/internal.h"

namespace wrn::cuda::simt {
namespace {

constexpr unsigned kWarp = 0xFFFFFFFF;

bool aligned(const void* p, int bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % static_cast<unsigned>(bytes) == 0;
}

/// To ThreadSanitizer the issuing thread writes the target twice, when it issues and when it waits:
/// a use in between that is not ordered with both is a race, whenever the bytes arrive. (What is
/// ordered with both is for load_matrices, or wrong values, to show.)
struct Copy : Effect {
  char* to;
  const char* from;
  int bytes, from_source;

  void run() override {
    for (int i = 0; i < bytes; ++i) to[i] = i < from_source ? from[i] : char{0};
  }

  // There are thousands under way and millions in all, and a sanitizer takes longer over an
  // allocation than a copy takes: so their memory is kept.
  static void* operator new(std::size_t bytes) {
    if (!unused) return ::operator new(bytes);
    void* memory = unused;
    unused = unused->next;
    return memory;
  }
  static void operator delete(void* memory) { unused = ::new (memory) Unused{unused}; }
  struct Unused {
    Unused* next;
  };
  inline static Unused* unused = nullptr;
};

void arrived(Effect& effect) {
  auto& copy = static_cast<Copy&>(effect);
  announce_write(copy.to, static_cast<std::size_t>(copy.bytes));
  --shadow_of(copy.to)->writes_under_way;
}

}  // namespace

void copy_async(void* shared, const void* global, int bytes, int from_source, Where where) {
  constexpr const char* kWhat = "cp.async";
  if (!aligned(shared, bytes) || !aligned(global, bytes)) {
    fail_at(kWhat, where,
            "of " + std::to_string(bytes) + " bytes to or from an address that is no multiple");
  }
  if (from_source < 0 || from_source > bytes) {
    fail_at(kWhat, where,
            "of " + std::to_string(bytes) + " bytes reads " + std::to_string(from_source));
  }
  Shadow* shadow = shadow_of(shared);
  if (!shadow) fail_at(kWhat, where, "to an address outside of shared memory");
  if (from_source > 0) announce_read(global, static_cast<std::size_t>(from_source));
  announce_write(shared, static_cast<std::size_t>(bytes));
  ++shadow->writes_under_way;
  auto* copy = new Copy;
  copy->to = static_cast<char*>(shared);
  copy->from = static_cast<const char*>(global);
  copy->bytes = bytes;
  copy->from_source = from_source;
  current->copies.add(copy);
}

void commit_copies() { current->copies.commit(); }
void wait_for_copies(int newest) { current->copies.wait(static_cast<unsigned>(newest), arrived); }

namespace {

struct Rows {
  unsigned row[4];  // what this lane's address points to
  unsigned* fragment;
  bool transposed;
};

/// Lane 4 g + q gets, of matrix j, the elements 2 q and 2 q + 1 of row g, or of column g.
void combine_rows(void* const (&operands)[32]) {
  const auto element = [&](int matrix, int row, int column) {
    const unsigned word = static_cast<const Rows*>(operands[matrix * 8 + row])->row[column / 2];
    return word >> (column % 2 * 16) & 0xFFFF;
  };
  for (int lane = 0; lane < 32; ++lane) {
    const auto& out = *static_cast<const Rows*>(operands[lane]);
    const int g = lane / 4, first = lane % 4 * 2;
    for (int j = 0; j < 4; ++j) {
      out.fragment[j] = out.transposed ? element(j, first, g) | element(j, first + 1, g) << 16
                                       : element(j, g, first) | element(j, g, first + 1) << 16;
    }
  }
}

}  // namespace

void load_matrices(unsigned (&fragment)[4], const void* row, bool transposed, Where where) {
  const char* what = transposed ? "ldmatrix.trans" : "ldmatrix";
  if (!aligned(row, 16)) fail_at(what, where, "reads a row that is not 16-byte aligned");
  const Shadow* shadow = shadow_of(row);
  if (!shadow) fail_at(what, where, "reads outside of shared memory");
  announce_read(row, 16);
  if (shadow->writes_under_way > 0) {
    fail_at(what, where, "reads what a cp.async writes, which its thread has not waited for");
  }
  Rows lane{{}, fragment, transposed};
  const auto* words = static_cast<const unsigned*>(row);
  for (int i = 0; i < 4; ++i) lane.row[i] = words[i];
  meet_warp(what, kWarp, &lane, combine_rows, false, where);
}

namespace {

struct Product {
  Operands type;
  int m, n;
  const unsigned *a, *b;
  float* d;
};

float upper_half(unsigned word) { return std::bit_cast<float>(word & 0xFFFF0000); }
float lower_half(unsigned word) { return std::bit_cast<float>(word << 16); }

constexpr int kMost = 16;  // tiles a side
struct Tiles {
  float a[kMost][16][16];  // [tile][row][k]
  float b[kMost][16][8];   // [tile][k][column]
};

/// In lane 4 g + q register j of A holds row g + 8 (j % 2), of B column g, and both hold k =
/// 2 q, 2 q + 1 (bf16; the upper registers + 8) or k = q (tf32; the upper registers + 4).
void gather(void* const (&operands)[32], Tiles& tiles) {
  const auto& first = *static_cast<const Product*>(operands[0]);
  const auto put = [&](unsigned word, int q, int upper, auto at) {
    if (first.type == Operands::kBf16) {
      at(2 * q + 8 * upper) = lower_half(word);
      at(2 * q + 8 * upper + 1) = upper_half(word);
    } else {
      at(q + 4 * upper) = std::bit_cast<float>(word);
    }
  };
  for (int lane = 0; lane < 32; ++lane) {
    const auto& product = *static_cast<const Product*>(operands[lane]);
    const int g = lane / 4, q = lane % 4;
    for (int i = 0; i < first.m * 4; ++i) {
      put(product.a[i], q, i % 4 / 2,
          [&](int k) -> float& { return tiles.a[i / 4][g + i % 2 * 8][k]; });
    }
    for (int i = 0; i < first.n * 2; ++i) {
      put(product.b[i], q, i % 2, [&](int k) -> float& { return tiles.b[i / 2][k][g]; });
    }
  }
}

/// Register j of D holds row g + 8 (j / 2), column 2 q + j % 2.
void combine_product(void* const (&operands)[32]) {
  static Tiles tiles;
  gather(operands, tiles);
  const auto& first = *static_cast<const Product*>(operands[0]);
  const int depth = first.type == Operands::kBf16 ? 16 : 8;
  for (int i = 0; i < first.m; ++i) {
    for (int j = 0; j < first.n; ++j) {
      const auto& a = tiles.a[i];
      const auto& b = tiles.b[j];
      for (int row = 0; row < 16; ++row) {
        const auto d = [&](int column) -> float& {
          const auto* lane = static_cast<const Product*>(operands[row % 8 * 4 + column / 2]);
          return lane->d[(i * first.n + j) * 4 + row / 8 * 2 + column % 2];
        };
        float sum[8];
        for (int column = 0; column < 8; ++column) sum[column] = d(column);
        for (int k = 0; k < depth; ++k) {
          for (int column = 0; column < 8; ++column) sum[column] += a[row][k] * b[k][column];
        }
        for (int column = 0; column < 8; ++column) d(column) = sum[column];
      }
    }
  }
}

}  // namespace

void multiply(Operands type, int m, int n, const unsigned* a, const unsigned* b, float* d,
              Where where) {
  const char* what = type == Operands::kBf16 ? "mma of bf16" : "mma of tf32";
  if (m > kMost || n > kMost) fail_at(what, where, "of more tiles than the emulation has room for");
  if (type == Operands::kTf32) {
    unsigned dropped = 0;
    for (int i = 0; i < m * 4; ++i) dropped |= a[i];
    for (int i = 0; i < n * 2; ++i) dropped |= b[i];
    if (dropped & 0x1FFF) fail_at(what, where, "drops bits of an operand that was not rounded");
  }
  Product lane{type, m, n, a, b, d};
  meet_warp(what, kWarp, &lane, combine_product, false, where);
}

unsigned round_to_tf32(unsigned bits) {
  const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return (nan ? bits | 0x400000 : bits + 0x1000) & ~0x1FFFU;
}

}  // namespace wrn::cuda::simt
