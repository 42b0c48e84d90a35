#!/usr/bin/env bash
# Everything that only a GPU can show, in one command: correctness, compute-sanitizer, a training run
# against a reference, timings of the ladder. It runs on a machine that has a driver, cuBLAS and
# python3, and needs no compiler, no packages, no network and no git: tests/gpu_bundle.sh gathered
# all the rest.
# usage: tests/gpu.sh OUT [BUNDLE]      BUNDLE: default the folder of this script
#
# Each stage has a time limit of its own and its output in OUT/STAGE.log; OUT/gpu.json and OUT/gpu.md
# say how each ended. The exit status is 0 if none failed. A stage whose tool is missing is skipped.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: gpu.sh OUT [BUNDLE]" >&2; exit 2; }
. "$(dirname "$0")/gpu_stages.sh" "$1" "${2:-$(dirname "$0")}"
export WRN_GOLDEN_DIR=$bundle/golden

# sanitize TOOL: the kernels' tests, with few convolutions, under a tool of compute-sanitizer. For
# initcheck the tests leave fresh memory as it is, instead of filling it with NaNs.
sanitize() {
  [ "$1" = initcheck ] && export WRN_UNWRITTEN=1
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; return 77; }
  local program
  for program in "$bundle"/bin/test_cuda_*; do
    WRN_SMALL=1 compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 20 "$program" || return 1
  done
}

# train: the run of reference.flags in fp32, its losses within 1% of those recorded on the CPU.
train() {
  # shellcheck disable=SC2046
  "$bundle/bin/wrn_train" $(cat "$bundle/reference.flags") --data-path "$out/synthetic" \
    --device cuda --precision fp32 -o "$out/run" --overwrite --quiet &&
    python3 "$bundle/gpu_report.py" compare "$out/run/metrics.jsonl" "$bundle/reference.jsonl"
}

ladder() {
  "$bundle/bin/bench_ladder" --json "$out/ladder.json" &&
    python3 "$bundle/ladder_table.py" "$out/ladder.json" --print >"$out/ladder.md"
}

export -f sanitize train ladder
for program in "$bundle"/bin/test_*; do
  stage "$(basename "$program")" 300 "$program"
done
for tool in memcheck racecheck initcheck; do
  stage "sanitizer_$tool" 300 bash -c "sanitize $tool"
done
stage training 300 bash -c train
stage ladder 300 bash -c ladder
python3 "$bundle/gpu_report.py" summary "Tests on a GPU" "$out" "$bundle/commit"
