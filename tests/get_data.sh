# shellcheck shell=bash
# What the tests of data/get_*.sh have in common; for sourcing, with the script under test as $1. Sets
# `real` to it and `temp` to a folder that is gone in the end, and goes there.
set -eu
command -v curl > /dev/null || { echo "skipped: no curl, which alone reads file:// URLs"; exit 77; }

. "$(dirname "${BASH_SOURCE[0]}")/expect.sh"
real=$1
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp"
cp "$(dirname "$real")/download.sh" .  # for the copy of the script

same() { cmp "$1" "$2" || { echo "$1 and $2 differ"; exit 1; }; }
