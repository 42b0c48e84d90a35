# shellcheck shell=bash
# What get_cifar.sh and get_svhn.sh have in common; for sourcing, with `me` set to the script's name.

fail() {
  echo "$me: $1" >&2
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

# Makes $4 the file of URL $2 with the MD5 $3, unless it is that; $1 is what users call it. $5 comes
# before the sum in the message that it is another.
fetch() {
  local name=$1 url=$2 sum=$3 part=$4 whose=${5:-} reason
  if md5_is "$sum" "$part"; then return; fi
  echo "$name: downloading $url"
  reason=$(download "$url" "$part") ||
    fail "$url: ${reason:-cannot be downloaded}; run again to continue, or remove $part first to start afresh"
  if ! md5_is "$sum" "$part"; then
    rm -f "$part"
    fail "$url: the MD5 is not $whose$sum; the download was removed, run again"
  fi
}

# The directory $1, with what is needed to check files in it.
make_directory() {
  command -v md5sum > /dev/null || fail "md5sum is not installed: apt install coreutils"
  mkdir -p "$1" 2> /dev/null || fail "$1: the directory cannot be made"
}
