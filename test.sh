#!/usr/bin/env bash
# Builds and runs every test, in a release build and in one with AddressSanitizer and UBSan.
# usage: test.sh [ARGUMENTS OF ctest]           e.g. test.sh -R test_ops
set -euo pipefail
cd "$(dirname "$0")"

./setup.sh test
for preset in asan release; do
  cmake --preset $preset -DWRN_WERROR=ON >build.log 2>&1 || { cat build.log; exit 1; }
  cmake --build --preset $preset --parallel "$(nproc)" >>build.log 2>&1 ||
    { tail -n 60 build.log; exit 1; }
  rm -f build.log
done
# Threads that wait must not spin: the tests share the cores.
export OMP_WAIT_POLICY=passive
ctest --preset asan --parallel "$(nproc)" "$@"
ctest --preset release --parallel "$(nproc)" "$@"
