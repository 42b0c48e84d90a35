#include "data/mat.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "data/files.h"
#include "kernels/error.h"

namespace wrn {

namespace {

static_assert(std::endian::native == std::endian::little, "the format is little endian");

constexpr std::int64_t kHeaderBytes = 128, kTagBytes = 8, kMostBytes = std::int64_t{1} << 31;
constexpr std::int64_t kMostExpansion = 1032;  // of a zlib stream
constexpr std::int64_t kMostDimensions = 32;

enum Type : std::uint32_t {
  kI8 = 1,
  kU8 = 2,
  kI16 = 3,
  kU16 = 4,
  kI32 = 5,
  kU32 = 6,
  kF32 = 7,
  kF64 = 9,
  kI64 = 12,
  kU64 = 13,
  kMatrix = 14,
  kCompressed = 15,
};

// Classes of arrays: from double to uint64 they are numbers. Flags: complex.
constexpr std::uint32_t kFirstNumber = 6, kLastNumber = 15, kU8Class = 9, kComplex = 0x0800;

/// Bytes of a value, 0 for a type that no value of ours has.
std::int64_t size_of_type(std::uint32_t type) {
  switch (type) {
    case kI8:
    case kU8:
      return 1;
    case kI16:
    case kU16:
      return 2;
    case kI32:
    case kU32:
    case kF32:
      return 4;
    case kF64:
    case kI64:
    case kU64:
      return 8;
    default:
      return 0;
  }
}

/// The bytes of one element, in order: straight from the file, or inflated.
class Source {
 public:
  Source(std::FILE* file, std::int64_t bytes, bool compressed)
      : file_(file), stored_(bytes), compressed_(compressed) {
    if (compressed_ && inflateInit(&stream_) != Z_OK) fail("zlib cannot be used");
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  ~Source() {
    if (compressed_) inflateEnd(&stream_);
  }

  void read(void* to, std::int64_t bytes) {
    if (!compressed_) return read_stored(to, bytes);
    stream_.next_out = static_cast<Bytef*>(to);
    for (std::int64_t left = bytes; left > 0;) {
      // zlib counts in 32 bits.
      const auto part = static_cast<uInt>(std::min<std::int64_t>(left, 1 << 30));
      stream_.avail_out = part;
      if (!step()) fail("the compressed data end too early");
      left -= part - stream_.avail_out;
    }
  }

  /// Reads past what is left, padding at most, up to where a compressed stream has its checksum.
  void finish() {
    std::array<Bytef, 64> rest{};
    std::int64_t read = 0;
    while (compressed_) {
      stream_.next_out = rest.data();
      stream_.avail_out = rest.size();
      const bool more = step();
      read += static_cast<std::int64_t>(rest.size() - stream_.avail_out);
      if (read >= kTagBytes) fail("the compressed data go on after the array's end");
      if (!more) return;
    }
  }

 private:
  void read_stored(void* to, std::int64_t bytes) {
    if (bytes > stored_) fail("the element ends too early");
    if (std::fread(to, 1, static_cast<std::size_t>(bytes), file_) !=
        static_cast<std::size_t>(bytes)) {
      fail("cannot be read: {}",
           std::feof(file_) != 0 ? "the file ends here" : std::strerror(errno));
    }
    stored_ -= bytes;
  }

  /// Inflates a little more; false at the end of the stream.
  bool step() {
    if (ended_) return false;
    if (stream_.avail_in == 0 && stored_ > 0) {
      const auto part = std::min<std::int64_t>(stored_, static_cast<std::int64_t>(buffer_.size()));
      read_stored(buffer_.data(), part);
      stream_.next_in = buffer_.data();
      stream_.avail_in = static_cast<uInt>(part);
    }
    const int status = inflate(&stream_, Z_NO_FLUSH);
    ended_ = status == Z_STREAM_END;
    if (status == Z_BUF_ERROR && stream_.avail_in == 0 && stored_ == 0) {
      fail("the compressed data are cut short");
    }
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
      fail("the compressed data are damaged ({})",
           stream_.msg != nullptr ? stream_.msg : zError(status));
    }
    return true;
  }

  std::FILE* file_;
  std::int64_t stored_;  // bytes of the element that are still in the file
  bool compressed_, ended_ = false;
  z_stream stream_{};
  std::array<Bytef, 1 << 16> buffer_{};
};

struct Tag {
  std::uint32_t type = 0;
  std::int64_t bytes = 0;
  std::uint32_t value = 0;  // of a small element, whose bytes stand in the tag itself
  bool small = false;
};

class Array : public MatArray {
 public:
  /// Reads all but the values. `most`: how many bytes the array can have at most.
  Array(Source& source, std::int64_t most) : source_(source) {
    std::uint32_t tag[2];
    source_.read(tag, sizeof tag);
    if (tag[0] != kMatrix) fail("it is no array, but of type {}", tag[0]);
    left_ = tag[1];
    if (left_ > most) fail("it says it has {} bytes, more than there can be ({})", left_, most);
    const auto flags = read_element<std::uint32_t>("flags", kU32, 2);
    if (flags.size() != 2) fail("its flags are {} numbers and not 2", flags.size());
    const std::uint32_t array_class = flags[0] & 0xff;
    for (const std::int32_t extent :
         read_element<std::int32_t>("dimensions", kI32, kMostDimensions)) {
      if (extent < 0) fail("it has the negative dimension {}", extent);
      dimensions.push_back(extent);
    }
    const auto letters = read_element<char>("name", kI8, 63);
    name.assign(letters.begin(), letters.end());
    for (char& letter : name) {
      if (letter < ' ' || letter > '~') letter = '?';
    }
    is_number_ = array_class >= kFirstNumber && array_class <= kLastNumber &&
                 (flags[0] & kComplex) == 0 && dimensions.size() >= 2;
    if (!is_number_) return;  // something else that was saved beside

    size = 1;
    for (const std::int64_t extent : dimensions) {
      size *= extent;  // at most 2^62
      if (size > kMostBytes) fail("{}: its dimensions say more than any file has", name);
    }
    values_ = read_tag();
    const std::int64_t bytes = size_of_type(values_.type);
    if (bytes == 0) fail("{}: its values are of type {}, which is no number's", name, values_.type);
    if (values_.bytes != size * bytes) {
      fail("{}: its values have {} bytes, its dimensions say {}", name, values_.bytes,
           size * bytes);
    }
    is_u8 = array_class == kU8Class && values_.type == kU8;
  }

  bool is_number() const { return is_number_; }

  void read_u8(std::uint8_t* values, std::int64_t count) override {
    WRN_CHECK(is_u8, "{} as bytes", name);
    read_values(values, count);
  }

  std::vector<double> read_all() override {
    switch (values_.type) {
      case kI8:
        return as_doubles<std::int8_t>();
      case kU8:
        return as_doubles<std::uint8_t>();
      case kI16:
        return as_doubles<std::int16_t>();
      case kU16:
        return as_doubles<std::uint16_t>();
      case kI32:
        return as_doubles<std::int32_t>();
      case kU32:
        return as_doubles<std::uint32_t>();
      case kI64:
        return as_doubles<std::int64_t>();
      case kU64:
        return as_doubles<std::uint64_t>();
      case kF32:
        return as_doubles<float>();
      default:
        return as_doubles<double>();
    }
  }

  /// After the values were read: whether the stream's checksum is theirs.
  void finish() {
    if (values_read_ > 0 && values_read_ == values_.bytes) source_.finish();
  }

 private:
  Tag read_tag() {
    std::uint32_t words[2];
    if (left_ < kTagBytes) fail("it ends where an element should begin");
    source_.read(words, sizeof words);
    left_ -= kTagBytes;
    Tag tag{words[0], words[1]};
    if (tag.type >> 16 != 0) {  // a small element: its size is in the upper half
      tag = {words[0] & 0xffff, words[0] >> 16, words[1], true};
      if (tag.bytes > 4) fail("it has a small element of {} bytes", tag.bytes);
    } else if (tag.bytes > left_) {
      fail("it has an element of {} bytes where {} are left", tag.bytes, left_);
    }
    return tag;
  }

  template <typename T>
  std::vector<T> read_element(const char* what, std::uint32_t type, std::int64_t most) {
    const Tag tag = read_tag();
    const auto size = static_cast<std::int64_t>(sizeof(T));
    if (tag.type != type) fail("its {} are of type {} and not {}", what, tag.type, type);
    if (tag.bytes % size != 0 || tag.bytes / size > most) {
      fail("{} bytes are none that its {} can have", tag.bytes, what);
    }
    std::vector<T> values(static_cast<std::size_t>(tag.bytes / size));
    if (tag.bytes == 0) return values;
    if (tag.small) {
      std::memcpy(values.data(), &tag.value, static_cast<std::size_t>(tag.bytes));
      return values;
    }
    source_.read(values.data(), tag.bytes);
    std::int64_t padding = (8 - tag.bytes % 8) % 8;
    padding = std::min(padding, left_ - tag.bytes);
    std::uint64_t ignored = 0;
    source_.read(&ignored, padding);
    left_ -= tag.bytes + padding;
    return values;
  }

  template <typename T>
  void read_values(T* values, std::int64_t count) {
    const std::int64_t bytes = count * static_cast<std::int64_t>(sizeof(T));
    WRN_CHECK(bytes <= values_.bytes - values_read_, "{} values of {}", count, name);
    if (values_.small) {
      const auto* from = reinterpret_cast<const std::byte*>(&values_.value) + values_read_;
      std::memcpy(values, from, static_cast<std::size_t>(bytes));
    } else {
      source_.read(values, bytes);
    }
    values_read_ += bytes;
  }

  template <typename T>
  std::vector<double> as_doubles() {
    std::vector<T> values(static_cast<std::size_t>(size));
    read_values(values.data(), size);
    return {values.begin(), values.end()};
  }

  Source& source_;
  std::int64_t left_ = 0;  // bytes of the array
  bool is_number_ = false;
  Tag values_;
  std::int64_t values_read_ = 0;  // bytes
};

void check_header(std::FILE* file, std::int64_t file_bytes) {
  std::array<char, kHeaderBytes> header{};
  if (file_bytes < kHeaderBytes || std::fread(header.data(), header.size(), 1, file) != 1) {
    fail("has only {} bytes, less than the header of a MAT-file", file_bytes);
  }
  std::uint16_t version = 0;
  std::memcpy(&version, &header[124], sizeof version);
  if (header[126] == 'M' && header[127] == 'I') fail("is a big-endian MAT-file, which is not read");
  if (header[126] != 'I' || header[127] != 'M') fail("is no MAT-file of version 5");
  if (version != 0x0100) {
    fail("is a MAT-file of version {:#06x}, and only 0x0100 is read (save with -v7 or older)",
         version);
  }
}

}  // namespace

void read_mat(const std::filesystem::path& path, const std::function<void(MatArray&)>& visit) {
  const std::int64_t file_bytes = checked_size(path, kMostBytes);
  const File file = open_file(path);
  std::int64_t offset = 0;
  try {
    check_header(file.get(), file_bytes);
    for (offset = kHeaderBytes; offset < file_bytes;) {
      std::uint32_t tag[2];
      if (file_bytes - offset < kTagBytes || std::fseek(file.get(), offset, SEEK_SET) != 0 ||
          std::fread(tag, sizeof tag, 1, file.get()) != 1) {
        fail("the file ends where an element should begin");
      }
      const std::int64_t bytes = tag[1];
      if (tag[0] != kMatrix && tag[0] != kCompressed)
        fail("there is no array, but type {}", tag[0]);
      if (bytes > file_bytes - offset - kTagBytes) {
        fail("the element has {} bytes, the file only {} more", bytes,
             file_bytes - offset - kTagBytes);
      }
      const bool compressed = tag[0] == kCompressed;
      // An array's own tag is read again, as one that comes out of a stream is.
      if (!compressed) std::fseek(file.get(), offset, SEEK_SET);
      Source source(file.get(), compressed ? bytes : bytes + kTagBytes, compressed);
      Array array(source, compressed ? bytes * kMostExpansion : bytes);
      if (array.is_number()) {
        visit(array);
        array.finish();
      }
      offset += kTagBytes + bytes;
    }
  } catch (const Error& error) {
    fail("{}: at offset {}: {}", path.string(), offset, error.what());
  }
}

}  // namespace wrn
