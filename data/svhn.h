// Reader of the Street View House Numbers in "format 2": cropped digits in MAT-files.
//
//   train_32x32.mat, test_32x32.mat, extra_32x32.mat: 73,257, 26,032 and 531,131 images
//     X   u8 [32, 32, 3, N], column-major: row, column, channel, image
//     y   numbers [N, 1]: the digit, and 10 for the digit 0
//
// A file may have fewer images. Anything else is an Error with file, place and reason: a missing
// directory or file; one that is no MAT-file, is damaged or cut short; an X or y that is missing,
// twice there, or of another type or shape; another number of y than X has images; a label outside
// 1..10.
#pragma once

#include <filesystem>

#include "data/dataset.h"

namespace wrn {

/// Whether the training set is train_32x32.mat alone, or with extra_32x32.mat behind it.
enum class SvhnExtra { automatic, yes, no };  // automatic: where the file is there

Dataset read_svhn(const std::filesystem::path& dir, Split split, SvhnExtra extra);

}  // namespace wrn
