// The instructions of kernels/hopper.cuh, as the emulation carries them out, and the driver's
// encoding of tensor maps.
//
// Boxes, stores and products take effect at moments that are drawn (async.h). Each 16 bytes of
// shared memory remember what is under way there and what no proxy fence has followed (Shadow), so
// that a missing wait or fence is found whatever the moment. Accumulators are NaNs until they have
// been waited for.
//
// Stricter than the device: a thread that waits for a barrier waits for each of its phases, in
// order; what a product reads of an operand was brought in one phase of one barrier, and a thread
// of the warpgroup has waited for it; operands begin where a pattern of 8 rows begins; a wait for
// stores waits for their writes, too.
#pragma once

#include <cstdint>

#include "simt/async.h"

struct CUtensorMap_st;

namespace wrn::cuda::simt {

/// Of the emulated shared window, which begins at 1024.
unsigned shared_address(const void* p);

void init_barrier(const std::uint64_t& barrier, unsigned count, Where where = Where::current());
void fence_barrier_init();
void arrive(const std::uint64_t& barrier, Where where = Where::current());
void arrive_expecting(const std::uint64_t& barrier, unsigned bytes, Where where = Where::current());
void wait(const std::uint64_t& barrier, unsigned parity, Where where = Where::current());

void fence_async_proxy();
void store_shared(void* p, unsigned value, Where where = Where::current());
unsigned load_shared(const void* p, Where where = Where::current());

void load_box(void* shared, const CUtensorMap_st& map, const std::uint64_t& barrier, int c0, int c1,
              int c2, Where where = Where::current());
void load_box(void* shared, const CUtensorMap_st& map, const std::uint64_t& barrier, int c0, int c1,
              int c2, int c3, Where where = Where::current());
void store_box(const CUtensorMap_st& map, const void* shared, int c0, int c1, int c2, int c3,
               Where where = Where::current());
void commit_stores();
void wait_for_stores(int newest);

void set_registers(int count, bool more, Where where);
void named_barrier(int number, int threads, Where where = Where::current());

/// One thread's part in D (+)= A B: its accumulators, N columns, the descriptors of A and B, and
/// whether they are contiguous along m and n.
struct Product {
  float* d;
  int n;
  std::uint64_t a, b;
  bool accumulate, mn_a, mn_b;
};
void fence_products(Where where);
void multiply_async(Product product, Where where);
void commit_products(Where where = Where::current());
void wait_for_products(int newest, Where where);

}  // namespace wrn::cuda::simt
