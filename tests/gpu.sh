#!/usr/bin/env bash
# Everything about correctness that only a GPU can show, in one command: the kernels' tests, a training
# run against a reference, compute-sanitizer. It runs on a machine that has a driver, cuBLAS and
# python3, and needs no compiler, no packages, no network and no git: tests/gpu_bundle.sh gathered
# all the rest.
# usage: BUNDLE/gpu.sh OUT [SECONDS]      SECONDS: for all of it, 600 by default
#
# Each stage has a time limit of its own and its output in OUT/STAGE.log; OUT/gpu.json and OUT/gpu.md
# say, from the first stage on, how each ended. The exit status is 0 if none failed. A stage whose tool
# is missing is skipped.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: gpu.sh OUT [SECONDS]" >&2; exit 2; }
. "$(dirname "$0")/gpu_stages.sh" "Tests on a GPU" "$1" "${2:-600}"
export WRN_GOLDEN_DIR=$bundle/golden
export OMP_WAIT_POLICY=passive  # of so many programs none is to wait on a core that another could use

# The tests of a program. Catch2 ends with the number of failures, which may look like anything else.
tests() {
  "$bundle/bin/$1" --durations yes || return 1
}

# The same, each case in a process of its own: a fault on the GPU ends all that its process does there.
tests_by_case() {
  local names name status=0
  names=$("$bundle/bin/$1" --list-test-names-only)  # Catch2 2 ends with their number, 3 knows it not
  [ -n "$names" ] || names=$("$bundle/bin/$1" --list-tests --verbosity quiet)
  [ -n "$names" ] || { echo "no test cases"; return 1; }
  while IFS= read -r name; do
    timeout --foreground -s KILL 30 "$bundle/bin/$1" --durations yes "${name//,/\\,}" || { echo "FAILED: $name"; status=1; }
  done <<<"$names"
  return $status
}

# The run of reference.flags in fp32, its losses within 1% of those recorded on the CPU.
training() {
  # shellcheck disable=SC2046
  "$bundle/bin/wrn_train" $(cat "$bundle/reference.flags") --data-path "$scratch/synthetic" \
    --device cuda --precision fp32 -o "$scratch/run" --overwrite --quiet &&
    python3 "$bundle/gpu_report.py" compare "$scratch/run/metrics.jsonl" "$bundle/reference.jsonl"
}

# Twenty steps of a large network, whose kernels fill the GPU: the same bits again, and without their overlap.
same_bits() {
  local run
  for run in one two overlap; do
    WRN_WITHOUT=$([ $run = overlap ] && echo overlap) "$bundle/bin/wrn_train" --dataset synthetic \
      --data-path "$scratch/synthetic" --device cuda --model wrn-28-10 --dropout 0.3 --epochs 1 --limit-train 2560 \
      --limit-test 128 -o "$scratch/run_$run" --export-weights "$scratch/run_$run/weights" --overwrite --quiet || return 1
  done
  cmp "$scratch/run_one/weights" "$scratch/run_two/weights" && cmp "$scratch/run_one/weights" "$scratch/run_overlap/weights"
}

# sanitize TOOL PROGRAM: a program's tests, with few convolutions, under a tool of compute-sanitizer. For
# initcheck the tests leave fresh memory as it is, instead of filling it with NaNs.
sanitize() {
  [ "$1" = initcheck ] && export WRN_UNWRITTEN=1
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; return 77; }
  WRN_SMALL=1 compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 20 "$bundle/bin/$2" || return 1
}

export -f tests tests_by_case training same_bits sanitize
programs=(test_cuda_conv test_cuda_fused test_cuda_preact_conv test_cuda_training test_cuda_batch_norm
          test_cuda_kernels test_cuda_step test_golden test_tape test_ops)
# At the same time, as what takes long is the arithmetic on the CPU that they compare with.
start test_cuda_hopper 90 bash -c "tests_by_case test_cuda_hopper"
for program in "${programs[@]}"; do
  start "$program" 120 bash -c "tests $program"
done
start training 120 bash -c training
join
for program in "${programs[@]}"; do
  grep -qP "^$program\t0\t" stages.tsv || start "${program}_by_case" 120 bash -c "tests_by_case $program"
done
join
stage same_bits 60 bash -c same_bits
for tool in memcheck racecheck initcheck; do
  for program in hopper conv fused preact_conv batch_norm kernels step training; do
    start "${tool}_$program" 100 bash -c "sanitize $tool test_cuda_$program"
  done
  join
done
report
