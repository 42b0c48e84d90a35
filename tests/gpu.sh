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
out=$(mkdir -p "${1:?usage: gpu.sh OUT [BUNDLE]}" && realpath "$1") || exit 2
bundle=$(realpath "${2:-$(dirname "$0")}") || exit 2
command -v python3 >/dev/null || { echo "gpu.sh: python3 is needed for the report" >&2; exit 2; }
export LD_LIBRARY_PATH=$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export WRN_GOLDEN_DIR=$bundle/golden
stages=$out/stages.tsv
: >"$stages"
cd "$out" || exit 1

# stage NAME SECONDS COMMAND...
stage() {
  local name=$1 limit=$2 begin status
  shift 2
  begin=$(date +%s.%N)
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  printf '%s\t%d\t%d\t%.1f\n' "$name" "$status" "$limit" "$(echo "$(date +%s.%N) $begin" | awk '{print $1 - $2}')" >>"$stages"
  echo "$name: $([ $status = 0 ] && echo passed || { [ $status = 77 ] && echo skipped || echo "FAILED ($status)"; })"
}

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

# train: the run of reference.flags, its losses within 1% of those recorded on the CPU.
train() {
  # shellcheck disable=SC2046
  "$bundle/bin/wrn_train" $(cat "$bundle/reference.flags") --data-path "$out/synthetic" \
    --device cuda -o "$out/run" --overwrite --quiet &&
    python3 "$bundle/gpu_report.py" compare "$out/run/metrics.jsonl" "$bundle/reference.jsonl"
}

ladder() {
  "$bundle/bin/bench_ladder" --json "$out/ladder.json" &&
    python3 "$bundle/ladder_table.py" "$out/ladder.json" --print >"$out/ladder.md"
}

# Without a GPU the tests would only be skipped.
probe=$("$bundle/bin/wrn_train" --device cuda --data-path nowhere 2>&1)
case "$probe" in *nowhere*) ;; *) echo "gpu.sh: $probe" >&2; exit 2 ;; esac

export -f sanitize train ladder
export bundle out
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader \
  >"$out/gpu.txt" 2>&1
for program in "$bundle"/bin/test_*; do
  stage "$(basename "$program")" 300 "$program"
done
for tool in memcheck racecheck initcheck; do
  stage "sanitizer_$tool" 300 bash -c "sanitize $tool"
done
stage training 300 bash -c train
stage ladder 300 bash -c ladder
python3 "$bundle/gpu_report.py" summary "$out" "$bundle/commit"
