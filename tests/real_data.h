// For the test_real_*.cpp programs, which read real images. tests/CMakeLists.txt gives them the
// main() of real_main.cpp, by which ctest reports them as skipped where there are none.
#pragma once

#include <filesystem>

/// WRN_DATA_DIR if that is set, else ../shared/data beside the source: the directory that holds
/// cifar10-head/ and cifar100-head/, the first records of each official file.
std::filesystem::path real_data_dir();
