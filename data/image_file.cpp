#include "data/image_file.h"

#include <libexif/exif-data.h>
#include <png.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

// They need FILE and size_t from before them.
#include <jerror.h>
#include <jpeglib.h>

#include "data/files.h"
#include "kernels/error.h"

namespace wrn {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::uint8_t>;

Bytes read_bytes(const fs::path& path) {
  const std::int64_t size = checked_size(path, INT64_MAX);
  if (size > kMostImageFileBytes) {
    fail("{}: has {} bytes, more than the {} of an image that is read here", path.string(), size,
         kMostImageFileBytes);
  }
  Bytes bytes(static_cast<std::size_t>(size));
  const File file = open_file(path);
  if (std::fread(bytes.data(), bytes.size(), 1, file.get()) != 1) {
    fail("{}: cannot be read: {}", path.string(),
         std::feof(file.get()) != 0 ? "the file has become shorter" : std::strerror(errno));
  }
  return bytes;
}

void check_size(std::int64_t width, std::int64_t height, std::int64_t most) {
  if (width < 1 || height < 1 || width > most / height) {
    fail("its {} x {} pixels are more than the {} that are decoded here", width, height, most);
  }
}

// ---- PNG --------------------------------------------------------------------------------------

struct Png {
  png_image image{};
  Png() { image.version = PNG_IMAGE_VERSION; }
  Png(const Png&) = delete;
  Png& operator=(const Png&) = delete;
  ~Png() { png_image_free(&image); }
  [[noreturn]] void broken() const { fail("is no whole PNG: {}", image.message); }
};

Image decode_png(const Bytes& bytes, std::int64_t most) {
  Png png;
  if (png_image_begin_read_from_memory(&png.image, bytes.data(), bytes.size()) == 0) png.broken();
  check_size(png.image.width, png.image.height, most);
  png.image.format = PNG_FORMAT_RGBA;
  // Without it, 16-bit samples would be taken for linear light.
  png.image.flags |= PNG_IMAGE_FLAG_16BIT_sRGB;
  Bytes rgba(PNG_IMAGE_SIZE(png.image));
  // Warnings are of colour profiles and the like, and pass; of too few pixels there is an error.
  if (png_image_finish_read(&png.image, nullptr, rgba.data(), 0, nullptr) == 0) png.broken();
  Image image{png.image.width, png.image.height, {}};
  image.pixels.reserve(rgba.size() / 4 * 3);
  for (std::size_t i = 0; i < rgba.size(); i += 4) {
    const int alpha = rgba[i + 3];
    for (std::size_t c = 0; c < 3; ++c) {  // on white, in sRGB's values, as browsers do
      image.pixels.push_back(
          static_cast<std::uint8_t>((rgba[i + c] * alpha + 255 * (255 - alpha) + 127) / 255));
    }
  }
  return image;
}

// ---- JPEG -------------------------------------------------------------------------------------

/// libjpeg reports an error by a call that must not return. It jumps back to where decoding began,
/// over C frames and functions without a destructor to run: see guarded().
struct Jpeg {
  jpeg_decompress_struct info{};  // all zero, it may be destroyed without having been created
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump{};
  char message[JMSG_LENGTH_MAX] = "";

  Jpeg() = default;
  Jpeg(const Jpeg&) = delete;
  Jpeg& operator=(const Jpeg&) = delete;
  ~Jpeg() { jpeg_destroy_decompress(&info); }
};

Jpeg& jpeg_of(j_common_ptr info) { return *static_cast<Jpeg*>(info->client_data); }

[[noreturn]] void give_up(j_common_ptr info) {
  Jpeg& jpeg = jpeg_of(info);
  info->err->format_message(info, jpeg.message);
  std::longjmp(jpeg.jump, 1);
}

/// libjpeg only warns of data that are missing or make no sense, and paints grey over them. Its
/// other warnings are of what does no harm.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
      give_up(info);
  }
}

/// A few bytes can ask for a million passes over a large image.
void on_progress(j_common_ptr info) {
  constexpr int kMostScans = 200;
  if (info->is_decompressor == TRUE &&
      reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMostScans) {
    std::snprintf(jpeg_of(info).message, JMSG_LENGTH_MAX, "it has more than %d scans", kMostScans);
    std::longjmp(jpeg_of(info).jump, 1);
  }
}

/// Runs body(jpeg, argument); false after an error. Neither this frame nor body's may own anything.
bool guarded(Jpeg& jpeg, void (*body)(Jpeg&, void*), void* argument) {
  if (setjmp(jpeg.jump) != 0) return false;
  body(jpeg, argument);
  return true;
}

void begin_decoding(Jpeg& jpeg, void* argument) {
  const auto& bytes = *static_cast<const Bytes*>(argument);
  jpeg.info.err = jpeg_std_error(&jpeg.errors);
  jpeg.info.client_data = &jpeg;
  jpeg.errors.error_exit = give_up;
  jpeg.errors.emit_message = on_message;
  jpeg_create_decompress(&jpeg.info);
  jpeg.progress.progress_monitor = on_progress;
  jpeg.info.progress = &jpeg.progress;
  jpeg_mem_src(&jpeg.info, bytes.data(), static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&jpeg.info, TRUE);
  const J_COLOR_SPACE colours = jpeg.info.jpeg_color_space;
  jpeg.info.out_color_space = colours == JCS_CMYK || colours == JCS_YCCK ? JCS_CMYK : JCS_RGB;
  jpeg_calc_output_dimensions(&jpeg.info);
}

void decode_rows(Jpeg& jpeg, void* argument) {
  auto* row = static_cast<std::uint8_t*>(argument);
  jpeg_start_decompress(&jpeg.info);
  const auto stride = static_cast<std::size_t>(jpeg.info.output_width) *
                      static_cast<std::size_t>(jpeg.info.output_components);
  while (jpeg.info.output_scanline < jpeg.info.output_height) {
    row += stride * jpeg_read_scanlines(&jpeg.info, &row, 1);
  }
  jpeg_finish_decompress(&jpeg.info);
}

/// Adobe's programs store ink as its absence, and all others follow them; the marker says so.
Bytes rgb_of_cmyk(const Bytes& cmyk, bool inverted) {
  Bytes rgb(cmyk.size() / 4 * 3);
  for (std::size_t i = 0; i < rgb.size() / 3; ++i) {
    const auto light = [&](std::size_t ink) {
      return inverted ? cmyk[4 * i + ink] : 255 - cmyk[4 * i + ink];
    };
    for (std::size_t c = 0; c < 3; ++c) {
      rgb[3 * i + c] = static_cast<std::uint8_t>((light(c) * light(3) + 127) / 255);
    }
  }
  return rgb;
}

/// 1 for whatever is no orientation: a wrong one is nothing to refuse an image for.
int exif_orientation(const Bytes& bytes) {
  const std::unique_ptr<ExifData, void (*)(ExifData*)> exif(
      exif_data_new_from_data(bytes.data(), static_cast<unsigned>(bytes.size())), exif_data_unref);
  if (!exif) return 1;
  const ExifEntry* entry = exif_content_get_entry(exif->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry == nullptr || entry->format != EXIF_FORMAT_SHORT || entry->size < 2) return 1;
  const int orientation = exif_get_short(entry->data, exif_data_get_byte_order(exif.get()));
  return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

Image decode_jpeg(const Bytes& bytes, std::int64_t most) {
  Jpeg jpeg;
  const auto run = [&](void (*body)(Jpeg&, void*), const void* argument) {
    if (!guarded(jpeg, body, const_cast<void*>(argument))) {
      fail("is no whole JPEG: {}", jpeg.message);
    }
  };
  run(begin_decoding, &bytes);
  Image image{jpeg.info.output_width, jpeg.info.output_height, {}};
  check_size(image.width, image.height, most);
  const bool cmyk = jpeg.info.out_color_space == JCS_CMYK;
  image.pixels.resize(static_cast<std::size_t>(image.width * image.height * (cmyk ? 4 : 3)));
  run(decode_rows, image.pixels.data());
  if (cmyk) image.pixels = rgb_of_cmyk(image.pixels, jpeg.info.saw_Adobe_marker == TRUE);
  image.orientation = exif_orientation(bytes);
  return image;
}

// ---- Resizing ---------------------------------------------------------------------------------

/// Which inputs an output is the mean of, and with what weights: a triangle about its centre.
struct Taps {
  std::int64_t first = 0;
  std::vector<double> weights;  // their sum is 1
};

std::vector<Taps> triangle(std::int64_t from, int to) {
  const double scale = static_cast<double>(from) / to, radius = std::max(1.0, scale);
  std::vector<Taps> all;
  for (int i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    Taps taps;
    taps.first = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - radius + 0.5));
    const std::int64_t end = std::min(from, static_cast<std::int64_t>(centre + radius + 0.5));
    double sum = 0;
    for (std::int64_t x = taps.first; x < end; ++x) {
      const double distance = std::abs(static_cast<double>(x) + 0.5 - centre) / radius;
      taps.weights.push_back(std::max(0.0, 1 - distance));
      sum += taps.weights.back();
    }
    for (double& weight : taps.weights) weight /= sum;
    all.push_back(std::move(taps));
  }
  return all;
}

/// Where the pixel (y, x) of the upright square lies in the one that was stored.
std::pair<int, int> stored_place(int orientation, int y, int x, int side) {
  const int down = side - 1 - y, left = side - 1 - x;
  switch (orientation) {
    case 2:
      return {y, left};
    case 3:
      return {down, left};
    case 4:
      return {down, x};
    case 5:
      return {x, y};
    case 6:
      return {left, y};
    case 7:
      return {left, down};
    case 8:
      return {x, down};
    default:
      return {y, x};
  }
}

}  // namespace

Image read_image(const fs::path& path, std::int64_t most) {
  const Bytes bytes = read_bytes(path);
  const auto begins = [&](std::initializer_list<std::uint8_t> magic) {
    return bytes.size() >= magic.size() && std::equal(magic.begin(), magic.end(), bytes.begin());
  };
  try {
    if (begins({0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'})) return decode_png(bytes, most);
    if (begins({0xff, 0xd8, 0xff})) return decode_jpeg(bytes, most);
  } catch (const Error& error) {
    fail("{}: {}", path.string(), error.what());
  }
  fail("{}: is neither PNG nor JPEG by its first bytes", path.string());
}

Bytes square(const Image& image, int side) {
  const std::int64_t edge = std::min(image.width, image.height);
  const std::int64_t top = (image.height - edge) / 2, left = (image.width - edge) / 2;
  const std::vector<Taps> taps = triangle(edge, side);
  const auto n = static_cast<std::size_t>(side);
  // Rows first: [edge, side, 3], one row at a time into the outputs that it is a tap of.
  std::vector<double> sums(n * n * 3), row(n * 3);
  for (std::int64_t y = 0; y < edge; ++y) {
    const std::uint8_t* from =
        &image.pixels[static_cast<std::size_t>(((top + y) * image.width + left) * 3)];
    std::fill(row.begin(), row.end(), 0.0);
    for (std::size_t x = 0; x < n; ++x) {
      for (std::size_t t = 0; t < taps[x].weights.size(); ++t) {
        const std::size_t pixel = static_cast<std::size_t>(taps[x].first) + t;
        for (std::size_t c = 0; c < 3; ++c) {
          row[3 * x + c] += taps[x].weights[t] * from[3 * pixel + c];
        }
      }
    }
    for (std::size_t out = 0; out < n; ++out) {
      const std::int64_t t = y - taps[out].first;
      if (t < 0 || t >= std::ssize(taps[out].weights)) continue;
      for (std::size_t i = 0; i < row.size(); ++i) {
        sums[out * row.size() + i] += taps[out].weights[static_cast<std::size_t>(t)] * row[i];
      }
    }
  }
  Bytes upright;
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      const auto [sy, sx] = stored_place(image.orientation, y, x, side);
      for (int c = 0; c < 3; ++c) {
        const double value = sums[static_cast<std::size_t>((sy * side + sx) * 3 + c)];
        upright.push_back(static_cast<std::uint8_t>(std::lround(value)));
      }
    }
  }
  return upright;
}

std::string png_of(std::span<const std::uint8_t> pixels, int width, int height) {
  WRN_CHECK(std::ssize(pixels) == std::int64_t{3} * width * height, "{} bytes of {} x {} pixels",
            pixels.size(), width, height);
  Png png;
  png.image.width = static_cast<png_uint_32>(width);
  png.image.height = static_cast<png_uint_32>(height);
  png.image.format = PNG_FORMAT_RGB;
  // The first call says how many bytes the second will write.
  png_alloc_size_t size = 0;
  std::string bytes;
  for (int pass = 0; pass < 2; ++pass) {
    bytes.resize(size);
    void* to = pass == 0 ? nullptr : bytes.data();
    if (png_image_write_to_memory(&png.image, to, &size, 0, pixels.data(), 0, nullptr) == 0) {
      fail("cannot encode a PNG: {}", png.image.message);
    }
  }
  return bytes;
}

}  // namespace wrn
