// What the fuzz targets share: a directory of the process's own to write inputs into, where the
// readers find them as they find any file.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>

#include "kernels/error.h"

namespace wrn::fuzz {

inline const std::filesystem::path& directory() {
  static const struct Directory {
    Directory() {
      const bool in_memory = std::filesystem::is_directory("/dev/shm");
      std::string name = in_memory ? "/dev/shm/wrn-fuzz-XXXXXX" : "/tmp/wrn-fuzz-XXXXXX";
      if (::mkdtemp(name.data()) == nullptr) std::abort();
      path = name;
    }
    ~Directory() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
    std::filesystem::path path;
  } made;
  return made.path;
}

inline std::filesystem::path write(const char* name, const std::uint8_t* data, std::size_t size) {
  std::filesystem::path path = directory() / name;
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) std::abort();
  if (size > 0 && std::fwrite(data, 1, size, file) != size) std::abort();  // of nothing: null
  if (std::fclose(file) != 0) std::abort();
  return path;
}

/// Runs `read`, which may throw an Error of one line and nothing else.
template <typename Read>
void expect_error_or_nothing(Read read) {
  try {
    read();
  } catch (const Error& error) {
    if (std::string(error.what()).find('\n') != std::string::npos) std::abort();
  }
}

}  // namespace wrn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
