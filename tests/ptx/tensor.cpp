// What lanes do together, and what Ampere and Hopper do by themselves: shuffles, votes, mma, wgmma,
// cp.async, boxes of tensors and the barriers that count their bytes. Written from the PTX ISA
// (sections as given), apart from the emulation of tests/simt, but for the layout of a tensor map,
// which is that emulation's own.
//
// A copy by cp.async takes place when it is waited for. All else takes place at once: that a wait
// is missing is found by the emulation.
#include <algorithm>
#include <bit>
#include <cstring>

#include "ptx/counts.h"
#include "ptx/interpreter.h"
#include "simt/tensor_map.h"

namespace wrn::ptx {
namespace {

using U32 = std::uint32_t;
using U64 = std::uint64_t;

int first_of(Lanes lanes) { return std::countr_zero(lanes); }

float of_bf16(std::uint16_t bits) { return std::bit_cast<float>(U32{bits} << 16); }

// --- 9.7.9.6 shfl.sync, 9.7.13.9 vote.sync -------------------------------------------------------
enum class Shuffle { kUp, kButterfly, kIndex };

template <Shuffle mode, bool with_predicate>
void shuffle(Warp& warp, const Instruction& i, Lanes lanes) {
  constexpr int kFirst = with_predicate ? 2 : 1;
  const U32* a = warp.at<U32>(i.at[kFirst]);
  const U32* b = warp.at<U32>(i.at[kFirst + 1]);
  const U32* c = warp.at<U32>(i.at[kFirst + 2]);
  U32 result[kLanes];
  Lanes found = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int by = b[lane] & 31, clamp = c[lane] & 31, segment = c[lane] >> 8 & 31;
    const int last = (lane & segment) | (clamp & ~segment), first = lane & segment;
    int source = lane;
    bool inside = false;
    if (mode == Shuffle::kUp) {
      source = lane - by;
      inside = source >= last;
    } else {
      source = mode == Shuffle::kButterfly ? lane ^ by : first | (by & ~segment);
      inside = source <= last;
    }
    if (!inside) source = lane;
    if ((lanes >> lane & 1) != 0 && (lanes >> source & 1) == 0) {
      warp.fail(i, "reads a lane that does not take part");
    }
    result[lane] = a[source];
    found |= Lanes{inside} << lane;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1) != 0) warp.at<U32>(i.at[0])[lane] = result[lane];
  }
  if constexpr (with_predicate) {
    Lanes& p = warp.predicate(i.at[1]);
    p = (p & ~lanes) | (found & lanes);
  }
}
template <Shuffle mode>
Operation shuffle_of(const std::string& given) {
  const bool with_predicate = given.size() == 6;
  return {with_predicate ? shuffle<mode, true> : shuffle<mode, false>,
          with_predicate ? "4p4444" : "44444", Kind::kTogether};
}

void ballot(Warp& warp, const Instruction& i, Lanes lanes) {
  const Lanes p = warp.predicate(i.at[1]);
  for (int lane = 0; lane < kLanes; ++lane) {
    if ((lanes >> lane & 1) != 0) warp.at<U32>(i.at[0])[lane] = p & lanes;
  }
}

// --- 9.7.14.5 ldmatrix and mma -------------------------------------------------------------------
// Lane 8 m + r has the address of row r of matrix m.
template <bool transposed>
void load_matrices(Warp& warp, const Instruction& i, Lanes) {
  std::byte* rows[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    rows[lane] = warp.shared(i, warp.at<U32>(i.at[4])[lane] + static_cast<U32>(i.constant), 16);
  }
  if (counts) count_shared(rows, kAllLanes, 16);
  for (int m = 0; m < 4; ++m) {
    std::uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) std::memcpy(matrix[row], rows[8 * m + row], 16);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int g = lane / 4, q = 2 * (lane % 4);
      warp.at<U32>(i.at[m])[lane] = transposed ? matrix[q][g] | U32{matrix[q + 1][g]} << 16
                                               : matrix[g][q] | U32{matrix[g][q + 1]} << 16;
    }
  }
}

// D[16][8] = A[16][depth] B[depth][8] + C. Operands: 4 of D, 4 of A, 2 of B, 4 of C.
template <bool is_tf32>
void multiply(Warp& warp, const Instruction& i, Lanes) {
  constexpr int kDepth = is_tf32 ? 8 : 16;
  float a[16][kDepth], b[kDepth][8], d[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, q = lane % 4;
    // Where register j of an operand is: its row, or column, is g, and its depth the lane's q or
    // pair of them, and half the depth further.
    const auto take = [&](U32 bits, int half, auto at) {
      if constexpr (is_tf32) {
        at(q + 4 * half) = std::bit_cast<float>(bits & 0xFFFFE000);
      } else {
        at(2 * q + 8 * half) = of_bf16(static_cast<std::uint16_t>(bits));
        at(2 * q + 8 * half + 1) = of_bf16(static_cast<std::uint16_t>(bits >> 16));
      }
    };
    for (int j = 0; j < 4; ++j) {
      take(warp.at<U32>(i.at[4 + j])[lane], j / 2,
           [&](int k) -> float& { return a[g + 8 * (j % 2)][k]; });
      d[g + 8 * (j / 2)][2 * q + j % 2] = warp.at<float>(i.at[10 + j])[lane];
    }
    for (int j = 0; j < 2; ++j) {
      take(warp.at<U32>(i.at[8 + j])[lane], j, [&](int k) -> float& { return b[k][g]; });
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < kDepth; ++k) {
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int j = 0; j < 4; ++j) {
      warp.at<float>(i.at[j])[lane] = d[lane / 4 + 8 * (j / 2)][2 * (lane % 4) + j % 2];
    }
  }
}

// --- 9.7.15 wgmma --------------------------------------------------------------------------------
/// Where an address of rows of 128, 64 or 32 bytes is swizzled to.
U32 swizzled(U32 address, U32 row_bytes) {
  return address ^ ((address >> 7 & (row_bytes / 16 - 1)) << 4);
}

/// An operand of 16 deep in shared memory, by its descriptor (9.7.15.5.1): `rows` along m or n.
struct Matrix {
  U32 begin, leading, stride, row_bytes;
  bool across;  // contiguous along m or n, not along k
  Matrix(Warp& warp, const Instruction& i, U64 descriptor, bool across_)
      : begin((descriptor & 0x3FFF) << 4),
        leading((descriptor >> 16 & 0x3FFF) << 4),
        stride((descriptor >> 32 & 0x3FFF) << 4),
        across(across_) {
    const unsigned swizzle = descriptor >> 62;
    if (swizzle == 0) warp.fail(i, "has an operand without a swizzle");
    if ((descriptor >> 49 & 7) != 0) warp.fail(i, "has an operand with a base offset");
    row_bytes = 256U >> swizzle;  // 1, 2, 3: 128, 64, 32
  }
  /// The address of element (row, k).
  U32 address(U32 row, U32 k) const {
    U32 at = begin;
    if (across) {
      const U32 wide = row_bytes / 2;  // elements of a row of memory
      at += row / wide * leading + k / 8 * stride + k % 8 * row_bytes + row % wide * 2;
    } else {
      at += row / 8 * stride + row % 8 * row_bytes + k * 2;
    }
    return swizzled(at, row_bytes);
  }
};

/// A warp's 16 rows of D[64][N] = A[64][16] B[16][N] (+ D). Operands: N / 2 of D, the descriptors
/// of A and B, whether D is added to, two signs, and whether A and B are contiguous along m and n.
void multiply_by_warpgroup(Warp& warp, const Instruction& i, Lanes) {
  const std::size_t registers = i.at.size() - 7;
  const std::size_t columns = registers * 2;
  const auto number = [&](std::size_t n) { return warp.at<U32>(i.at[registers + n])[0]; };
  const Matrix a(warp, i, warp.at<U64>(i.at[registers])[0], number(5) != 0);
  const Matrix b(warp, i, warp.at<U64>(i.at[registers + 1])[0], number(6) != 0);
  const bool adds = (warp.predicate(i.at[registers + 2]) & 1) != 0;
  if (number(3) != 1 || number(4) != 1) warp.fail(i, "has a sign that is not 1");

  const auto element = [&](const Matrix& matrix, std::size_t row, int k) {
    std::uint16_t bits;
    std::memcpy(&bits, warp.shared(i, matrix.address(static_cast<U32>(row), k), 2), 2);
    return of_bf16(bits);
  };
  static float rows[16][16], depth[16][256], sums[16][256];
  const std::size_t first = static_cast<std::size_t>(warp.number % 4) * 16;
  for (int k = 0; k < 16; ++k) {
    for (std::size_t row = 0; row < 16; ++row) rows[row][k] = element(a, first + row, k);
    for (std::size_t column = 0; column < columns; ++column)
      depth[k][column] = element(b, column, k);
  }
  // Register j of a lane: row lane / 4, or 8 further for j / 2 odd; column 8 (j / 4) + ...
  const auto sum = [&](int lane, std::size_t j) -> float& {
    return sums[lane / 4 + 8 * (j / 2 % 2)][8 * (j / 4) + 2 * (lane % 4) + j % 2];
  };
  for (int lane = 0; lane < kLanes; ++lane) {
    for (std::size_t j = 0; j < registers; ++j) {
      sum(lane, j) = adds ? warp.at<float>(i.at[j])[lane] : 0;
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      const float factor = rows[row][k];
      for (std::size_t column = 0; column < columns; ++column) {
        sums[row][column] += factor * depth[k][column];
      }
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (std::size_t j = 0; j < registers; ++j) warp.at<float>(i.at[j])[lane] = sum(lane, j);
  }
}

// --- 9.7.9.25.3 cp.async -------------------------------------------------------------------------
// Operands: to, from, bytes, and how many of them are read; the rest are zeros.
void copy_async(Warp& warp, const Instruction& i, Lanes lanes) {
  const std::byte *to[kLanes], *from[kLanes];
  Lanes reading = 0;
  const Lanes copying = lanes;
  const U32 size = warp.at<U32>(i.at[2])[first_of(lanes)];
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = first_of(lanes);
    const U32 bytes = warp.at<U32>(i.at[2])[lane], read = warp.at<U32>(i.at[3])[lane];
    if (read > bytes) warp.fail(i, "reads more than it copies");
    const U64 source = warp.at<U64>(i.at[1])[lane];
    if (source % bytes != 0) warp.fail(i, "is not aligned");
    Copy copy{warp.shared(i, warp.at<U32>(i.at[0])[lane], bytes), nullptr, bytes, read};
    if (read > 0) copy.from = warp.global(i, source, read);
    to[lane] = copy.to;
    from[lane] = copy.from;
    reading |= Lanes{read > 0} << lane;
    warp.copies[lane].open.push_back(copy);
  }
  if (counts) {
    if (reading != 0) count_global(from, reading, size, true);
    count_shared(to, copying, size);
  }
}
void commit_copies(Warp& warp, const Instruction&, Lanes lanes) {
  for (; lanes != 0; lanes &= lanes - 1) {
    Copies& copies = warp.copies[first_of(lanes)];
    copies.groups.push_back(std::move(copies.open));
    copies.open.clear();
  }
}
void wait_for_copies(Warp& warp, const Instruction& i, Lanes lanes) {
  const U32 newest = warp.at<U32>(i.at[0])[first_of(lanes)];
  for (; lanes != 0; lanes &= lanes - 1) {
    Copies& copies = warp.copies[first_of(lanes)];
    while (copies.groups.size() > newest) {
      for (const Copy& copy : copies.groups.front()) {
        std::memset(copy.to, 0, copy.bytes);
        if (copy.from_source > 0) std::memcpy(copy.to, copy.from, copy.from_source);
      }
      copies.groups.pop_front();
    }
  }
}

// --- 9.7.13.15 mbarrier --------------------------------------------------------------------------
/// The one that operand `n` points to.
MemoryBarrier& barrier_at(Warp& warp, const Instruction& i, std::size_t n, int lane) {
  const U32 address = warp.at<U32>(i.at[n])[lane] + static_cast<U32>(i.constant);
  return *reinterpret_cast<MemoryBarrier*>(warp.shared(i, address, 8));
}

template <bool expecting>
void arrive(Warp& warp, const Instruction& i, Lanes lanes) {
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = first_of(lanes);
    MemoryBarrier& barrier = barrier_at(warp, i, 0, lane);
    if (barrier.pending == 0) warp.fail(i, "arrives once too often");
    if constexpr (expecting) {
      barrier.bytes += static_cast<std::int32_t>(warp.at<U32>(i.at[1])[lane]);
    }
    barrier.pending = barrier.pending - 1;
    barrier.complete_if_due();
  }
}
void init_barrier(Warp& warp, const Instruction& i, Lanes lanes) {
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = first_of(lanes);
    const U32 count = warp.at<U32>(i.at[1])[lane];
    if (count == 0 || count > 0x7FFF) warp.fail(i, "is for 0 arrivals, or more than 32767");
    MemoryBarrier& barrier = barrier_at(warp, i, 0, lane);
    barrier.count = static_cast<std::uint16_t>(count);
    barrier.pending = count & 0x7FFF;
    barrier.phase = 0;
    barrier.bytes = 0;
  }
}
/// Whether the phase of this parity is over: the one that is under way has the other.
void try_wait(Warp& warp, const Instruction& i, Lanes lanes) {
  Lanes& complete = warp.predicate(i.at[0]);
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = first_of(lanes);
    const bool over = barrier_at(warp, i, 1, lane).phase != (warp.at<U32>(i.at[2])[lane] & 1);
    complete = (complete & ~(1U << lane)) | Lanes{over} << lane;
  }
}

// --- 9.7.9.27.1 cp.async.bulk.tensor -------------------------------------------------------------
/// f(an element in shared memory, its address in the tensor or null where it is outside): of a box
/// whose map, place in shared memory, and first element's coordinates, the innermost first, are at
/// these operands. Returns its bytes.
template <int rank, typename F>
std::size_t for_each_of_box(Warp& warp, const Instruction& i, int lane, std::size_t map_at,
                            std::size_t shared_at, std::size_t first_at, bool is_load, F f) {
  const U64 map_address = warp.at<U64>(i.at[map_at])[lane];
  const U32 shared = warp.at<U32>(i.at[shared_at])[lane];
  cuda::simt::TensorMap map;
  std::memcpy(&map, reinterpret_cast<const void*>(map_address), sizeof map);
  if (map_address % 64 != 0 || map.magic != cuda::simt::TensorMap::kMagic || map.rank != rank) {
    warp.fail(i, "is given no map of such a tensor");
  }
  if (shared % (8U * map.swizzle_bytes) != 0)
    warp.fail(i, "is not aligned to the pattern of the swizzle");
  std::size_t elements = 1;
  for (int d = 0; d < rank; ++d) elements *= map.box[d];
  const std::byte *begin = nullptr, *end = nullptr;  // of what is counted next, one row of the box
  const auto count = [&] {
    if (counts && begin != end) count_global(begin, static_cast<std::size_t>(end - begin), is_load);
    begin = end = nullptr;
  };
  for (std::size_t element = 0; element < elements; ++element) {
    if (element % map.box[0] == 0) count();
    std::size_t rest = element;
    bool inside = true;
    std::int64_t offset = 0;
    for (int d = 0; d < rank; ++d) {
      const std::int64_t x = warp.at<std::int32_t>(i.at[first_at + d])[lane] +
                             static_cast<std::int64_t>(rest % map.box[d]);
      rest /= map.box[d];
      inside = inside && x >= 0 && x < map.size(d);
      offset += x * static_cast<std::int64_t>(map.stride[d]);
    }
    U32 at = shared + static_cast<U32>(element * 2);
    at = swizzled(at, map.swizzle_bytes);
    std::byte* p = inside ? warp.global(i, reinterpret_cast<U64>(map.base) + offset, 2) : nullptr;
    if (p) {
      if (!begin) begin = p;
      end = p + 2;
    }
    f(warp.shared(i, at, 2), p);
  }
  count();
  return elements * 2;
}

/// Operands: to, the map, the coordinates, the barrier.
template <int rank>
void load_box(Warp& warp, const Instruction& i, Lanes lanes) {
  for (; lanes != 0; lanes &= lanes - 1) {
    const int lane = first_of(lanes);
    const std::size_t bytes = for_each_of_box<rank>(warp, i, lane, 1, 0, 2, true,
                                                    [](std::byte* to, const std::byte* from) {
                                                      if (from) {
                                                        std::memcpy(to, from, 2);
                                                      } else {
                                                        std::memset(to, 0, 2);
                                                      }
                                                    });
    MemoryBarrier& barrier = barrier_at(warp, i, 2 + rank, lane);
    barrier.bytes -= static_cast<std::int32_t>(bytes);
    barrier.complete_if_due();
  }
}
/// Operands: the map, the coordinates, from.
template <int rank>
void store_box(Warp& warp, const Instruction& i, Lanes lanes) {
  for (; lanes != 0; lanes &= lanes - 1) {
    for_each_of_box<rank>(warp, i, first_of(lanes), 0, 1 + rank, 1, false,
                          [](const std::byte* from, std::byte* to) {
                            if (to) std::memcpy(to, from, 2);
                          });
  }
}

}  // namespace

Operation find_tensor(const std::string& name, const std::string& given) {
  if (name == "shfl.sync.up.b32") return shuffle_of<Shuffle::kUp>(given);
  if (name == "shfl.sync.bfly.b32") return shuffle_of<Shuffle::kButterfly>(given);
  if (name == "shfl.sync.idx.b32") return shuffle_of<Shuffle::kIndex>(given);
  if (name == "vote.sync.ballot.b32" || name == "vote.ballot.sync.b32") {
    return {ballot, "4p4", Kind::kTogether};
  }

  if (name == "ldmatrix.sync.aligned.m8n8.x4.shared.b16") {
    return {load_matrices<false>, "44444", Kind::kAligned};
  }
  if (name == "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16") {
    return {load_matrices<true>, "44444", Kind::kAligned};
  }
  if (name == "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") {
    return {multiply<false>, std::string(14, '4'), Kind::kAligned};
  }
  if (name == "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32") {
    return {multiply<true>, std::string(14, '4'), Kind::kAligned};
  }
  if (name.starts_with("wgmma.mma_async.sync.aligned.m64n") &&
      name.ends_with("k16.f32.bf16.bf16") && given.size() > 7) {
    return {multiply_by_warpgroup, std::string(given.size() - 7, '4') + "88p4444", Kind::kAligned};
  }
  if (name.starts_with("wgmma.")) {  // fence, commit_group, wait_group
    return {nullptr, std::string(given.size(), '4'), Kind::kAligned};
  }

  if (name == "cp.async.cg.shared.global" || name == "cp.async.ca.shared.global") {
    return {copy_async, "4844"};
  }
  if (name == "cp.async.commit_group") return {commit_copies, ""};
  if (name == "cp.async.wait_group") return {wait_for_copies, "4"};

  if (name == "mbarrier.init.shared::cta.b64") return {init_barrier, "44"};
  if (name == "mbarrier.arrive.shared::cta.b64") return {arrive<false>, "4"};
  if (name == "mbarrier.arrive.expect_tx.shared::cta.b64") return {arrive<true>, "44"};
  if (name == "mbarrier.try_wait.parity.shared::cta.b64") return {try_wait, "p44", Kind::kPoll};

  const std::string load = ".shared::cluster.global.tile.mbarrier::complete_tx::bytes";
  const std::string store = ".global.shared::cta.tile.bulk_group";
  if (name == "cp.async.bulk.tensor.3d" + load) return {load_box<3>, "484444"};
  if (name == "cp.async.bulk.tensor.4d" + load) return {load_box<4>, "4844444"};
  if (name == "cp.async.bulk.tensor.4d" + store) return {store_box<4>, "844444"};
  return {};
}

}  // namespace wrn::ptx
