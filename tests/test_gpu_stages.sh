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
# As it is where there is a GPU: asked for the clocks it does not end by itself.
printf '#!/bin/sh\ncase "$*" in *-lms*) exec sleep 1000;; *) echo GPU;; esac\n' >"$bundle/bin/nvidia-smi"
chmod +x "$bundle/bin/wrn_train" "$bundle/bin/nvidia-smi"
PATH=$bundle/bin:$PATH

cat >"$bundle/run.sh" <<'RUN'
. "$(dirname "$0")/gpu_stages.sh" "A title" "$1" "$2"
start early 60 touch "$scratch/one"
join
[ -e "$scratch/one" ] || exit 7  # it does not go with a stage that was started
stage good 60 echo fine || exit 9
grep -q "| good | passed |" gpu.md || exit 8   # from the first stage on
stage bad 60 bash -c 'echo why; exit 3' && exit 9
stage tool 60 bash -c 'echo "no tool"; exit 77'
# Both heed no signal that can be heeded; the second one is no child of what is waited for.
stage hangs 1 bash -c 'trap "" TERM; (trap "" TERM; echo $BASHPID >child; sleep 100) & sleep 100'
start one 60 sleep 0.1
start two 60 sleep 0.1
join
join  # of nothing
end=$(($(date +%s) + 2))
stage late 60 touch too_late
report
RUN
bash "$bundle/run.sh" "$scratch/out" 600 >"$scratch/printed"
status=$?

# Whether the process whose number is in a file has ended, if perhaps none has waited for it.
gone() {
  ! grep -qE "^State:\s+[^Z]" "/proc/$(cat "$1")/status" 2>/dev/null
}

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
expect 'python3 -c "import json; assert len(json.load(open(\"gpu.json\"))[\"stages\"]) == 8"'
expect 'grep -q "^bad: FAILED (3)$" ../printed && grep -q "^why$" ../printed'
expect 'grep -q "^tool: skipped: no tool$" ../printed'
expect '[ -s child ]'
expect 'gone child'
expect '[ ! -e too_late ]'
expect '[ ! -e scratch ]'

# Ended early, it leaves nothing behind.
cat >"$bundle/ended.sh" <<'RUN'
. "$(dirname "$0")/gpu_stages.sh" "A title" "$1" 600
start one 60 bash -c 'trap "" TERM; echo $BASHPID >one; sleep 60; sleep 60'
stage two 60 bash -c 'trap "" TERM; echo $BASHPID >two; sleep 60; sleep 60'
RUN
bash "$bundle/ended.sh" "$scratch/ended" >/dev/null &
script=$!
until [ -s "$scratch/ended/one" ] && [ -s "$scratch/ended/two" ]; do sleep 0.1; done
kill $script
wait $script
status=$?
expect '[ $status = 143 ]'
expect '[ ! -e "$scratch/ended/scratch" ]'
for name in one two; do
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    gone "$scratch/ended/$name" || sleep 0.2
  done
  expect 'gone "$scratch/ended/$name"'
done

printf '#!/bin/sh\necho "no CUDA GPU was found"\n' >"$bundle/bin/wrn_train"
bash "$bundle/run.sh" "$scratch/none" 600 2>"$scratch/printed"
status=$?
expect '[ $status = 2 ] && grep -q "no CUDA GPU was found" ../printed'
exit $failures
