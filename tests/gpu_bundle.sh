#!/usr/bin/env bash
# Gathers what tests/gpu.sh and benchmarks/run_gpu.sh need on a machine that has a GPU and little else: the
# programs of a CUDA build, the shared libraries that they were linked with, the golden files, and the
# losses of a short run on the CPU to compare the GPU's with. BUNDLE_DIRECTORY.tar.xz is all of it, small
# enough to be sent anywhere; `python3 -m tarfile -e` unpacks it where there is no xz.
# usage: tests/gpu_bundle.sh BUILD_DIRECTORY BUNDLE_DIRECTORY     needs patchelf and xz
set -euo pipefail
for tool in patchelf xz; do
  command -v $tool >/dev/null || { echo "gpu_bundle: $tool is needed (apt install patchelf xz-utils)" >&2; exit 1; }
done
build=$(realpath "$1")
source=$(realpath "$(dirname "$0")/..")
mkdir -p "$2"
bundle=$(realpath "$2")

programs=(wrn_train wrn_synthetic bench_ladder bench_step bench_kernels tune)
for program in "$build"/test_cuda_* "$build"/test_golden "$build"/test_tape "$build"/test_ops; do
  [ -x "$program" ] && programs+=("$(basename "$program")")
done
mkdir -p "$bundle/bin" "$bundle/lib" "$bundle/golden"
for program in "${programs[@]}"; do
  [ -x "$build/$program" ] || { echo "gpu_bundle: $build/$program is missing; build it" >&2; exit 1; }
  strip -o "$bundle/bin/$program" "$build/$program"
  # It finds its libraries by itself: LD_LIBRARY_PATH would have Python find them, too.
  patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$bundle/bin/$program"
  # All but what belongs to the C library, which every Linux has and which must be its own.
  ldd "$build/$program" | awk '$3 ~ /^\// && $1 !~ /^lib(c|m|dl|rt|pthread)\.so/ { print $3 }'
done | sort -u | xargs -I{} cp -L {} "$bundle/lib/"
cp "$source"/tests/golden/*.safetensors "$bundle/golden/"
cp "$source"/tests/{gpu.sh,gpu_stages.sh,gpu_report.py} "$source"/benchmarks/run_gpu.sh "$bundle/"
# Where torch_peer.py looks for the network, too.
mkdir -p "$bundle/benchmarks" "$bundle/tests/golden"
cp "$source"/benchmarks/{compare_pytorch.py,torch_peer.py,cudnn_ladder.py,time_to_accuracy.sh} "$bundle/benchmarks/"
cp "$source"/tests/golden/{philox,torch_wrn,whitening}.py "$bundle/tests/golden/"

# A low rate keeps rounding from growing into another result.
cat >"$bundle/reference.flags" <<'FLAGS'
--dataset synthetic --model wrn-10-1 --epochs 3 --lr 0.01 --limit-train 1280 --limit-test 512 --seed 1 --dropout 0.1
FLAGS
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# shellcheck disable=SC2046
"$build/wrn_train" $(cat "$bundle/reference.flags") --data-path "$scratch/synthetic" --device cpu \
  -o "$scratch/run" --quiet >/dev/null
cp "$scratch/run/metrics.jsonl" "$bundle/reference.jsonl"
git -C "$source" rev-parse HEAD >"$bundle/commit" 2>/dev/null || echo unknown >"$bundle/commit"
# The programs hold the same kernels: a window as large as several of them.
tar c -C "$(dirname "$bundle")" "$(basename "$bundle")" | xz -T1 --lzma2=preset=2,dict=256MiB >"$bundle.tar.xz"
du -sh "$bundle" "$bundle.tar.xz"
