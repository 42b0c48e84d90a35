# shellcheck shell=bash
# What tests/gpu.sh and benchmarks/run_gpu.sh have in common; for sourcing, with the arguments TITLE, OUT
# and SECONDS. Sets `out`, `bundle` and `scratch`, a folder in OUT for what is no result, which goes when
# the script ends. Defines `stage`, ends the script where there is no GPU, and goes to OUT. The bundle is
# the folder of this file.
title=$1
out=$(mkdir -p "$2" && realpath "$2") || exit 2
end=$(($(date +%s) + $3))
bundle=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
command -v python3 >/dev/null || { echo "$(basename "$0"): python3 is needed for the report" >&2; exit 2; }
PATH=$PATH:/usr/local/cuda/bin
scratch=$out/scratch
rm -rf "$scratch" && mkdir "$scratch" || exit 2
export out bundle scratch PYTHONUNBUFFERED=1
# cuBLAS may be there as a Python wheel alone.
[ -n "${WRN_CUBLAS:-}" ] || WRN_CUBLAS=$(python3 -c '
import glob, sysconfig
print(*glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib/libcublas.so.1[23]")[:1])')
export WRN_CUBLAS
cd "$out" || exit 1
: >stages.tsv

report() {
  python3 "$bundle/gpu_report.py" summary "$title" "$out" "$bundle/commit"
}

# stage NAME SECONDS COMMAND...: its output goes to OUT/NAME.log, how it ended to stages.tsv and the report.
# It gets no more time than is left until `end`, and is skipped when that is little. When its time is over,
# all that it has started is killed: what hangs on a GPU heeds nothing else. A command that could not be
# run here ends with 77. Returns 0 if the command did.
stage() {
  local name=$1 limit=$2 begin status left
  shift 2
  left=$((end - $(date +%s)))
  begin=$(date +%s.%N)
  if [ "$left" -lt "$limit" ] && [ "$left" -lt 10 ]; then
    status=77
    echo "no time was left" >"$name.log"
  else
    [ "$left" -lt "$limit" ] && limit=$left
    timeout -s KILL "$limit" stdbuf -oL "$@" >"$name.log" 2>&1 &  # leads a process group of its own
    running=$!
    { wait $running; status=$?; } 2>/dev/null  # the shell would say that it was killed
    running=''
  fi
  printf '%s\t%d\t%d\t%s\n' "$name" "$status" "$limit" \
    "$(echo "$(date +%s.%N) $begin" | awk '{printf "%.1f", $1 - $2}')" >>stages.tsv
  case $status in  # in one piece, beside what other stages say
    0) printf '%s\n' "$name: passed" ;;
    77) printf '%s\n' "$name: skipped: $(tail -n 1 "$name.log")" ;;
    *) printf '%s\n' "$name: FAILED ($status)
$(tail -n 5 "$name.log" | cut -c 1-300)" ;;
  esac
  report >/dev/null
  return $status
}

# start NAME SECONDS COMMAND...: a stage beside those that were started before; join: when all have ended.
start() {
  (monitor='' started=()
   end_with_its_stages
   stage "$@") &
  started+=($!)
}
join() {
  [ ${#started[@]} -eq 0 ] || wait "${started[@]}"
  started=()
}

# When the script ends, or is ended, so does what it has started.
monitor='' running='' started=()
end_with_its_stages() {
  trap 'kill $monitor "${started[@]}" 2>/dev/null; [ -n "$running" ] && kill -KILL -- "-$running"
        [ $BASHPID != $$ ] || rm -rf "$scratch"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}
end_with_its_stages

# Without a GPU everything would only be skipped.
probe=$(timeout -s KILL 60 "$bundle/bin/wrn_train" --device cuda --data-path nowhere -o probe 2>&1)
case "$probe" in *nowhere*) ;; *) echo "$(basename "$0"): ${probe:-no answer from the GPU}" >&2; exit 2 ;; esac
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader >gpu.txt 2>&1
nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu --format=csv -lms 500 >clocks.csv 2>&1 &
monitor=$!
