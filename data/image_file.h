// Images in files: PNG through libpng, JPEG through libjpeg, from a file of any size and shape to
// the 32x32 pixels that a network takes.
//
// Whatever the file holds comes out as 8-bit sRGB: grey and palettes are expanded, 16 bits rounded
// to 8, a PNG's gamma is taken to sRGB's, transparency lies on white, CMYK is converted without a
// profile. A JPEG's EXIF orientation is applied, as viewers do. Only the first frame of what could
// have several is read.
//
// The files are not to be trusted. Anything but a whole, undamaged image of at most kMostPixels is
// an Error with file and reason: also one that the libraries only warn of, as they do of a JPEG
// that is cut short.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace wrn {

constexpr std::int64_t kMostPixels = 100'000'000;          // decoded: 300 MB
constexpr std::int64_t kMostImageFileBytes = 256LL << 20;  // encoded

struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> pixels;  // [height, width, 3]: red, green, blue
  int orientation = 1;               // EXIF's, of how the pixels are to be turned: 1 = as they are
};

/// PNG or JPEG, by its first bytes, not its name, of at most `most` pixels. The pixels are not
/// turned yet.
Image read_image(const std::filesystem::path& path, std::int64_t most = kMostPixels);

/// The largest square in the middle, resized to side x side and turned upright: [side, side, 3]. By
/// a triangle filter as wide as the scale, so that no pixel of the square goes unseen (Pillow's
/// BILINEAR). An upright image of side x side stays as it is.
std::vector<std::uint8_t> square(const Image& image, int side);

/// [height, width, 3] as the bytes of a PNG file.
std::string png_of(std::span<const std::uint8_t> pixels, int width, int height);

}  // namespace wrn
