#!/usr/bin/env python3
"""Draws the times of bench_ladder and cudnn_ladder.py as SVG.

    python3 benchmarks/plot.py ladder.json ladder.svg roofline.svg

ladder.svg: TFLOP/s of every version on every 3x3 convolution between two layers of one group, by direction.
roofline.svg: TFLOP/s over multiply-adds a byte, of the fastest bf16 version and cuDNN, under the
measured ceilings. Needs matplotlib.
"""
import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib import pyplot

DIRECTIONS = ("fprop", "dgrad", "wgrad")


def is_inner(time):
    return time["convolution"].endswith("inner")


def draw_ladder(results, path):
    times = list(filter(is_inner, results["times"]))
    convolutions = list(dict.fromkeys(time["convolution"] for time in times))
    versions = list(dict.fromkeys(time["version"] for time in times))
    figure, axes = pyplot.subplots(1, len(DIRECTIONS), figsize=(11, 3.6), sharey=True,
                                   layout="constrained")
    height = 0.8 / len(versions)
    for axis, direction in zip(axes, DIRECTIONS):
        for i, version in enumerate(versions):
            rate = {time["convolution"]: time["tflops"] for time in times
                    if time["version"] == version and time["direction"] == direction}
            axis.barh([place + i * height for place in range(len(convolutions))],
                      [rate.get(name, 0) for name in convolutions], height, label=version)
        axis.set(title=direction, xlabel="TFLOP/s", xscale="log")
        axis.set_yticks([place + 0.4 - height / 2 for place in range(len(convolutions))],
                        convolutions)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{results['device']}, batch {results['batch']}, k = {results['widen']}")
    figure.savefig(path, metadata={"Date": None})


def intensity(shape):
    """Operations for each byte of bf16 that must move at least once."""
    n, h, w, c, k, r, stride = shape
    pixels = n * ((h - 1) // stride + 1) * ((w - 1) // stride + 1)
    return 2 * pixels * k * r * r * c / (2 * (n * h * w * c + pixels * k + k * r * r * c))


def draw_roofline(results, path):
    ceilings = results.get("ceilings")
    if not ceilings:
        raise SystemExit("plot: no ceilings in the file: run cudnn_ladder.py first")
    versions = [v for v in dict.fromkeys(t["version"] for t in results["times"]) if "bf16" in v]
    peers = [v for v in versions if v.startswith("cuDNN")]
    shown = [v for v in versions if v not in peers][-1:] + peers
    figure, axis = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for version, marker in zip(shown, "ox"):
        points = [(intensity(t["shape"]), t["tflops"]) for t in results["times"]
                  if t["version"] == version]
        axis.scatter(*zip(*points), marker=marker, label=version)
    low, high = axis.get_xlim()
    bandwidth, peak = ceilings["copy_gb_per_s"] / 1000, ceilings["tflops"]
    xs = [min(low, 20), peak / bandwidth, max(high, 2 * peak / bandwidth)]
    axis.plot(xs, [min(peak, x * bandwidth) for x in xs], color="gray",
              label=f"{bandwidth:.2f} TB/s, {peak:.0f} TFLOP/s")
    axis.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="TFLOP/s",
             title=f"{results['device']}, batch {results['batch']}, k = {results['widen']}")
    axis.legend()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("json", "ladder", "roofline"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    matplotlib.rcParams["svg.hashsalt"] = "wrn"  # the same bytes every time
    results = json.loads(options.json.read_text())
    draw_ladder(results, options.ladder)
    draw_roofline(results, options.roofline)


if __name__ == "__main__":
    main()
