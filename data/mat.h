// Just enough of MATLAB's MAT-files of version 5 to read SVHN's: numeric arrays, real and full,
// each one element of the file, zlib-compressed or not.
//
//   128 bytes     text, then the version (0x0100) and the order of bytes ("IM", little endian)
//   elements      a tag (type, bytes), then as many bytes; of type 15 they are a zlib stream, which
//                 holds an element of type 14, an array, itself made of elements:
//                   6   class and flags, 8 bytes
//                   5   the dimensions
//                   1   the name
//                   n   the values, in column-major order, in the smallest type that holds them
//                 each padded to 8 bytes; one of up to 4 bytes may have a tag of 4 bytes before
//                 them
//
// Format: "MAT-File Format", The MathWorks. Not libmatio, which reads all that there is: what this
// one does not know, it refuses. Sizes are checked against what holds them before memory is taken,
// and memory stays in proportion to the file (a zlib stream is at most 1,032 times shorter than
// what it holds).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace wrn {

/// One array, as it is met in the file.
class MatArray {
 public:
  virtual ~MatArray() = default;

  std::string name;
  std::vector<std::int64_t> dimensions;  // the first varies fastest
  std::int64_t size = 0;                 // their product
  bool is_u8 = false;                    // its class and the type of its values

  /// The next `count` values, which must be u8; then all of them, of whatever type, as doubles.
  virtual void read_u8(std::uint8_t* values, std::int64_t count) = 0;
  virtual std::vector<double> read_all() = 0;
};

/// Calls visit for each array of numbers in the file, which reads all of it or nothing. Throws an
/// Error for anything that is not as above; it, and any of `visit`, names the file and the place.
void read_mat(const std::filesystem::path& path, const std::function<void(MatArray&)>& visit);

}  // namespace wrn
