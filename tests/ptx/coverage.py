#!/usr/bin/env python3
"""Fails where a kernel of ours has not been interpreted: coverage.py LOG

LOG is what the programs ptx_test_* wrote at their ends (runtime.cpp): the kernels that they have, each
instantiation of a template by itself, and those that they launched.
"""
import sys
from pathlib import Path


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    names = {"has": set(), "launched": set()}
    for line in Path(sys.argv[1]).read_text().splitlines():
        kind, name = line.split("\t")
        names[kind].add(name)
    ours = {name for name in names["has"] if "3wrn4cuda" in name}
    missing = sorted(ours - names["launched"])
    if missing or not ours:
        sys.exit(f"{len(missing)} of {len(ours)} kernels have not been interpreted:\n" +
                 "\n".join(missing))
    print(f"all {len(ours)} kernels have been interpreted")


if __name__ == "__main__":
    main()
