#!/usr/bin/env python3
"""Compares wrn_train with PyTorch on this machine's CPU: speed and memory of the same training.

  compare_pytorch.py --wrn-train build/wrn_train --data-path DIR

PyTorch runs twice, in channels_last and in its default layout, and the better of the two counts.
Every run is a process of its own; the programs take turns, so that a machine that grows slower
does so for all. All start from the same weights, train on the same batches with the same thread
count, and must end at the same mean loss, else the comparison stops. "bound" is the ratio that
an infinitely fast rest would reach if convolutions took as long as PyTorch's: 1 / their share.
PyTorch's rate leaves out its first two steps and the making of batches; wrn_train's leaves out
nothing, so the steps should be many. Run it with a Python that has torch, numpy, safetensors.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "benchmarks" / "torch_peer.py"
PROGRAMS = ("wrn_train", "channels_last", "contiguous")
STEPS = {"wrn-10-1": 40, "wrn-16-2": 16, "wrn-16-4": 8}  # each run some seconds
LR, SEED = 0.01, 1  # a low rate: rounding must not grow into another loss


def run(command, threads):
    """-> (standard output, peak resident memory in MB); exits if the command fails."""
    command = [str(word) for word in command]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            sys.exit(f"compare_pytorch: {' '.join(command)}\nended with status "
                     f"{process.returncode}: {err.read().decode()[-2000:]}")
        return out.read().decode(), usage.ru_maxrss / 1024


def run_torch(memory_format, model, steps, args, scratch):
    output, _ = run([sys.executable, PEER, "--data-path", args.data_path, "--model", model,
                     "--steps", steps, "--batch-size", args.batch_size, "--lr", LR,
                     "--limit-train", steps * args.batch_size, "--limit-test", 128,
                     "--seed", SEED, "--threads", args.threads, "--memory-format", memory_format,
                     "--save-initial", scratch / "initial.safetensors"], args.threads)
    return json.loads(output)


def run_wrn_train(model, steps, args, scratch):
    _, peak = run([args.wrn_train, "--dataset", "cifar10", "--data-path", args.data_path,
                   "--model", model, "--batch-size", args.batch_size, "--epochs", 1, "--lr", LR,
                   "--lr-drops", 1,
                   "--limit-train", steps * args.batch_size, "--limit-test", 128, "--seed", SEED,
                   "--threads", args.threads, "--device", "cpu",
                   "--import-weights", scratch / "initial.safetensors",
                   "-o", scratch / "run", "--overwrite", "--quiet"], args.threads)
    return json.loads((scratch / "run/metrics.jsonl").read_text()) | {"peak_rss_mb": peak}


def check_same_training(model, records):
    """Same data, weights and arithmetic end in the same mean loss over all the steps."""
    for ours, *peers in zip(*(records[program] for program in PROGRAMS)):
        for peer in peers:
            if not abs(ours["lr"] / peer["lr"] - 1) < 1e-6:
                sys.exit(f"compare_pytorch: {model}: learning rates {ours['lr']}, {peer['lr']}")
            if not abs(ours["train_loss"] / peer["train_loss"] - 1) < 1e-3:
                sys.exit(f"compare_pytorch: {model}: mean training loss {ours['train_loss']} in "
                         f"wrn_train, {peer['train_loss']} in PyTorch: not the same training")


def compare(model, args):
    steps = args.steps or STEPS.get(model, 6)
    records = {program: [] for program in PROGRAMS}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(args.rounds):  # PyTorch goes first: it makes the initial weights
            for program in PROGRAMS[1:]:
                records[program].append(run_torch(program, model, steps, args, Path(scratch)))
            records["wrn_train"].append(run_wrn_train(model, steps, args, Path(scratch)))
    check_same_training(model, records)
    return {"model": model, "batch_size": args.batch_size, "threads": args.threads,
            "steps": steps, "records": records}


def median(records, field):
    return statistics.median(record[field] for record in records)


def print_table(result):
    records = result["records"]
    print(f"\n{result['model']}, batch {result['batch_size']}, {result['threads']} threads, "
          f"{result['steps']} steps, median (least - most) of {len(records['wrn_train'])} rounds")
    print(f"{'':24}{'images/s':>24}{'peak MB':>10}{'mean loss':>12}")
    for program, runs in records.items():
        rates = [run["images_per_second"] for run in runs]
        rate = f"{statistics.median(rates):.1f} ({min(rates):.1f} - {max(rates):.1f})"
        name = program if program == "wrn_train" else f"PyTorch {program}"
        print(f"{name:24}{rate:>24}{median(runs, 'peak_rss_mb'):>10.0f}"
              f"{median(runs, 'train_loss'):>12.6f}")
    ours = records["wrn_train"]
    best = max((records[program] for program in PROGRAMS[1:]),
               key=lambda runs: median(runs, "images_per_second"))
    share = median(best, "conv_share")
    result |= {
        "speed_ratio": median(ours, "images_per_second") / median(best, "images_per_second"),
        "memory_ratio": median(ours, "peak_rss_mb") / median(best, "peak_rss_mb"),
        "conv_share": share, "bound": 1 / share}
    print(f"ours / best of PyTorch: {result['speed_ratio']:.2f} times the images/s, "
          f"{result['memory_ratio']:.2f} times the memory (PyTorch holds "
          f"{median(best, 'start_rss_mb'):.0f} MB before the first step)\nPyTorch spends {100 * share:.0f}% of a step in "
          f"convolutions: at equal convolutions the bound is {result['bound']:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be repeated; default: "
                        + ", ".join(STEPS))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="default: 40 for wrn-10-1, fewer for larger")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wrn-train", type=Path, default=ROOT / "build/wrn_train")
    parser.add_argument("--data-path", type=Path, required=True,
                        help="directory of CIFAR-10's .bin files")
    parser.add_argument("--json", type=Path, help="write all records there")
    args = parser.parse_args()
    if not args.wrn_train.is_file():
        parser.error(f"--wrn-train {args.wrn_train}: no such file; build it first")
    results = []
    for model in args.model or STEPS:
        results.append(compare(model, args))
        print_table(results[-1])
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
