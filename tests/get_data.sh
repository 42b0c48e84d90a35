# shellcheck shell=bash
# What the tests of data/get_*.sh have in common; for sourcing, with the script under test as $1. Sets
# `real` to it and `temp` to a folder that is gone in the end, and goes there.
set -eu
command -v curl > /dev/null || { echo "skipped: no curl, which alone reads file:// URLs"; exit 77; }

real=$1
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp"
cp "$(dirname "$real")/download.sh" .  # for the copy of the script

# Runs "$script ARGS", which must exit with status $1 and say $2, in one line on stderr if it fails.
expect() {
  local status=$1 said=$2 got=0
  shift 2
  "$script" "$@" > out 2> err || got=$?
  if [ "$got" != "$status" ] || ! cat out err | grep -qF -- "$said" ||
    { [ "$status" != 0 ] && [ "$(wc -l < err)" != 1 ]; }; then
    echo "${real##*/} $*: status $got, expected $status and '$said', but it said:"
    cat out err
    exit 1
  fi
}

same() { cmp "$1" "$2" || { echo "$1 and $2 differ"; exit 1; }; }
