#include "data/whitening.h"

#include <algorithm>
#include <cmath>

#include "data/checksum.h"
#include "data/lapack.h"
#include "engine/atomic_file.h"
#include "engine/tensor.h"
#include "kernels/augment.h"
#include "kernels/error.h"

namespace wrn {

namespace {

// pylearn2's: the norm of a normalised image, the least that an image is divided by, and what is
// added to every eigenvalue.
constexpr double kScale = 55, kLeastDivisor = 1e-8, kBias = 0.1;

constexpr std::size_t kChunk = 512;  // images at a time
constexpr const char* kFormat = "wrn.cu whitening 1";

std::size_t count(std::span<const std::uint8_t> images, int features) {
  WRN_CHECK(features > 0 && images.size() % static_cast<std::size_t>(features) == 0,
            "{} bytes of images of {} values", images.size(), features);
  return images.size() / static_cast<std::size_t>(features);
}

/// Global contrast normalisation of one image; `out` may be of either precision.
template <typename T>
void normalise(std::span<const std::uint8_t> image, T* out) {
  std::int64_t sum = 0;
  for (const std::uint8_t value : image) sum += value;
  const double mean = static_cast<double>(sum) / static_cast<double>(image.size());
  double squares = 0;
  for (const std::uint8_t value : image) squares += (value - mean) * (value - mean);
  double divisor = std::sqrt(squares) / kScale;
  if (divisor < kLeastDivisor) divisor = 1;
  for (const std::uint8_t value : image) *out++ = static_cast<T>((value - mean) / divisor);
}

/// Calls visit(how many, their normalised values) for one chunk of images after another.
template <typename Visit>
void for_each_chunk(std::span<const std::uint8_t> images, std::size_t features, Visit visit) {
  const std::size_t n = images.size() / features;
  std::vector<double> chunk(std::min(n, kChunk) * features);
  for (std::size_t first = 0; first < n; first += kChunk) {
    const std::size_t rows = std::min(kChunk, n - first);
    for (std::size_t row = 0; row < rows; ++row) {
      normalise(images.subspan((first + row) * features, features), &chunk[row * features]);
    }
    visit(static_cast<int>(rows), chunk);
  }
}

/// Of the normalised images less their mean; the lower triangle.
std::vector<double> covariance(const Lapack& lapack, std::span<const std::uint8_t> images,
                               const std::vector<double>& mean) {
  const std::size_t features = mean.size();
  const double scale = static_cast<double>(features) / static_cast<double>(images.size());
  std::vector<double> result(features * features);
  for_each_chunk(images, features, [&](int rows, std::vector<double>& chunk) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows) * features; ++i) {
      chunk[i] -= mean[i % features];
    }
    lapack.add_gram(static_cast<int>(features), rows, scale, chunk.data(), result.data());
  });
  return result;
}

}  // namespace

Whitening fit_whitening(std::span<const std::uint8_t> images, int features) {
  const std::size_t n = count(images, features), size = static_cast<std::size_t>(features);
  WRN_CHECK(n > 0, "{} images to whiten by", n);
  const Lapack lapack(1);
  std::vector<double> mean(size);
  for_each_chunk(images, size, [&](int rows, const std::vector<double>& chunk) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(rows) * size; ++i) {
      mean[i % size] += chunk[i];
    }
  });
  for (double& value : mean) value /= static_cast<double>(n);

  std::vector<double> vectors = covariance(lapack, images, mean);
  const std::vector<double> eigenvalues = lapack.decompose(features, vectors.data());
  // P = W^T W, where W has each eigenvector times (l + bias)^(-1/4) as a row.
  for (std::size_t i = 0; i < size; ++i) {
    const double root = 1 / std::sqrt(std::sqrt(std::max(eigenvalues[i], 0.0) + kBias));
    for (std::size_t j = 0; j < size; ++j) vectors[i * size + j] *= root;
  }
  std::vector<double> matrix(size * size);
  lapack.add_gram(features, features, 1, vectors.data(), matrix.data());

  Whitening whitening{features, {mean.begin(), mean.end()}, std::vector<float>(size * size)};
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const float value = static_cast<float>(matrix[i * size + j]);
      whitening.matrix[i * size + j] = whitening.matrix[j * size + i] = value;
    }
  }
  return whitening;
}

void Whitening::apply(std::span<const std::uint8_t> images, std::span<float> whitened,
                      int threads) const {
  const std::size_t n = count(images, features), size = static_cast<std::size_t>(features);
  WRN_CHECK(whitened.size() == images.size(), "{} values for {}", whitened.size(), images.size());
  const Lapack lapack(threads);
  std::vector<float> chunk(std::min(n, kChunk) * size);
  for (std::size_t first = 0; first < n; first += kChunk) {
    const std::size_t rows = std::min(kChunk, n - first);
    for (std::size_t row = 0; row < rows; ++row) {
      float* x = &chunk[row * size];
      normalise(images.subspan((first + row) * size, size), x);
      for (std::size_t i = 0; i < size; ++i) x[i] -= mean[i];
    }
    lapack.multiply(static_cast<int>(rows), features, features, chunk.data(), matrix.data(),
                    &whitened[first * size]);
  }
}

std::string Whitening::checksum() const {
  Checksum sum;
  sum.add(std::span<const float>(mean));
  sum.add(std::span<const float>(matrix));
  return sum.text();
}

void export_whitening(const Whitening& whitening, Safetensors& file) {
  const std::int64_t size = whitening.features;
  file.tensors.emplace_back("whitening.mean", SafetensorsEntry::make<float>(
                                                  {size}, std::span<const float>(whitening.mean)));
  file.tensors.emplace_back(
      "whitening.matrix",
      SafetensorsEntry::make<float>({size, size}, std::span<const float>(whitening.matrix)));
}

Whitening import_whitening(const Safetensors& file, const std::string& checksum) {
  const SafetensorsEntry& mean = file.at("whitening.mean");
  const SafetensorsEntry& matrix = file.at("whitening.matrix");
  const auto values = mean.as<float>(), elements = matrix.as<float>();
  const auto size = static_cast<std::int64_t>(values.size());
  if (size == 0 || size > kImageBytes || mean.shape != Shape{size} ||
      matrix.shape != Shape{size, size}) {
    fail("{}: its whitening has a mean of {} and a matrix of {}", file.file.string(),
         to_string(mean.shape), to_string(matrix.shape));
  }
  Whitening whitening{
      static_cast<int>(size), {values.begin(), values.end()}, {elements.begin(), elements.end()}};
  if (whitening.checksum() != checksum) {
    fail("{}: its whitening has the checksum {} and not {}: the file is damaged",
         file.file.string(), whitening.checksum(), checksum);
  }
  return whitening;
}

Whitening cached_whitening(const std::filesystem::path& directory,
                           std::span<const std::uint8_t> images, int features,
                           const std::function<void(const std::string&)>& warn) {
  Checksum sum;
  sum.add(images);
  const std::filesystem::path cache = directory / fmt::format("zca-{}.safetensors", sum.text());
  std::error_code error;
  if (std::filesystem::exists(cache, error)) {
    try {
      const Safetensors file = read_safetensors(cache);
      const auto metadata = [&](const char* key) {
        const auto found = file.metadata.find(key);
        return found == file.metadata.end() ? "" : found->second;
      };
      if (metadata("format") != kFormat) fail("{}: is no whitening of wrn_train", cache.string());
      if (metadata("images") != sum.text()) fail("{}: is of other images", cache.string());
      Whitening whitening = import_whitening(file, metadata("whitening"));
      if (whitening.features != features) fail("{}: is of other images", cache.string());
      return whitening;
    } catch (const Error& problem) {
      warn(fmt::format("{}; it is computed anew", problem.what()));
    }
  }
  Whitening whitening = fit_whitening(images, features);
  Safetensors file;
  file.metadata = {
      {"format", kFormat}, {"images", sum.text()}, {"whitening", whitening.checksum()}};
  export_whitening(whitening, file);
  remove_stale_temporaries(directory);
  try {
    write_safetensors(cache, file);
  } catch (const Error& problem) {
    warn(fmt::format("{}; the whitening is computed anew every time", problem.what()));
  }
  return whitening;
}

}  // namespace wrn
