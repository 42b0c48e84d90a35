#!/usr/bin/env python3
"""What ptxas makes of every kernel: registers, shared memory, spills; compared with a committed table.

  ptxas.py BUILD_DIRECTORY [--write]

Reads what cmake/ptxas_log.sh kept beside each object of a build, and compares it with
tests/ptxas.md: a kernel that spills, that is new, gone, or whose registers changed is an error. So
is a message of ptxas that it does not do as the code says: it ignores setmaxnreg (C7508), adds fences
and waits to wgmma, or lets products follow each other that should overlap (C7509-C7519).
--write writes the table anew instead (a spill stays an error). The table is of one version of nvcc,
named in it; with another one the kernels are only checked for spills.
"""
import argparse
import re
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent / "ptxas.md"
HEADER = """# Registers and static shared memory of every kernel

Written by `tests/ptxas.py BUILD --write` and compared by CI. No kernel spills. What a kernel gets by
`shared_storage<T>()` is dynamic and not counted here. nvcc {}.

| kernel | architecture | registers | shared bytes |
|---|---|---|---|
"""


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def nvcc_version(build):
    cache = (build / "CMakeCache.txt").read_text()
    nvcc = re.search(r"^CMAKE_CUDA_COMPILER:\w+=(.+)$", cache, re.M)[1]
    return re.search(r"V([\d.]+)", run(nvcc, "--version"))[1]


def kernels_of(logs):
    """{(mangled name, architecture): (registers, static shared bytes, stack and spilled bytes)}"""
    found = {}
    for path in logs:
        for line in path.read_text().splitlines():
            if match := re.search(r"Compiling entry function '(\S+)' for '(\w+)'", line):
                key, stack = match.groups(), 0
            elif "bytes stack frame" in line:
                stack = sum(map(int, re.findall(r"(\d+) bytes", line)))
            elif match := re.search(r"Used (\d+) registers", line):
                shared = re.search(r"(\d+) bytes smem", line)
                found[key] = int(match[1]), int(shared[1]) if shared else 0, stack
    return found


def own_kernels(kernels):
    """Those that are not of CUB or Thrust, by (name as in the source, architecture)."""
    names = sorted({name for name, _ in kernels})
    filtered = subprocess.run(["c++filt"], input="\n".join(names), check=True, text=True,
                              capture_output=True).stdout.splitlines()
    plain = {name: tidy(text) for name, text in zip(names, filtered)}
    return {(plain[name], arch): value for (name, arch), value in kernels.items()
            if not re.search(r"\b(cub|thrust|EmptyKernel)\b", plain[name])}


def tidy(name):
    """'void wrn::cuda::(anonymous namespace)::add_kernel<X>(float*)' -> 'add_kernel<X>'"""
    name = re.sub(r"\(anonymous namespace\)::|wrn::cuda::|wrn::", "", name)
    name = re.sub(r"^void ", "", name)
    depth = 0
    for i, c in enumerate(name):  # the arguments begin at the first ( outside of <>
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:i]
    return name


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    logs = sorted(path for path in args.build.rglob("*.cu.o.ptxas")
                  if path.with_suffix("").exists())  # the object is still there
    if not logs:
        sys.exit(f"ptxas.py: {args.build} holds no compiled CUDA kernels")
    kernels = own_kernels(kernels_of(logs))
    spilled = [f"{name} on {arch}: {stack} bytes" for (name, arch), (_, _, stack)
               in sorted(kernels.items()) if stack]
    if spilled:
        sys.exit("ptxas.py: kernels that spill or have a stack:\n" + "\n".join(spilled))
    altered = [f"{path.name}: {line}" for path in logs for line in path.read_text().splitlines()
               if re.search(r"\(C75(0[89]|1\d)\)", line)]
    if altered:
        sys.exit("ptxas.py: ptxas does not do as the code says:\n" + "\n".join(altered))
    rows = [f"| `{name}` | {arch} | {registers} | {shared} |\n"
            for (name, arch), (registers, shared, _) in sorted(kernels.items())]
    version = nvcc_version(args.build)
    text = HEADER.format(version) + "".join(rows)
    if args.write:
        TABLE.write_text(text)
    elif f"nvcc {version}." not in TABLE.read_text():
        print(f"{len(rows)} kernels, none spills; the table is of another nvcc than {version}")
        return
    elif TABLE.read_text() != text:
        old, new = set(TABLE.read_text().splitlines()), set(text.splitlines())
        sys.exit("ptxas.py: tests/ptxas.md differs (write it anew if that is meant):\n"
                 + "\n".join([f"- {row}" for row in sorted(old - new)]
                             + [f"+ {row}" for row in sorted(new - old)]))
    print(f"{len(rows)} kernels of {len(logs)} files, none spills")


if __name__ == "__main__":
    main()
