// Groups of effects, and what the sanitizers are told. Compiled as scheduler.cpp is.
#include "simt/async.h"

#include <sanitizer/tsan_interface.h>

extern "C" {  // what the compiler calls for an access of its own
void __asan_loadN(const void* p, std::size_t bytes);
void __asan_storeN(void* p, std::size_t bytes);
void __tsan_read_range(const void* p, std::size_t bytes);
void __tsan_write_range(void* p, std::size_t bytes);
}
#pragma weak __asan_loadN
#pragma weak __asan_storeN
#pragma weak __tsan_read_range
#pragma weak __tsan_write_range

namespace wrn::cuda::simt {

void Groups::add(Effect* effect) {
  effect->group = open_;
  (last_ ? last_->next : first_) = effect;
  last_ = effect;
  begin(*effect);
}

void Groups::wait(unsigned newest, void (*done)(Effect&)) {
  while (first_ && first_->group + newest < open_) {
    Effect* effect = first_;
    first_ = effect->next;
    if (!first_) last_ = nullptr;
    finish(*effect);
    done(*effect);
    delete effect;
  }
}

void announce_read(const void* p, std::size_t bytes) {
  if (__asan_loadN) __asan_loadN(p, bytes);
  if (__tsan_read_range) __tsan_read_range(p, bytes);
}
void announce_write(void* p, std::size_t bytes) {
  if (__asan_storeN) __asan_storeN(p, bytes);
  if (__tsan_write_range) __tsan_write_range(p, bytes);
}

}  // namespace wrn::cuda::simt
