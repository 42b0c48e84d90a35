#!/usr/bin/env python3
"""What became of the kernels in machine code (SASS), where the source does not show it.

  sass.py BUILD_DIRECTORY [--ends]

Disassembles the objects of a build with cuobjdump and nvdisasm, and fails where
  - a kernel for sm_90a touches global memory before it has waited for the kernels before it
    (wait_for_previous_kernels), by its own order or because ptxas moved a load up;
  - a product's descriptor is moved from each lane's registers to the warp's, as ptxas does not know
    that it is the same in all;
  - a bf16 is converted alone (F2F), which takes eight times as long as two together (F2FP);
  - a kernel that takes 8 bf16 at a time reads or writes global memory one by one.
Without the two tools it says so and passes: they are not part of every CUDA installation (apt:
cuda-cuobjdump, cuda-nvdisasm; PyPI: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm).
--ends: prints instead how many instructions each v5 kernel has from a tile's last product to the
next tile, which v5_tiles.h reckons with (end_cycles); not those that ptxas has put behind the
kernel's end, for when a barrier is not ready or a warp has diverged.
"""
import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ptxas import own_kernels

GLOBAL = re.compile(r"(@!?U?P\w+ )?(LDG|STG|REDG?|ATOMG?|LDGSTS|UTMALDG|UTMASTG|UTMAREDG|UBLKCP|UBLKRED|"
                    r"LD|ST)\b")


def kernels_of(listing):
    """{(mangled name, architecture): [instruction, ...]} of a listing by cuobjdump -sass"""
    found, architecture, code = {}, None, None
    for line in listing.splitlines():
        if match := re.search(r"code for (sm_\w+)", line):
            architecture = match[1]
        elif match := re.search(r"Function : (\S+)", line):
            code = found[match[1], architecture] = []
        elif (match := re.match(r"\s+/\*[0-9a-f]{4,5}\*/\s+(.*?)\s*;", line)) and code is not None:
            code.append(match[1])
    return found


def faults(name, architecture, code):
    """What is wrong with a kernel, a line each."""
    found = []
    if architecture == "sm_90a":
        wait = next((i for i, text in enumerate(code) if "ACQBULK" in text), None)
        if wait is None:
            found.append("does not wait for the kernels before it")
        else:
            found += [f"before it waits: {text}" for text in code[:wait] if GLOBAL.match(text)]
    products = [i for i, text in enumerate(code) if "HGMMA" in text]
    if products:
        found += [f"between products: {text}" for text in code[products[0]:products[-1]] if "R2UR" in text]
    found += [f"one by one: {text}" for text in code if "F2F.BF16" in text]
    if "bf16, 8" in name:
        found += [f"one by one: {text}" for text in code if re.search(r"(LDG|STG)\.E\.U16", text)]
    return [f"{name} on {architecture} {fault}" for fault in found]


def end_of_tile(code):
    """Instructions from the last product of a v5 kernel's tile to the end of the loop over tiles."""
    last = max(i for i, text in enumerate(code) if "WARPGROUP.DEPBAR.LE gsb0, 0x0" in text)
    return next(i for i, text in enumerate(code) if "USETMAXREG.DEALLOC" in text) - last


def disassembled(build):
    found = {}
    for path in sorted(build.rglob("*.cu.o")):
        done = subprocess.run(["cuobjdump", "-sass", str(path)], check=True, text=True,
                              capture_output=True)
        found |= kernels_of(done.stdout)
    return own_kernels(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--ends", action="store_true")
    args = parser.parse_args()
    missing = [tool for tool in ("cuobjdump", "nvdisasm") if not shutil.which(tool)]
    if missing:
        print(f"sass.py: no {' and no '.join(missing)} here: the machine code is not looked at")
        return
    kernels = disassembled(args.build)
    if not kernels:
        sys.exit(f"sass.py: {args.build} holds no compiled CUDA kernels")
    if args.ends:
        for (name, architecture), code in sorted(kernels.items()):
            if architecture == "sm_90a" and any("HGMMA" in text for text in code):
                print(f"{end_of_tile(code):6} {name}")
        return
    wrong = [fault for (name, architecture), code in sorted(kernels.items())
             for fault in faults(name, architecture, code)]
    if wrong:
        sys.exit("sass.py: machine code is not what it should be:\n" + "\n".join(wrong))
    print(f"{len(kernels)} kernels disassembled, none at fault")


if __name__ == "__main__":
    main()
