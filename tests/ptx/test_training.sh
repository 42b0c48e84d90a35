#!/usr/bin/env bash
# wrn_train as nvcc has compiled it, its kernels interpreted, comes to the losses that
# it comes to on the CPU: in fp32, and in bf16 on a Hopper and on an older GPU. What they did is counted.
# usage: test_training.sh WRN_TRAIN PTX_WRN_TRAIN GPU_REPORT_PY
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
train() {
  "$@" --dataset synthetic --data-path "$scratch/synthetic" --model wrn-10-1 --epochs 1 --lr 0.01 \
    --batch-size 32 --limit-train 64 --limit-test 32 --dropout 0.1 --seed 1 --quiet
}
wrn_train=$1 ptx_wrn_train=$2 gpu_report=$3
train "$wrn_train" --device cpu -o "$scratch/cpu"
compare() {  # NAME PRECISION
  WRN_PTX_COUNTS=$scratch/$1.tsv train "$ptx_wrn_train" --device cuda --precision "$2" -o "$scratch/$1"
  python3 "$gpu_report" compare "$scratch/$1/metrics.jsonl" "$scratch/cpu/metrics.jsonl"
}
compare fp32 fp32
compare hopper bf16
WRN_SIMT_ARCH=80 compare ampere bf16
python3 "$(dirname "$0")/counts.py" "$scratch/hopper.tsv" | tee "$scratch/hopper.md"
python3 "$(dirname "$0")/counts.py" "$scratch/ampere.tsv" >"$scratch/ampere.md"
grep -q 'v5::gather_kernel' "$scratch/hopper.md"
grep -q 'v4::tensor_core_kernel' "$scratch/ampere.md"
if grep 'v5::' "$scratch/ampere.md"; then exit 1; fi
