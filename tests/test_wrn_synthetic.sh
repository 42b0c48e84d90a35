#!/usr/bin/env bash
# The program wrn_synthetic, given as the argument: its exit statuses, and errors of one line.
set -eu

. "$(dirname "$0")/expect.sh"
program=$1
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp"

expect 0 "set: 50 training and 10 test images, seed 7" set --train 50 --test 10 --seed 7
[ "$(stat -c %s set/test_batch.bin)" = 30730 ]
[ "$(head -n 1 set/batches.meta.txt)" = disc ]
expect 1 "set: is there already" set --train 50 --test 10
mkdir here
(cd here; "$program" . --train 50 --test 10 > ../out; [ -e test_batch.bin ])  # the same directory still
[ "$(ls -A here)" = "$(ls -A set)" ]
expect 2 "4 training images" few --train 4
expect 2 "0 test images" few --test 0
expect 2 "--train" few --train many
expect 2 "--seed" few --seed -1
expect 2 "OUT_DIR is required"
expect 2 "--colour" few --colour red
expect 0 "Training images" --help
expect 0 "wrn_synthetic " --version
[ ! -e few ]
echo "wrn_synthetic: all as expected"
