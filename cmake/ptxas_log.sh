#!/usr/bin/env bash
# Runs a compilation by nvcc and keeps what ptxas says beside the object, as OBJECT.ptxas, for
# tests/ptxas.py: registers, spills, and its numbered messages. CMake puts it in front of every CUDA
# compilation.
object=
previous=
for argument in "$@"; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
"$@" -Xptxas=-v >"$object.log" 2>&1
status=$?
grep -E '^ptxas info|bytes stack frame|\(C[0-9]+\)' "$object.log" >"$object.ptxas"
grep -vE '^ptxas info|bytes stack frame' "$object.log" >&2
rm -f "$object.log"
exit $status
