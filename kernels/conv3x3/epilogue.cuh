// The device's side of epilogue.h, for any version: one thread's part of it, a group of V
// neighbouring columns. finish() turns a row's sums of products into what is to be stored, and
// sums_of_row() says what that adds to the columns' sums. The kernel merges these over rows and
// threads, and stores them. A Reader, or the kernel itself, reads what is needed of other tensors.
#pragma once

#include "kernels/channel_sums.cuh"
#include "kernels/conv3x3/epilogue.h"

namespace wrn::cuda {

/// The elements of a group: with kVector in one access, else one by one, the first `there` of them.
template <bool kVector, int V, typename T>
__device__ Group<T, V> load_group(const T* p, int there) {
  if constexpr (kVector) {
    return *grouped<V>(p);
  } else {
    Group<T, V> group{};
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (i < there) group.at[i] = p[i];
    }
    return group;
  }
}
template <bool kVector, int V, typename T>
__device__ void store_group(T* p, const Group<T, V>& group, int there) {
  if constexpr (kVector) {
    *grouped<V>(p) = group;
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (i < there) p[i] = group.at[i];
    }
  }
}

/// What a thread reads for a group: apart from finishing it, so that several such readings overlap.
template <typename T, int V>
struct Beside {
  Group<T, V> addend, x;
  unsigned passed;  // a bit an element
};

/// The sums over rows, of V columns.
template <typename Epilogue, int V>
struct SumsOf;
template <int V>
struct SumsOf<Plain, V> {
  struct Type {};
};
template <typename T, int V>
struct SumsOf<WithMoments<T>, V> {
  using Type = Moments<V>;
};
template <typename T, int V>
struct SumsOf<ThroughRelu<T>, V> {
  using Type = GradientSums<V>;
};
template <typename Epilogue, int V>
using ColumnSums = typename SumsOf<Epilogue, V>::Type;

/// What is stored of `sum`.
template <typename T, int V>
__device__ Group<T, V> finish(const WithMoments<T>&, Floats<V> sum, const Beside<T, V>& beside) {
  const Floats<V> addend = to_floats(beside.addend);
#pragma unroll
  for (int i = 0; i < V; ++i) sum.at[i] += addend.at[i];
  return from_floats<T>(sum);
}
template <typename T, int V>
__device__ Group<T, V> finish(const ThroughRelu<T>& e, Floats<V> sum, const Beside<T, V>& beside) {
#pragma unroll
  for (int i = 0; i < V; ++i) {
    sum.at[i] = (beside.passed >> i & 1) != 0 ? sum.at[i] * e.scale : 0;
  }
  return from_floats<T>(sum);
}

/// What that adds to the columns' sums.
template <typename T, int V>
__device__ Moments<V> sums_of_row(const WithMoments<T>&, const Group<T, V>& y, const Beside<T, V>&,
                                  const Floats<V>&) {
  return {1, to_floats(y), {}};
}
template <typename T, int V>
__device__ GradientSums<V> sums_of_row(const ThroughRelu<T>&, const Group<T, V>& d,
                                       const Beside<T, V>& beside, const Floats<V>& mean) {
  GradientSums<V> sums{to_floats(d), to_floats(beside.x)};
#pragma unroll
  for (int i = 0; i < V; ++i) {
    sums.dy_x.at[i] = sums.dy.at[i] * (sums.dy_x.at[i] - mean.at[i]);
  }
  return sums;
}

/// `column`: the group's first, of `columns`; `there`: how many of the group there are.
template <typename Epilogue, int V, bool kVector>
class Reader;

template <typename T, int V, bool kVector>
class Reader<WithMoments<T>, V, kVector> {
 public:
  __device__ Reader(const WithMoments<T>& e, int column, int columns, int there)
      : e_(e), column_(column), columns_(columns), there_(there) {}

  __device__ Beside<T, V> read(int pixel) const {
    Beside<T, V> beside{};
    const std::int64_t at = std::int64_t{pixel} * columns_ + column_;
    if (e_.addend) beside.addend = load_group<kVector, V>(e_.addend + at, there_);
    return beside;
  }

  Floats<V> mean{};  // has no meaning here

 private:
  const WithMoments<T>& e_;
  int column_, columns_, there_;
};

template <typename T, int V, bool kVector>
class Reader<ThroughRelu<T>, V, kVector> {
 public:
  __device__ Reader(const ThroughRelu<T>& e, int column, int columns, int there)
      : e_(e), column_(column), columns_(columns), there_(there) {
#pragma unroll
    for (int i = 0; i < V; ++i) mean.at[i] = i < there ? e.mean[column + i] : 0;
  }

  __device__ Beside<T, V> read(int pixel) const {
    constexpr int kBits = 8;  // of a byte of the mask
    Beside<T, V> beside{};
    const std::int64_t at = std::int64_t{pixel} * columns_ + column_;
    const std::int64_t line = std::int64_t{pixel} * ((columns_ + kBits - 1) / kBits);
    beside.x = load_group<kVector, V>(e_.x + at, there_);
    beside.passed = e_.mask[line + column_ / kBits] >> column_ % kBits;
    return beside;
  }

  Floats<V> mean;

 private:
  const ThroughRelu<T>& e_;
  int column_, columns_, there_;
};

}  // namespace wrn::cuda
