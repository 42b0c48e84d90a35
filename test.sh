#!/usr/bin/env bash
# Builds and runs every test, in as many of these builds as this machine allows:
#   asan      with AddressSanitizer and UBSan; the CUDA kernels emulated, where CUDA's headers are
#   tsan      the emulated kernels' tests with ThreadSanitizer, which finds races between GPU threads
#   release   as users build it; with nvcc the CUDA kernels for GPUs, whose tests run where one is, and
#             their PTX interpreted on the CPU
# usage: test.sh [--full] [ARGUMENTS OF ctest]           e.g. test.sh -R test_ops
#   --full    the convolutions' tests on the whole product of their shapes: hours
set -euo pipefail
cd "$(dirname "$0")"

if [ "${1:-}" = --full ]; then
  export WRN_FULL=1
  shift
fi
./setup.sh test
emulated=OFF
for place in "${CUDA_HOME:-}" /usr/local/cuda /usr; do
  if [ -f "$place/include/cuda_runtime_api.h" ]; then emulated=EMULATED; fi
done
presets=(asan tsan release)
if [ $emulated = OFF ]; then
  echo "test.sh: no CUDA headers here: the tests of the CUDA kernels are left out"
  presets=(asan release)
fi

for preset in "${presets[@]}"; do
  options=(-DWRN_WERROR=ON -DWRN_TESTS=ON)
  if [ "$preset" = release ]; then
    # The same architectures everywhere, whatever GPU is here: tests/ptxas.md is of these, and
    # tests/ptx interprets the PTX of 90a.
    options+=(-DWRN_CUDA=AUTO "-DCMAKE_CUDA_ARCHITECTURES=80;90a")
  else
    options+=(-DWRN_CUDA=$emulated)
  fi
  cmake --preset "$preset" "${options[@]}" >build.log 2>&1 || { cat build.log; exit 1; }
  cmake --build --preset "$preset" --parallel "$(nproc)" >>build.log 2>&1 ||
    { tail -n 60 build.log; exit 1; }
  rm -f build.log
done
if [ -n "$(find build -name '*.cu.o.ptxas' -print -quit)" ]; then
  python3 tests/ptxas.py build
  python3 tests/sass.py build
fi
# Threads that wait must not spin: the tests share the cores.
export OMP_WAIT_POLICY=passive
for preset in "${presets[@]}"; do
  ctest --preset "$preset" --parallel "$(nproc)" "$@"
done
