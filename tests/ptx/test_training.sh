#!/usr/bin/env bash
# wrn_train as nvcc has compiled it, its kernels carried out by the machine, comes to the losses that
# it comes to on the CPU: in fp32, and in bf16 with the kernels for Hopper. What they did is counted.
# usage: test_training.sh WRN_TRAIN PTX_WRN_TRAIN GPU_REPORT_PY
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
train() {
  "$@" --dataset synthetic --data-path "$scratch/synthetic" --model wrn-10-1 --epochs 2 --lr 0.01 \
    --batch-size 32 --limit-train 64 --limit-test 32 --dropout 0.1 --seed 1 --quiet
}
train "$1" --device cpu -o "$scratch/cpu"
for precision in fp32 bf16; do
  WRN_PTX_COUNTS=$scratch/$precision.tsv train "$2" --device cuda --precision $precision -o "$scratch/$precision"
  python3 "$3" compare "$scratch/$precision/metrics.jsonl" "$scratch/cpu/metrics.jsonl"
done
python3 "$(dirname "$0")/counts.py" "$scratch/bf16.tsv" | tee "$scratch/counts.md"
grep -q 'v5::gather_kernel' "$scratch/counts.md"
