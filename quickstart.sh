#!/usr/bin/env bash
# From a fresh clone to a trained network: installs what is missing, builds wrn_train, and trains
# WRN-10-1 on a drawn data set, in a few minutes on two cores.
# usage: quickstart.sh                          then, with flags of your own, build/wrn_train
set -euo pipefail
cd "$(dirname "$0")"

if [ $# -gt 0 ]; then
  echo "quickstart.sh takes no flags: run it, then build/wrn_train with them" >&2
  exit 2
fi

./setup.sh build
# A build that is here already stays what it is. A new one leaves the CUDA kernels out, which take
# minutes to compile, where there is no GPU to run them.
if [ ! -f build/Makefile ] && [ ! -f build/build.ninja ]; then
  cuda=OFF
  if nvidia-smi -L >/dev/null 2>&1; then cuda=AUTO; fi
  cmake -S . -B build -DWRN_CUDA=$cuda -DWRN_TESTS=OFF -DWRN_BENCHMARKS=OFF >build.log 2>&1 ||
    { cat build.log; exit 1; }
fi
cmake --build build --target wrn_train --parallel "$(nproc)" >>build.log 2>&1 ||
  { tail -n 40 build.log; exit 1; }
rm -f build.log

exec build/wrn_train --dataset synthetic --data-path runs/synthetic --model wrn-10-1 --epochs 8 \
  --output-dir runs/quickstart --overwrite
