#!/usr/bin/env python3
"""The reports of tests/gpu.sh and benchmarks/run_gpu.sh.

  gpu_report.py compare METRICS REFERENCE   fails where a loss of two runs differs by more than 1%
  gpu_report.py summary TITLE OUT COMMIT_FILE   writes OUT/gpu.json and OUT/gpu.md from the stages'
                                            results; fails if a stage did
"""
import datetime
import json
import os
import sys
from pathlib import Path

TOLERANCE = 0.01


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def compare(metrics, reference):
    ours, expected = read_lines(metrics), read_lines(reference)
    if len(ours) != len(expected):
        sys.exit(f"{len(ours)} epochs, {len(expected)} expected")
    worst = 0
    for line, other in zip(ours, expected):
        for key in ("train_loss", "test_loss"):
            difference = abs(line[key] / other[key] - 1)
            print(f"epoch {line['epoch']} {key}: {line[key]:.6f}, on the CPU {other[key]:.6f}")
            if not difference <= TOLERANCE:  # so that NaN fails too
                sys.exit(f"{key} differs by {100 * difference:.2f}%")
            worst = max(worst, difference)
    print(f"the losses differ by at most {100 * worst:.4f}%")


def outcome(status):
    return {0: "passed", 77: "skipped", 137: "ran out of time"}.get(status, f"failed ({status})")


def replace(path, text):
    """Stages that end at the same time write the same file."""
    own = path.with_suffix(f".{os.getpid()}")
    own.write_text(text)
    own.replace(path)


def summary(title, out, commit_file):
    out = Path(out)
    stages = []
    for line in (out / "stages.tsv").read_text().splitlines():
        name, status, limit, seconds = line.split("\t")
        stages.append({"stage": name, "outcome": outcome(int(status)), "seconds": float(seconds),
                       "limit": int(limit)})
    result = {"gpu": (out / "gpu.txt").read_text().strip(),
              "date": datetime.date.today().isoformat(),
              "commit": Path(commit_file).read_text().strip(), "stages": stages}
    replace(out / "gpu.json", json.dumps(result, indent=1) + "\n")
    rows = "".join(f"| {s['stage']} | {s['outcome']} | {s['seconds']} |\n" for s in stages)
    text = (f"# {title}\n\n{result['gpu']} (name, driver, memory, clock); {result['date']}; "
            f"commit {result['commit']}\n\n| stage | outcome | seconds |\n|---|---|---|\n{rows}")
    replace(out / "gpu.md", text)
    print(text)
    sys.exit(any(s["outcome"] not in ("passed", "skipped") for s in stages))


if __name__ == "__main__":
    commands = {"compare": compare, "summary": summary}
    if len(sys.argv) != {"compare": 4, "summary": 5}.get(sys.argv[1] if sys.argv[1:] else ""):
        sys.exit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
