#!/usr/bin/env bash
# Downloads SVHN's cropped digits ("format 2") and checks their MD5s.
#
#   data/get_svhn.sh [all|small] [DIR]      default: all, into ./svhn
#
# `small` leaves out extra_32x32.mat, which has 1.3 GB and most of the training images. To be read
# with `wrn_train --recipe paper-svhn --data-path DIR`. What is there and correct is not downloaded
# again; a download that was interrupted is continued. Needs curl or wget, and md5sum.
#
#   SVHN_URL    where to find the files instead: a mirror, or file:///some/folder (curl only)
#
# Exit status: 0 all there and correct, 1 something failed, 2 wrong arguments.
set -euo pipefail

url=${SVHN_URL:-http://ufldl.stanford.edu/housenumbers}

# The site gives no sums; these are those that torchvision's reader (datasets/svhn.py) checks.
sums='e26dedcc434d2e4c54c9b2d4a06d8373  train_32x32.mat
eb5a983be6a315427106f1b164d9cef3  test_32x32.mat
a93ce644f1a588dc4d68dda5feec44a7  extra_32x32.mat'

fail() {
  echo "get_svhn.sh: $1" >&2
  exit "${2:-1}"
}

md5_is() { [ -f "$2" ] && [ "$(md5sum < "$2")" = "$1  -" ]; }

# Continues the file $2 from URL $1; says what went wrong, and fails.
download() {
  local progress=-s
  if command -v curl > /dev/null; then
    if [ -t 2 ]; then progress=--progress-bar; fi
    curl $progress -f -L --retry 3 -C - -o "$2" -w '%{errormsg}' "$1"
  elif command -v wget > /dev/null; then
    wget -q -c -O "$2" "$1" || { echo "wget failed with status $?"; return 1; }
  else
    echo "neither curl nor wget is installed: apt install curl"
    return 1
  fi
}

get() {
  local sum=$1 file=$2 part=$dir/$2.part reason
  if md5_is "$sum" "$dir/$file"; then
    echo "$file: there and correct in $dir"
    return
  fi
  if ! md5_is "$sum" "$part"; then
    echo "$file: downloading $url/$file"
    reason=$(download "$url/$file" "$part") ||
      fail "$url/$file: ${reason:-cannot be downloaded}; run again to continue, or remove $part first to start afresh"
    if ! md5_is "$sum" "$part"; then
      rm -f "$part"
      fail "$url/$file: the MD5 is not $sum; the download was removed, run again"
    fi
  fi
  mv -f "$part" "$dir/$file"
  echo "$file: downloaded and correct in $dir"
}

case ${1:-all} in
  -h | --help) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
  all) ;;
  small) sums=$(grep -v extra <<< "$sums") ;;
  *) fail "'$1' is not all or small; see --help" 2 ;;
esac
[ $# -le 2 ] || fail "too many arguments, from '$3'; see --help" 2
dir=${2:-svhn}
command -v md5sum > /dev/null || fail "md5sum is not installed: apt install coreutils"
mkdir -p "$dir" 2> /dev/null || fail "$dir: the directory cannot be made"
while read -r sum file; do get "$sum" "$file"; done <<< "$sums"
