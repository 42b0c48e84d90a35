// The convolution of a network's images, which have three channels: fprop, and wgrad, as nobody
// asks for their gradient.
//
// v4 would gather each of the 27 elements of a patch by itself, with an address and a test of its
// own. Here a block loads a band of eight rows of an image once, with a border of zeros around it
// and with eight channels a pixel, those that are there and zeros: 16 bytes, a row of ldmatrix. So
// eight neighbouring pixels are one of its matrices, at every tap, and two taps are the depth of an
// mma:
//
//                 depth:  channels of tap t | of tap t + 1        (taps 0 to 8, and one of zeros)
//    pixels 0-7           matrix 0          | matrix 2
//    pixels 8-15          matrix 1          | matrix 3
//
// fprop multiplies 16 pixels of a row by the 16 filters in ten mma of which 27 of 80 parts of the
// depth count; that is still far less time than the bands take to load. wgrad reads the same
// matrices transposed: pixels are the depth, and a tap's channels are columns. A warp has a row of
// the band.
#include "kernels/conv3x3/epilogue.cuh"
#include "kernels/conv3x3/implicit_gemm.cuh"
#include "kernels/conv3x3/ladder.h"
#include "kernels/divisor.h"
#include "kernels/sum_parts.h"
#include "kernels/tensor_core.cuh"

namespace wrn::cuda::first_layer {
namespace {

constexpr int kFilters = 16;
constexpr int kBand = 8;  // rows, one a warp
constexpr int kThreads = kBand * 32;
constexpr int kWidest = 64;           // an image
constexpr int kTaps = 9, kPairs = 5;  // of taps, the last with a tap of zeros
constexpr int kAtOnce = 16;           // pixels
using Pixel = Group<bf16, 8>;
using Band = Pixel[kBand + 2][kWidest + 2];  // with its border
using Filters = Pixel[2 * kPairs][kFilters];

/// The images, and the band of a block's.
struct Images {
  const bf16* x;
  int h, w, c;
  Divisor with_border;  // w + 2
  Divisor bands_of_image;

  __device__ int image(int band) const { return bands_of_image.divide(band); }
  /// The image's row that the band begins with.
  __device__ int top(int band) const {
    return (band - image(band) * bands_of_image.value()) * kBand;
  }
  /// The band's first pixel among all images'.
  __device__ std::int64_t first_pixel(int band) const {
    return (std::int64_t{image(band)} * h + top(band)) * w;
  }
};

/// The first `c` elements, and zeros.
__device__ Pixel load_pixel(const bf16* p, int c) {
  Pixel pixel{};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (i < c) pixel.at[i] = p[i];
  }
  return pixel;
}

__device__ void load_band(const Images& images, int number, Band& band) {
  const int top = images.top(number), wide = images.with_border.value();
  const bf16* const first = images.x + images.first_pixel(number) * images.c;
  for (int i = static_cast<int>(threadIdx.x); i < (kBand + 2) * wide; i += kThreads) {
    const int line = images.with_border.divide(i), place = i - line * wide;
    const int row = line - 1, column = place - 1;
    const bool there = top + row >= 0 && top + row < images.h && column >= 0 && column < images.w;
    band[line][place] =
        there ? load_pixel(first + (row * images.w + column) * images.c, images.c) : Pixel{};
  }
}

/// Where this lane's row of the four matrices begins: of 16 pixels from `column` on, at two taps.
__device__ const Pixel* patch(const Band& band, int row, int column, int pair) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // The tenth tap is any: its filters are zeros, and nobody reads its gradient.
  const int tap = min(2 * pair + lane / 16, kTaps - 1);
  return &band[row + tap / 3][column + tap % 3 + lane % 16];
}

/// The filter in column n of two tiles of eight: so that a lane, which has two columns of each, has
/// four channels next to each other.
__device__ int filter_of(int n) { return n % 8 / 2 * 4 + n / 8 * 2 + n % 2; }

__device__ void load_filters(const bf16* w, int c, Filters& filters) {
  const int i = static_cast<int>(threadIdx.x), tap = i / kFilters, n = i % kFilters;
  if (tap >= 2 * kPairs) return;
  const bf16* const from = w + (filter_of(n) * kTaps + tap) * c;
  filters[tap][n] = tap < kTaps ? load_pixel(from, c) : Pixel{};
}

template <typename Epilogue>
struct FpropStorage {
  Band band;
  Filters filters;
  ColumnSums<Epilogue, 4> column[kThreads];
};

template <typename Epilogue>
__global__ void __launch_bounds__(kThreads)
    first_fprop_kernel(const Images images, const bf16* w, bf16* y, const Epilogue epilogue) {
  constexpr bool kSums = !std::is_same_v<Epilogue, Plain>;
  wait_for_previous_kernels();
  auto& shared = shared_storage<FpropStorage<Epilogue>>();
  const int number = static_cast<int>(blockIdx.x);
  load_band(images, number, shared.band);
  load_filters(w, images.c, shared.filters);
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x) % 32, row = static_cast<int>(threadIdx.x) / 32;
  unsigned filters[kPairs][2][2];
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    unsigned fragment[4];
    load_matrices(fragment, &shared.filters[2 * pair + lane / 8 % 2][lane / 16 * 8 + lane % 8]);
#pragma unroll
    for (int j = 0; j < 4; ++j) filters[pair][j / 2][j % 2] = fragment[j];
  }
  const int channel = lane % 4 * 4;
  bf16* const out = y + (images.first_pixel(number) + row * images.w) * kFilters + channel;
  ColumnSums<Epilogue, 4> gathered{};
  for (int column = 0; column < images.w; column += kAtOnce) {
    float sums[1][2][4] = {};
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      unsigned pixels[1][4];
      load_matrices(pixels[0], patch(shared.band, row, column, pair));
      mma<bf16>(sums, pixels, filters[pair]);
    }
    ColumnSums<Epilogue, 4> both[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float(&s)[2][4] = sums[0];
      const auto stored = from_floats<bf16>(
          Floats<4>{s[0][2 * half], s[0][2 * half + 1], s[1][2 * half], s[1][2 * half + 1]});
      // As one word, as nvcc would store the elements of a small Group one by one.
      const auto words = __builtin_bit_cast(Group<std::uint32_t, 2>, stored);
      *reinterpret_cast<std::uint64_t*>(out + (column + 8 * half + lane / 4) * kFilters) =
          std::uint64_t{words.at[1]} << 32 | words.at[0];
      if constexpr (kSums) both[half] = sums_of_row(epilogue, stored, Beside<bf16, 4>{}, {});
    }
    if constexpr (kSums) gathered.merge(both);
  }
  if constexpr (kSums) {
    merge_rows(gathered, shared.column + lane % 4, row * 8 + lane / 4, kThreads / 4, 4);
    if (threadIdx.x < 4) gathered.store(epilogue.partial, blockIdx.x, gridDim.x, channel, kFilters);
  }
}

/// A band of dy, a pixel's 16 channels in two groups. Groups change places so that those of eight
/// pixels with the same channels lie in different banks.
struct Gradients {
  Group<bf16, 8> at[kBand * kWidest * 2];
  __device__ auto* group(int pixel, int half) { return &at[(pixel * 2 + half) ^ (pixel / 4 % 2)]; }
};
struct WgradStorage {
  Band band;
  Gradients dy;
  float sums[kBand][kFilters * kTaps * 8];  // of each warp
};

/// Writes one part of dw for each block, which takes every gridDim-th band.
__global__ void __launch_bounds__(kThreads)
    first_wgrad_kernel(const Images images, const bf16* dy, float* partial, int bands) {
  wait_for_previous_kernels();
  auto& shared = shared_storage<WgradStorage>();
  const int lane = static_cast<int>(threadIdx.x) % 32, row = static_cast<int>(threadIdx.x) / 32;
  float sums[1][2 * kPairs][4] = {};
  for (int band = static_cast<int>(blockIdx.x); band < bands; band += static_cast<int>(gridDim.x)) {
    __syncthreads();  // the band before has been read
    const bf16* const from = dy + images.first_pixel(band) * kFilters;
    for (int i = static_cast<int>(threadIdx.x); i < kBand * images.w * 2; i += kThreads) {
      copy_async<16>(shared.dy.group(i / 2, i % 2), from + i * 8, 16);
    }
    commit_copies();
    load_band(images, band, shared.band);
    wait_for_copies<0>();
    __syncthreads();
    for (int column = 0; column < images.w; column += kAtOnce) {
      const int matrix = lane / 8, pixel = row * images.w + column + matrix / 2 * 8 + lane % 8;
      unsigned filters[1][4], taps[2 * kPairs][2];
      load_matrices_transposed(filters[0], shared.dy.group(pixel, matrix % 2));
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        unsigned fragment[4];
        load_matrices_transposed(fragment, patch(shared.band, row, column, pair));
#pragma unroll
        for (int j = 0; j < 4; ++j) taps[2 * pair + j / 2][j % 2] = fragment[j];
      }
      mma<bf16>(sums, filters, taps);
    }
  }

  const int size = kFilters * kTaps * images.c;
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int filter = lane / 4 + j / 2 * 8, channel = lane % 4 * 2 + j % 2;
      if (channel < images.c) {
        shared.sums[row][(filter * kTaps + tap) * images.c + channel] = sums[0][tap][j];
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
    float sum = 0;
#pragma unroll
    for (int r = 0; r < kBand; ++r) sum += shared.sums[r][i];
    partial[std::int64_t{blockIdx.x} * size + i] = sum;
  }
}

Images images_of(const bf16* x, const ConvShape& s) {
  return {x, s.h, s.w, s.c, Divisor(s.w + 2), Divisor(s.h / kBand)};
}

int parts(const ConvShape& s, Context& context) {
  return std::min(static_cast<int>(fprop_tiles(s)),
                  2 * context.runtime().device.multiProcessorCount);
}

void check(const ConvShape& s, const void* image) {
  check_shape(s);
  WRN_CHECK(takes(s), "the first layer's convolution: c={} k={} h={} w={} r={} stride={}", s.c, s.k,
            s.h, s.w, s.r, s.stride);
  check_aligned(image);
}

template <typename Epilogue>
void run(const bf16* x, const bf16* w, bf16* y, const ConvShape& s, const Epilogue& epilogue,
         Context& context) {
  check(s, y);
  launch(WRN_KERNEL(first_fprop_kernel<Epilogue>), fprop_tiles(s), kThreads,
         sizeof(FpropStorage<Epilogue>), context, images_of(x, s), w, y, epilogue);
}

}  // namespace

bool takes(const ConvShape& s) {
  return s.c < 8 && s.k == kFilters && s.r == 3 && s.stride == 1 && s.h % kBand == 0 &&
         s.w % kAtOnce == 0 && s.w <= kWidest;
}

unsigned fprop_tiles(const ConvShape& s) { return static_cast<unsigned>(s.n * (s.h / kBand)); }

void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& s, Context& context) {
  run(x, w, y, s, Plain{}, context);
}

void fprop(const bf16* x, const bf16* w, bf16* y, const ConvShape& s,
           const WithMoments<bf16>& epilogue, Context& context) {
  WRN_CHECK(epilogue.partial != nullptr && epilogue.addend == nullptr,
            "sums without a workspace, or an addend");
  run(x, w, y, s, epilogue, context);
}

void wgrad(const bf16* x, const bf16* dy, float* dw, const ConvShape& s, Context& context) {
  check(s, dy);
  auto* const partial = reinterpret_cast<float*>(context.workspace);
  WRN_CHECK(partial != nullptr, "wgrad without a workspace");
  const int blocks = parts(s, context);
  launch(WRN_KERNEL(first_wgrad_kernel), static_cast<unsigned>(blocks), kThreads,
         sizeof(WgradStorage), context, images_of(x, s), dy, partial,
         static_cast<int>(fprop_tiles(s)));
  sum_parts(partial, blocks, static_cast<int>(s.w_size()), 1, dw, context);
}

std::size_t wgrad_workspace(const ConvShape& s, Context& context) {
  return wgrad_partial_bytes(s, parts(s, context));
}

}  // namespace wrn::cuda::first_layer
