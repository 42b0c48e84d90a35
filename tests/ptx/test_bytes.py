#!/usr/bin/env python3
"""The bytes that the model of a step counts with are those that its kernels touch.

  test_bytes.py WRN_TRAIN PTX_WRN_TRAIN

What a training step moves by `wrn_train --plan`, and the sectors of memory that its kernels read and
write, each counted once in a launch: the difference between a run of two steps and one of one. The
parts of wgrad's sums, which the plan leaves out, as they stay in the L2, are taken off: what sum_parts
reads, and as much that others wrote.
"""
import csv
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FLAGS = ["--model", "wrn-16-2", "--batch-size", "8"]
BATCH = 8
SECTOR = 32
# Partial sums of statistics, padding, and sectors in part.
TOLERANCE = 0.02


def planned(wrn_train):
    text = subprocess.run([wrn_train, "--plan", *FLAGS], capture_output=True, text=True,
                          check=True).stdout
    steps = text.split("\nParts:")[0]
    mebibytes = re.findall(r"^\S.*?\s(\d+\.\d\d) +\d+\.\d\d\d +\d+\.\d$", steps, re.M)
    if len(mebibytes) < 50:
        sys.exit(f"{len(mebibytes)} steps were found in the plan")
    return sum(map(float, mebibytes)) * 2**20


def counted(program, steps, scratch):
    counts = scratch / "counts.tsv"
    subprocess.run([program, "--device", "cuda", *FLAGS, "--dataset", "synthetic", "--data-path",
                    scratch / "synthetic", "--epochs", "1", "--limit-train", str(steps * BATCH),
                    "--limit-test", "8", "-o", scratch / "run", "--overwrite", "--quiet"],
                   env={"WRN_PTX_COUNTS": str(counts)}, check=True, stdout=subprocess.DEVNULL)
    with open(counts, encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    sectors = sum(int(row["load_unique"]) + int(row["store_unique"]) for row in rows)
    parts = sum(int(row["load_unique"]) for row in rows if "sum_parts_kernel" in row["kernel"])
    return SECTOR * (sectors - 2 * parts)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        touched = counted(sys.argv[2], 2, scratch) - counted(sys.argv[2], 1, scratch)
    plan = planned(sys.argv[1])
    print(f"a step: {plan / 2**20:.2f} MiB by the plan, {touched / 2**20:.2f} MiB touched")
    if not abs(touched / plan - 1) <= TOLERANCE:
        sys.exit("they differ by more than 2%")


if __name__ == "__main__":
    main()
