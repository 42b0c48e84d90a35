#!/usr/bin/env python3
"""Prints what a run's kernels did as a table: counts.py COUNTS

COUNTS is what an interpreted program writes where WRN_PTX_COUNTS says (counts.cpp). In the table:
  instructions  of PTX, a warp
  loads, stores MB moved between the L2 and the kernels, and how many times what it would be if the
                32 lanes of every access were next to each other
  unique        MB of memory, each byte once in a launch: what the device's memory must move
  shared        passes over the banks, and how many times as many as without conflicts
"""
import csv
import re
import sys

SECTOR = 32 / 1e6  # MB


def name_of(kernel):
    kernel = re.sub(r"\(anonymous namespace\)::|wrn::cuda::|wrn::|^void ", "", kernel)
    kernel = re.sub(r"\(\w+\)(?=\d)", "", kernel)  # an enumerator's type
    return kernel.split("(")[0].replace(" >", ">")


def ratio(part, least):
    return f"{part / least:.2f}" if least else ""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    print("| kernel | launches | instructions | loads | | unique | stores | | unique | shared | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: -int(row["instructions"])):
        n = {key: int(value) for key, value in row.items() if key != "kernel"}
        cells = [f"`{name_of(row['kernel'])}`", n["launches"], n["instructions"] // n["warps"]]
        for kind in ("load", "store"):
            sectors = n[f"{kind}_sectors"]
            cells += [f"{sectors * SECTOR:.2f}", ratio(sectors, n[f"{kind}_least"]),
                      f"{n[f'{kind}_unique'] * SECTOR:.2f}"]
        cells += [n["shared_passes"], ratio(n["shared_passes"], n["shared_least"])]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
