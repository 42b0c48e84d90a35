// A stand-in for CIFAR-10 that needs no download: ten classes of drawn shapes and textures, in
// CIFAR-10's own files, so that everything after the file is the same as for the real thing.
//
// Colours, place, size, rotation and noise are random, so that no pixel says much of the class by
// itself: a linear classifier stays under half right, where a small convolutional network learns
// the set within a minute or two.
#pragma once

#include <cstdint>
#include <filesystem>

namespace wrn {

/// Writes data_batch_1..5.bin, test_batch.bin and batches.meta.txt into `dir`, which must not exist
/// or be empty, or hold this very set, which is then left as it is; its parents are made. Classes
/// are balanced, in mixed order. The bytes depend on the arguments alone, not on the machine.
///
/// Throws an Error (usage) unless 5 <= train_images <= 50,000 and 1 <= test_images <= 10,000, and
/// an Error if `dir` is in the way or cannot be written. A new `dir` appears with all its files at
/// once, an empty one stays the directory it is. A crash leaves at most a directory
/// `dir`.partial-N, or in the empty one set.partial-N and some of the files, which may be removed.
void write_synthetic(const std::filesystem::path& dir, int train_images, int test_images,
                     std::uint64_t seed);

}  // namespace wrn
