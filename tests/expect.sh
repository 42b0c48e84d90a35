# shellcheck shell=bash
# For sourcing by tests of programs and scripts, which set `program`, in a folder of their own.

# Runs "$program ARGS", which must exit with status $1 and say $2, in one line on stderr if it fails.
expect() {
  local status=$1 said=$2 got=0
  shift 2
  "$program" "$@" > out 2> err || got=$?
  if [ "$got" != "$status" ] || ! cat out err | grep -qF -- "$said" ||
    { [ "$status" != 0 ] && [ "$(wc -l < err)" != 1 ]; }; then
    echo "${program##*/} $*: status $got, expected $status and '$said', but it said:"
    cat out err
    exit 1
  fi
}
