#!/usr/bin/env bash
# Downloads the official CIFAR files (binary version) and checks them against their published MD5s.
#
#   data/get_cifar.sh [cifar10|cifar100|all] [DIR]      default: all, into ./cifar
#
# They end up in DIR/cifar-10-batches-bin and DIR/cifar-100-binary, to be read with
# `wrn_train --data-path DIR`. What is there and correct is not downloaded again; a download that
# was interrupted is continued. Needs curl or wget, tar, gzip and md5sum.
#
#   CIFAR_URL    where to find the archives instead: a mirror, or file:///some/folder (curl only)
#
# Exit status: 0 all there and correct, 1 something failed, 2 wrong arguments.
set -euo pipefail
me=get_cifar.sh
. "$(dirname "$0")/download.sh"

url=${CIFAR_URL:-https://www.cs.toronto.edu/~kriz}

# The lines of md5sum: first the archive, then what must be in it.
sums_of() {
  case $1 in
    cifar10) cat << 'SUMS' ;;
c32a1d4ab5d03f1284b67883e8d87530  cifar-10-binary.tar.gz
5dd7e06a14cb22eb9f671a540d1b7c25  cifar-10-batches-bin/data_batch_1.bin
5ea93a67294ea407fff1d09f752e9692  cifar-10-batches-bin/data_batch_2.bin
942cd6a4bcdd0dd3c604fbe906cb4421  cifar-10-batches-bin/data_batch_3.bin
ae636b3ba5c66a11e91e8cb52e771fcb  cifar-10-batches-bin/data_batch_4.bin
53f37980c15c3d472c316c40844f3f0d  cifar-10-batches-bin/data_batch_5.bin
803d5f7f4d78ea53de84dbe85f74fb6d  cifar-10-batches-bin/test_batch.bin
SUMS
    cifar100) cat << 'SUMS' ;;
03b5dce01913d631647c71ecec9e9cb8  cifar-100-binary.tar.gz
6172c7755cfe09b2fe270c85cebc1b15  cifar-100-binary/train.bin
4499cfba6c016c1be1438163640a0898  cifar-100-binary/test.bin
SUMS
  esac
}

# The first of a set's .bin files that is not in folder $2, or not the official one; nothing if
# all are right.
first_wrong() {
  local sum file
  while read -r sum file; do
    md5_is "$sum" "$2/$file" || { echo "$file"; break; }
  done < <(sums_of "$1" | tail -n +2)
}

get() {
  local name=$1 sum archive part reason wrong folder
  if [ -z "$(first_wrong "$name" "$dir")" ]; then
    echo "$name: there and correct in $dir"
    return
  fi

  read -r sum archive < <(sums_of "$name")
  part=$dir/$archive.part
  fetch "$name" "$url/$archive" "$sum" "$part" "the official "

  # Unpacked beside its place and moved in when whole and checked.
  unpacked=$(mktemp -d "$dir/unpack.XXXXXX")
  reason=$(tar -xzf "$part" -C "$unpacked" --no-same-owner 2>&1) ||
    fail "$part: cannot be unpacked: ${reason%%$'\n'*}"
  wrong=$(first_wrong "$name" "$unpacked")
  [ -z "$wrong" ] || fail "$part: $wrong in it is missing, or its MD5 is not the official one"
  for folder in "$unpacked"/*; do
    mkdir -p "$dir/${folder##*/}"
    mv -f "$folder"/* "$dir/${folder##*/}/"
  done
  rm -rf "$unpacked" "$part"
  echo "$name: downloaded and correct in $dir"
}

case ${1:-all} in
  -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
  cifar10 | cifar100) names=$1 ;;
  all) names="cifar10 cifar100" ;;
  *) fail "'$1' is not cifar10, cifar100 or all; see --help" 2 ;;
esac
[ $# -le 2 ] || fail "too many arguments, from '$3'; see --help" 2
dir=${2:-cifar}
make_directory "$dir"
unpacked=
trap 'rm -rf ${unpacked:+"$unpacked"}' EXIT
for name in $names; do get "$name"; done
