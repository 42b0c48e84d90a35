#!/usr/bin/env bash
# Runs every fuzz target with libFuzzer, AddressSanitizer and UBSan, one after the other.
#
#   tests/fuzz/fuzz.sh [SECONDS] [TARGET...]      default: 60 seconds each; fuzz_cifar, fuzz_mat, ...
#
# Needs clang++ with its libraries (apt install clang), fmt, nlohmann-json, zlib, libpng, libjpeg and
# libexif. What is found is left in the working directory; the corpus in the source is not changed.
# fuzz_checkpoint is not among them: it needs the networks, and so the whole library.
# Exit status: 0 nothing found, 1 something found or not built, 77 no clang++ with libFuzzer.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/../.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(fuzz_cifar fuzz_image fuzz_mat fuzz_metrics fuzz_run fuzz_safetensors)
clang=${CLANGXX:-clang++}
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' > "$temp/try.cpp"
"$clang" -fsanitize=fuzzer "$temp/try.cpp" -o "$temp/try" 2> /dev/null ||
  { echo "fuzz.sh: skipped: no clang++ with libFuzzer (apt install clang)"; exit 77; }

# The readers alone: no OpenMP, no oneDNN.
sources=(data/cifar.cpp data/dataset.cpp data/files.cpp data/image_file.cpp data/mat.cpp data/svhn.cpp
         apps/history.cpp apps/predictions.cpp apps/run_record.cpp apps/table_runs.cpp
         engine/atomic_file.cpp engine/safetensors.cpp)
flags=(-std=c++20 -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -I"$PWD")
(cd "$temp" && "$clang" "${flags[@]}" -fsanitize=fuzzer-no-link -c "${sources[@]/#/$OLDPWD/}")
for target in "${targets[@]}"; do
  "$clang" "${flags[@]}" -fsanitize=fuzzer "tests/fuzz/$target.cpp" "$temp"/*.o -lfmt -lz -lpng -ljpeg -lexif -o "$temp/$target"
  mkdir "$temp/$target.new"
  echo "$target:"
  "$temp/$target" -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=2048 -timeout=10 -error_exitcode=1 -timeout_exitcode=1 \
    -artifact_prefix="$here/" -verbosity=0 -print_funcs=0 -print_final_stats=1 "$temp/$target.new" "tests/fuzz/corpus/$target" 2>&1 |
    sed '/ Recommended dictionary/,/ End of recommended/d' | tail -n 40
done
