#!/usr/bin/env bash
# What the stages of tests/gpu.sh and benchmarks/run_gpu.sh promise, tried with commands that need no GPU.
# usage: test_gpu_stages.sh FOLDER_OF_gpu_stages.sh
set -uo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bundle=$scratch/bundle
mkdir -p "$bundle/bin"
cp "$1"/gpu_stages.sh "$1"/gpu_report.py "$bundle/"
echo abc123 >"$bundle/commit"
printf '#!/bin/sh\necho "nowhere: no such directory"\n' >"$bundle/bin/wrn_train"
chmod +x "$bundle/bin/wrn_train"

cat >"$bundle/run.sh" <<'RUN'
. "$(dirname "$0")/gpu_stages.sh" "A title" "$1" "$2"
stage good 60 echo fine || exit 9
grep -q "| good | passed |" gpu.md || exit 8   # from the first stage on
stage bad 60 bash -c 'echo why; exit 3' && exit 9
stage tool 60 bash -c 'echo "no tool"; exit 77'
# Both heed no signal that can be heeded; the second one is no child of what is waited for.
stage hangs 1 bash -c 'trap "" TERM; (trap "" TERM; echo $BASHPID >child; sleep 100) & sleep 100'
start one 60 sleep 0.1
start two 60 sleep 0.1
join
end=$(($(date +%s) + 2))
stage late 60 touch too_late
report
RUN
bash "$bundle/run.sh" "$scratch/out" 600 >"$scratch/printed"
status=$?

failures=0
expect() {
  eval "$1" || { echo "not so: $1"; failures=1; }
}
cd "$scratch/out" || exit 1
expect '[ $status = 1 ]'
for row in "good | passed" "bad | failed (3)" "tool | skipped" "hangs | ran out of time" "one | passed" \
           "two | passed" "late | skipped"; do
  expect "grep -qF '| $row |' gpu.md"
done
expect 'grep -q "commit abc123" gpu.md && grep -q "# A title" gpu.md'
expect 'python3 -c "import json; assert len(json.load(open(\"gpu.json\"))[\"stages\"]) == 7"'
expect 'grep -q "^bad: FAILED (3)$" ../printed && grep -q "^why$" ../printed'
expect 'grep -q "^tool: skipped: no tool$" ../printed'
expect '! grep -qE "^State:\s+[^Z]" "/proc/$(cat child)/status" 2>/dev/null'  # gone, or waited for by none
expect '[ ! -e too_late ]'

printf '#!/bin/sh\necho "no CUDA GPU was found"\n' >"$bundle/bin/wrn_train"
bash "$bundle/run.sh" "$scratch/none" 600 2>"$scratch/printed"
status=$?
expect '[ $status = 2 ] && grep -q "no CUDA GPU was found" ../printed'
exit $failures
