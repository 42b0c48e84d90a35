#!/usr/bin/env python3
"""Fails where a kernel has no case, or a case depends on the seed: kernel_cases.py LOG

LOG is what the programs test_cuda_* wrote (cuda_main.cpp): the kernels that they launched, and a
checksum of what they read from the emulated device, once for each seed. Every __global__ function in
kernels/ must have been launched (a template's instantiations count as one), and the checksums of a
case must be equal: the seed draws the order of threads and blocks, and what fresh memory holds.
"""
import collections
import re
import sys
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "kernels"
GLOBAL = re.compile(
    r"__global__\s+void\s+(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    launched, read = set(), collections.defaultdict(list)
    for line in Path(sys.argv[1]).read_text().splitlines():
        kind, name, *checksum = line.split("\t")
        launched.add(name) if kind == "launched" else read[name].append(checksum[0])
    sources = [path.read_text() for path in [*KERNELS.rglob("*.cu"), *KERNELS.rglob("*.cuh")]]
    kernels = [name for source in sources for name in GLOBAL.findall(source)]
    written = sum(len(re.findall(r"^(?:template.*)?__global__", source, re.M)) for source in sources)
    if len(kernels) != written:
        sys.exit("kernel_cases.py: there is a __global__ function whose name it cannot read")
    missing = sorted(set(kernels) - launched)
    if missing:
        sys.exit("kernels that no case launches: " + ", ".join(missing))
    unstable = sorted(name for name, checksums in read.items() if len(set(checksums)) > 1)
    if unstable:
        sys.exit("cases that depend on the order of threads or blocks, or on what fresh memory "
                 "holds:\n" + "\n".join(unstable))
    most = max(map(len, read.values()))
    print(f"all {len(set(kernels))} kernels have been launched; {len(read)} cases, up to {most} seeds")


if __name__ == "__main__":
    main()
