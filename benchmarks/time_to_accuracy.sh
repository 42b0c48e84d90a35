#!/usr/bin/env bash
# Trains to the paper's error and says how long it took: WRN-28-10 on CIFAR-10 by the paper's recipe,
# 200 epochs. Stopped at any moment, it goes on where it was when it is run again.
# usage: benchmarks/time_to_accuracy.sh OUT DATA_PATH [FLAGS OF wrn_train]   e.g. --model wrn-16-4
#
# OUT/run is the run; OUT/time_to_accuracy.json the last epoch's error, the seconds spent in training
# and those with the tests after each epoch. WRN_TRAIN names the program, build/wrn_train by default.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^$/s/^# \?//p' "$0" >&2; exit 2; }
out=$1 data=$2
shift 2
program=${WRN_TRAIN:-$(dirname "$0")/../build/wrn_train}
mkdir -p "$out"
if [ -e "$out/run/latest.safetensors" ]; then
  [ $# -eq 0 ] || { echo "time_to_accuracy.sh: $out/run goes on with its own flags, not $*" >&2; exit 2; }
  "$program" --resume -o "$out/run" --data-path "$data" --quiet
else
  for flag in "--model wrn-28-10" "--epochs 200" "--device cuda"; do
    # shellcheck disable=SC2086
    [[ " $*" =~ " ${flag% *}"[\ =] ]] || set -- $flag "$@"  # wrn_train takes each once
  done
  "$program" --dataset cifar10 --data-path "$data" "$@" -o "$out/run" --quiet
fi
python3 - "$out" <<'PYTHON'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
config = json.loads((out / "run/config.json").read_text())
epochs = [json.loads(line) for line in (out / "run/metrics.jsonl").open()]
seconds = sum(epoch["seconds"] for epoch in epochs)
result = {"model": config["model"]["name"], "epochs": len(epochs), "device": config["device_name"],
          "test_error": epochs[-1]["test_error"],
          "training_seconds": sum(epoch["training_seconds"] for epoch in epochs),
          "seconds": seconds}
(out / "time_to_accuracy.json").write_text(json.dumps(result, indent=1) + "\n")
print("{model}: test error {test_error:.2f}% after {epochs} epochs, {training_seconds:.0f} s of "
      "training, {seconds:.0f} s with the tests, on {device}".format(**result))
PYTHON
