# shellcheck shell=bash
# What tests/gpu.sh and benchmarks/run_gpu.sh have in common; for sourcing, with the arguments OUT and
# BUNDLE. Sets `out` and `bundle`, defines `stage`, ends the script where there is no GPU, and goes to OUT.
out=$(mkdir -p "$1" && realpath "$1") || exit 2
bundle=$(realpath "$2") || exit 2
command -v python3 >/dev/null || { echo "$(basename "$0"): python3 is needed for the report" >&2; exit 2; }
export LD_LIBRARY_PATH=$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export out bundle
stages=$out/stages.tsv
: >"$stages"
cd "$out" || exit 1

# stage NAME SECONDS COMMAND...: its output goes to OUT/NAME.log, how it ended to stages.tsv. Where `end` is
# set, a stage gets no more time than is left until then (a second of `date +%s`), and is skipped when
# that is little.
stage() {
  local name=$1 limit=$2 begin status left
  shift 2
  left=$((${end:-$(date +%s) + limit} - $(date +%s)))
  [ $left -lt "$limit" ] && limit=$left
  begin=$(date +%s.%N)
  if [ "$limit" -lt 10 ]; then
    status=77
    echo "no time was left" >"$out/$name.log"
  else
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
  fi
  printf '%s\t%d\t%d\t%.1f\n' "$name" "$status" "$limit" "$(echo "$(date +%s.%N) $begin" | awk '{print $1 - $2}')" >>"$stages"
  echo "$name: $([ $status = 0 ] && echo passed || { [ $status = 77 ] && echo skipped || echo "FAILED ($status)"; })"
}

# Without a GPU everything would only be skipped.
probe=$("$bundle/bin/wrn_train" --device cuda --data-path nowhere 2>&1)
case "$probe" in *nowhere*) ;; *) echo "$(basename "$0"): $probe" >&2; exit 2 ;; esac
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader \
  >"$out/gpu.txt" 2>&1
