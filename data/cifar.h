// Readers of the official CIFAR binary files.
//
//   CIFAR-10    a record is 1 label byte, then 3,072 pixel bytes: the red, green and blue planes,
//               row by row. data_batch_1..5.bin and test_batch.bin of 10,000 records each,
//               batches.meta.txt, in cifar-10-batches-bin/.
//   CIFAR-100   the same with 2 label bytes, coarse (of 20) and fine (of 100). train.bin of 50,000
//               records, test.bin of 10,000, fine_label_names.txt, in cifar-100-binary/.
//
// `dir` holds these files, or the official sub-directory with them. A file may be shorter, if its
// records are whole. Without the file of names, CIFAR-10 has its well-known ones and CIFAR-100
// "class 0" to "class 99".
//
// Anything else is an Error with file, offset and reason: a missing directory or file; one that is
// no regular file, unreadable, empty, larger than the official one, or not a whole number of
// records; a label out of range; names that are not one printable line for each class.
#pragma once

#include <filesystem>

#include "data/dataset.h"

namespace wrn {

Dataset read_cifar10(const std::filesystem::path& dir, Split split);

/// With the fine labels.
Dataset read_cifar100(const std::filesystem::path& dir, Split split);

/// The records of one file, CIFAR-10's or CIFAR-100's by the number of classes, of at most 50,000.
/// The names of the classes are the well-known ones.
Dataset read_cifar_file(const std::filesystem::path& file, int classes);

}  // namespace wrn
