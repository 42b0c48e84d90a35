#!/usr/bin/env python3
"""Writes the times of bench_ladder into the table of kernels/conv3x3/README.md.

    build/bench_ladder --json ladder.json && python3 benchmarks/ladder_table.py ladder.json

Without a file the table says that nothing was measured."""
import argparse
import json
import pathlib

README = pathlib.Path(__file__).resolve().parent.parent / "kernels" / "conv3x3" / "README.md"
BEGIN, END = "<!-- ladder: begin -->\n", "<!-- ladder: end -->\n"


def table(results):
    """A row for each convolution and direction, a column for each version."""
    versions, rows = [], {}
    for time in results["times"]:
        if time["version"] not in versions:
            versions.append(time["version"])
        row = rows.setdefault((time["convolution"], tuple(time["shape"]), time["direction"]), {})
        row[time["version"]] = ("wrong" if "wrong" in time else
                                f'{time["microseconds"]:,.0f} us, {time["tflops"]:.1f}')
    lines = [f'{results["device"]}, {results["library"]}; WRN with k = {results["widen"]}, '
             f'batch {results["batch"]}. Time of a launch in a graph of many, and TFLOP/s:', "",
             "| convolution | h x w, c -> k | | " + " | ".join(versions) + " |",
             "|---|---|---|" + "---|" * len(versions)]
    for (name, (_, h, w, c, k, r, stride), direction), row in rows.items():
        shape = f"{h}x{w}, {c} -> {k}, {r}x{r}" + (f" / {stride}" if stride > 1 else "")
        lines.append(f"| {name} | {shape} | {direction} | "
                     + " | ".join(row.get(version, "") for version in versions) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", nargs="?", type=pathlib.Path, help="of bench_ladder --json")
    parser.add_argument("--readme", type=pathlib.Path, default=README)
    parser.add_argument("--print", action="store_true", help="print the table and write nothing")
    options = parser.parse_args()
    middle = table(json.loads(options.json.read_text())) if options.json else "Not measured yet.\n"
    if options.print:
        print(middle)
        return
    text = options.readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    options.readme.write_text(before + BEGIN + middle + END + after)


if __name__ == "__main__":
    main()
