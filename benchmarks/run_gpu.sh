#!/usr/bin/env bash
# Every measurement that needs a GPU, in the order of their worth, within a time: the ratios to PyTorch,
# each from one run; the convolutions' fastest kernels (OUT/choices.inc); the time of every kernel and of
# every step; a training run. It needs what tests/gpu_bundle.sh gathered, a driver, and for the ratios a
# python3 with torch, numpy and safetensors.
# usage: BUNDLE/run_gpu.sh OUT SECONDS [DATA_PATH]
#
# DATA_PATH: CIFAR-10's binary files, for the training run; without them the speeds are measured on as
# many drawn images, and the training run is left out. BUNDLE: the folder of this script.
# OUT/gpu.json and OUT/gpu.md say how each stage ended; their results are the other files there.
set -uo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \?//p' "$0" | sed '$d' >&2; exit 2; }
end=$(($(date +%s) + $2))
data=$([ -n "${3:-}" ] && realpath "$3")
. "$(dirname "$0")/gpu_stages.sh" "$1" "$(dirname "$0")"
export WRN_TRAIN=$bundle/bin/wrn_train

images=${data:-$out/drawn}
if [ -z "$data" ]; then
  rm -rf "$images"
  stage images 120 "$bundle/bin/wrn_synthetic" --train 50000 --test 10000 "$images"
fi
compare=(python3 "$bundle/benchmarks/compare_pytorch.py" --device cuda --data-path "$images"
         --wrn-train "$WRN_TRAIN")
stage pytorch_28_10 400 "${compare[@]}" --json "$out/pytorch_28_10.json" --model wrn-28-10 --rounds 1
step() {  # NETWORK [FLAG]
  local name=step_$1${2:+_${2#--}}
  name=${name//-/_}
  stage "$name" 60 "$bundle/bin/bench_step" --model "wrn-$1" ${2:+"$2"} --json "$out/$name.json"
}
step 28-10
step 28-10 --no-overlap
stage tune 120 "$bundle/bin/tune" --commit "$(cat "$bundle/commit")" --out "$out/choices.inc"
stage ladder 200 "$bundle/bin/bench_ladder" --json "$out/ladder.json"
stage ladder_cudnn 120 python3 "$bundle/benchmarks/cudnn_ladder.py" "$out/ladder.json"
stage pytorch_16_4_40_4 400 "${compare[@]}" --json "$out/pytorch_16_4_40_4.json" \
  --model wrn-16-4 --model wrn-40-4 --rounds 3
step 16-4
step 16-4 --no-overlap
step 40-4
stage pytorch_28_10_rounds 600 "${compare[@]}" --json "$out/pytorch_28_10_rounds.json" \
  --model wrn-28-10 --rounds 3
stage kernels 200 "$bundle/bin/bench_kernels" --widen 10 --benchmark_out="$out/kernels.json"
for k in 1 2 4 8 12; do
  stage "ladder_$k" 120 "$bundle/bin/bench_ladder" --widen $k --only bf16 --json "$out/ladder_$k.json"
  stage "ladder_cudnn_$k" 120 python3 "$bundle/benchmarks/cudnn_ladder.py" "$out/ladder_$k.json"
done
[ -n "$data" ] && stage training 3600 "$bundle/benchmarks/time_to_accuracy.sh" "$out" "$data"
[ -z "$data" ] && rm -r "$images"
python3 "$bundle/gpu_report.py" summary "Benchmarks on a GPU" "$out" "$bundle/commit"
