#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that wrn.cu is built from, where any are missing.
# usage: setup.sh [build|test]       build (default): to build and run; test: to test as well
set -euo pipefail

packages=(g++ cmake make libdnnl-dev libcli11-dev nlohmann-json3-dev libfmt-dev
          libopenblas0-openmp zlib1g-dev libpng-dev libjpeg-dev libexif-dev)
if [ "${1:-build}" = test ]; then
  packages+=(catch2 libbenchmark-dev libboost-context-dev libzstd-dev python3 clang-format)
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

install="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" -eq 0 ]; then
  as_root=()
elif sudo -n true 2>/dev/null; then
  as_root=(sudo)
else
  echo "setup.sh: packages are missing; install them with: sudo apt-get update && sudo $install" >&2
  exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q >/dev/null
# shellcheck disable=SC2086
"${as_root[@]}" $install -q >/dev/null
