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
me=get_svhn.sh
. "$(dirname "$0")/download.sh"

url=${SVHN_URL:-http://ufldl.stanford.edu/housenumbers}

# The site gives no sums; these are those that torchvision's reader (datasets/svhn.py) checks.
sums='e26dedcc434d2e4c54c9b2d4a06d8373  train_32x32.mat
eb5a983be6a315427106f1b164d9cef3  test_32x32.mat
a93ce644f1a588dc4d68dda5feec44a7  extra_32x32.mat'

get() {
  local sum=$1 file=$2 part=$dir/$2.part
  if md5_is "$sum" "$dir/$file"; then
    echo "$file: there and correct in $dir"
    return
  fi
  fetch "$file" "$url/$file" "$sum" "$part"
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
make_directory "$dir"
while read -r sum file; do get "$sum" "$file"; done <<< "$sums"
