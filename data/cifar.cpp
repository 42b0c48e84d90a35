#include "data/cifar.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "data/files.h"
#include "kernels/error.h"

namespace wrn {

namespace {

namespace fs = std::filesystem;

/// What tells one data set's files from another's.
struct Format {
  std::string name, folder, names_file;
  std::vector<int> label_classes;  // of each label byte of a record; the last one is the label
  std::vector<std::string> default_names;

  std::int64_t record_bytes() const {
    return static_cast<std::int64_t>(label_classes.size()) + kImageBytes;
  }
};

const Format& cifar10() {
  static const Format format = {
      "cifar10",
      "cifar-10-batches-bin",
      "batches.meta.txt",
      {10},
      {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}};
  return format;
}

const Format& cifar100() {
  static const Format format = [] {
    Format result = {"cifar100", "cifar-100-binary", "fine_label_names.txt", {20, 100}, {}};
    for (int i = 0; i < 100; ++i) result.default_names.push_back(fmt::format("class {}", i));
    return result;
  }();
  return format;
}

/// Appends the records of one file, planes turned to red, green, blue of each pixel in turn.
void append_records(const fs::path& path, const Format& format, std::int64_t limit,
                    Dataset& dataset) {
  const std::int64_t record_bytes = format.record_bytes(), size = checked_size(path, limit);
  if (size % record_bytes != 0) {
    fail("{}: has {} records of {} bytes and {} bytes left over at offset {}: cut short, or not {}",
         path.string(), size / record_bytes, record_bytes, size % record_bytes,
         size - size % record_bytes, format.name);
  }
  const std::size_t label_bytes = format.label_classes.size();
  std::vector<std::uint8_t> record(static_cast<std::size_t>(record_bytes));
  std::size_t pixel = dataset.images.size();
  dataset.images.resize(pixel + static_cast<std::size_t>(size / record_bytes * kImageBytes));

  const File file = open_file(path);
  for (std::int64_t offset = 0; offset < size; offset += record_bytes) {
    if (std::fread(record.data(), record.size(), 1, file.get()) != 1) {
      fail("{}: cannot be read at offset {}: {}", path.string(), offset,
           std::feof(file.get()) != 0 ? "the file ends here" : std::strerror(errno));
    }
    for (std::size_t i = 0; i < label_bytes; ++i) {
      if (record[i] >= format.label_classes[i]) {
        fail("{}: record {} at offset {} has label {}, but {}'s are 0 to {}", path.string(),
             offset / record_bytes, offset + static_cast<std::int64_t>(i), record[i], format.name,
             format.label_classes[i] - 1);
      }
    }
    dataset.labels.push_back(record[label_bytes - 1]);
    for (const std::uint8_t* red = &record[label_bytes];
         pixel < dataset.labels.size() * kImageBytes; ++red) {
      for (int plane = 0; plane < 3; ++plane) dataset.images[pixel++] = red[plane * kPlane];
    }
  }
}

/// One class name a line; blank lines, which the official files end with, count for nothing.
std::vector<std::string> read_names(const fs::path& path, const Format& format) {
  if (missing(path)) return format.default_names;
  checked_size(path, 64 * 1024);
  std::ifstream file(path);
  if (!file) fail("{}: cannot be read: {}", path.string(), std::strerror(errno));
  std::vector<std::string> names;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    // They end up in reports and in the metadata of checkpoints.
    if (!std::all_of(line.begin(), line.end(), [](char c) { return c >= ' ' && c <= '~'; })) {
      fail("{}: line {} is not a class name in printable ASCII", path.string(), number);
    }
    names.push_back(line);
  }
  if (names.size() != format.default_names.size()) {
    fail("{}: has {} class names, but {} has {} classes", path.string(), names.size(), format.name,
         format.default_names.size());
  }
  return names;
}

/// `dir`, or the official sub-directory of it, whichever has the files: all of them.
fs::path find_files(const fs::path& dir, const Format& format,
                    const std::vector<std::string>& files) {
  std::error_code error;
  const fs::file_status status = fs::status(dir, error);
  const std::string advice =
      fmt::format("data/get_cifar.sh {} downloads the official files{}", format.name,
                  format.name == "cifar10" ? ", and wrn_synthetic draws others" : "");
  if (missing(dir)) fail("{}: no such directory; {}", dir.string(), advice);
  if (error) fail("{}: cannot be read: {}", dir.string(), error.message());
  if (!fs::is_directory(status)) fail("{}: is not a directory; {}", dir.string(), advice);

  fs::path folder =
      missing(dir / files[0]) && !missing(dir / format.folder) ? dir / format.folder : dir;
  for (const std::string& file : files) {
    if (missing(folder / file)) {
      fail("{}: has no {} (looked for {}, here or in {}); {}", folder.string(), file,
           fmt::join(files, ", "), format.folder, advice);
    }
  }
  return folder;
}

Dataset read(const fs::path& dir, const Format& format, const std::vector<std::string>& files,
             std::int64_t records_a_file) {
  const fs::path folder = find_files(dir, format, files);
  Dataset dataset{format.name, read_names(folder / format.names_file, format), {}, {}};
  for (const std::string& file : files) {
    append_records(folder / file, format, records_a_file * format.record_bytes(), dataset);
  }
  return dataset;
}

}  // namespace

Dataset read_cifar10(const fs::path& dir, Split split) {
  if (split == Split::test) return read(dir, cifar10(), {"test_batch.bin"}, 10000);
  return read(dir, cifar10(),
              {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
               "data_batch_5.bin"},
              10000);
}

Dataset read_cifar100(const fs::path& dir, Split split) {
  if (split == Split::test) return read(dir, cifar100(), {"test.bin"}, 10000);
  return read(dir, cifar100(), {"train.bin"}, 50000);
}

Dataset read_cifar_file(const fs::path& file, int classes) {
  WRN_CHECK(classes == 10 || classes == 100, "no CIFAR has {} classes", classes);
  const Format& format = classes == 10 ? cifar10() : cifar100();
  Dataset dataset{format.name, format.default_names, {}, {}};
  append_records(file, format, 50000 * format.record_bytes(), dataset);
  return dataset;
}

}  // namespace wrn
