// What the planted bugs share: checked calls, launches, device memory, and the list of the cases.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <vector>

#include "simt/device.h"
#include "simt/simt.h"

namespace planted {

namespace simt = wrn::cuda::simt;

inline void check(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", call, cudaGetErrorName(code));
  std::exit(2);
}
#define CHECK(call) ::planted::check(call, #call)

/// Launches a kernel, which need not wait for those before by itself.
template <typename... P>
void start(const char* name, void (*kernel)(P...), unsigned grid, unsigned block,
           std::size_t shared, std::type_identity_t<P>... args) {
  const auto body = [=] {
    simt::wait_for_previous_kernels();
    kernel(args...);
  };
  check(simt::launch(name, grid, block, shared, nullptr, body), name);
}
#define START(kernel, ...) ::planted::start(#kernel, kernel, __VA_ARGS__)

struct Deleter {
  void operator()(float* p) const { CHECK(cudaFree(p)); }
};
using Device = std::unique_ptr<float, Deleter>;

inline Device allocate(int n) {
  void* p = nullptr;
  CHECK(cudaMalloc(&p, static_cast<std::size_t>(n) * sizeof(float)));
  return Device(static_cast<float*>(p));
}
/// Device memory with 0, 1, 2, ...
inline Device counting(int n) {
  Device x = allocate(n);
  std::vector<float> values(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) values[i] = static_cast<float>(i);
  CHECK(cudaMemcpy(x.get(), values.data(), values.size() * sizeof(float), cudaMemcpyDefault));
  return x;
}
inline std::vector<float> to_host(const Device& x, int n) {
  std::vector<float> values(static_cast<std::size_t>(n));
  CHECK(cudaMemcpy(values.data(), x.get(), values.size() * sizeof(float), cudaMemcpyDefault));
  return values;
}

/// Says what the results of `run`, the bytes of n floats in device memory, depend on.
template <typename F>
void check_deterministic(int n, F run) {
  const std::string found = simt::check_deterministic([&] {
    const Device y = run();
    std::vector<std::byte> bytes(static_cast<std::size_t>(n) * sizeof(float));
    CHECK(cudaMemcpy(bytes.data(), y.get(), bytes.size(), cudaMemcpyDefault));
    return bytes;
  });
  std::fprintf(stderr, "%s\n", found.c_str());
  std::exit(found.empty() ? 0 : 1);
}

struct Case {
  const char* name;
  void (*run)();
};
inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
/// Adds a file's cases to those of the program.
struct Register {
  Register(std::initializer_list<Case> more) {
    cases().insert(cases().end(), more.begin(), more.end());
  }
};
#define CASE(name) \
  ::planted::Case { #name, name }

}  // namespace planted
