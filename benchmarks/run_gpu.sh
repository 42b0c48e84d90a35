#!/usr/bin/env bash
# Every measurement that needs a GPU, in the order of their worth, within a time: the ratios to PyTorch,
# each from one run; the convolutions' fastest kernels (OUT/choices.json), which all that follows uses once they are known; what
# cuDNN takes; the time of every kernel and of every step; a training run. It needs what tests/gpu_bundle.sh gathered, a driver,
# and for the ratios a python3 with torch, numpy and safetensors.
# usage: BUNDLE/run_gpu.sh OUT SECONDS [DATA_PATH]
#
# DATA_PATH: CIFAR-10's binary files, for the training run; without them the speeds are measured on as
# many drawn images, and the training run is left out. BUNDLE: the folder of this script.
# OUT/gpu.json and OUT/gpu.md say, from the first stage on, how each ended; their results are the other
# files there. Where the first stage fails, the others do without what is new on Hopper, if that works.
set -uo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \?//p' "$0" | sed '$d' >&2; exit 2; }
data=
[ -z "${3:-}" ] || data=$(realpath -e "$3") || exit 2
. "$(dirname "$0")/gpu_stages.sh" "Benchmarks on a GPU" "$1" "$2"
export WRN_TRAIN=$bundle/bin/wrn_train
unset WRN_CHOICES

# Whether v5's tests pass, if it is used, and a step runs.
smoke() {
  [ "$WRN_WITHOUT" = hopper ] || "$bundle/bin/test_cuda_hopper" || return 1
  "$bundle/bin/bench_step" --model wrn-28-10 --runs 1 || return 1
}
export -f smoke
for WRN_WITHOUT in ${WRN_WITHOUT:-"" overlap hopper}; do
  export WRN_WITHOUT
  stage "smoke${WRN_WITHOUT:+_without_$WRN_WITHOUT}" 60 bash -c smoke && break
done

images=${data:-$scratch/drawn}
[ -n "$data" ] || stage images 120 "$bundle/bin/wrn_synthetic" --train 50000 --test 10000 "$images"
compare() {  # NAME SECONDS FLAGS...
  local name=$1 limit=$2
  shift 2
  stage "$name" "$limit" python3 "$bundle/benchmarks/compare_pytorch.py" --device cuda \
    --data-path "$images" --wrn-train "$WRN_TRAIN" --json "$out/$name.json" --seconds 180 "$@"
}
step() {  # NETWORK
  local name=step_${1//-/_}${WRN_WITHOUT:+_without_$WRN_WITHOUT}${WRN_CHOICES:+_tuned}
  stage "$name" 60 "$bundle/bin/bench_step" --model "wrn-$1" --json "$out/$name.json"
}
without_overlap() { [ -n "$WRN_WITHOUT" ] || WRN_WITHOUT=overlap "$@"; }
ladder() {  # K
  stage "ladder_$1" 120 "$bundle/bin/bench_ladder" --widen "$1" --only bf16 --seconds 0.1 --json "$out/ladder_$1.json"
  stage "ladder_cudnn_$1" 120 python3 "$bundle/benchmarks/cudnn_ladder.py" --seconds 0.1 "$out/ladder_$1.json"
}
compare pytorch_28_10 450 --model wrn-28-10 --rounds 1
step 28-10
without_overlap step 28-10
stage tune 120 "$bundle/bin/tune" --commit "$(cat "$bundle/commit")" --out "$out/choices.json" &&
  export WRN_CHOICES=$out/choices.json && step 28-10
compare pytorch_16_4_40_4 450 --model wrn-16-4 --model wrn-40-4 --rounds 1
ladder 10
stage kernels 100 "$bundle/bin/bench_kernels" --widen 10 --benchmark_out="$out/kernels.json"
step 16-4
without_overlap step 16-4
step 40-4
stage ladder 200 "$bundle/bin/bench_ladder" --json "$out/ladder.json"
stage ladder_cudnn 120 python3 "$bundle/benchmarks/cudnn_ladder.py" "$out/ladder.json"
compare pytorch_rounds 1200 --rounds 3
for k in 1 2 4 8 12; do ladder $k; done
compare pytorch_autotuned 600 --model wrn-28-10 --rounds 1 --peer autotune+graph --seconds 500
[ -n "$data" ] && stage training 3600 "$bundle/benchmarks/time_to_accuracy.sh" "$out" "$data"
report
