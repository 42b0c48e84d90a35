#!/usr/bin/env python3
"""Compares wrn_train with PyTorch: speed and memory of the same training on one machine.

  compare_pytorch.py --wrn-train build/wrn_train --data-path DIR [--device cuda]

PyTorch runs once for each of its programs, and the best counts: on the CPU in channels_last and in
its default layout; on a GPU in channels_last, eager or compiled, launched step by step or captured
in a CUDA graph. Every run is a process of its own; the programs take turns, so that a machine that
grows slower does so for all. All start from the same weights, train on the same batches in the
same precision, and must have the same mean loss in their first epoch: else the ratio is said to be
of different trainings, and the exit status is 1, as it is where a program fails. What has been
measured is printed and written after every run; a ratio only when all programs have run, or failed.

On the CPU PyTorch's rate leaves out its first two steps and the making of batches, wrn_train's
nothing of its one epoch, so that the steps should be many. On a GPU both train for three epochs,
whose last two count, PyTorch's over batches that are already on the GPU, and without counting
errors.

On the CPU, "bound" is the ratio that an infinitely fast rest would reach if convolutions took as
long as PyTorch's: 1 / their share. Run it with a Python that has torch, numpy, safetensors.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "benchmarks" / "torch_peer.py"
LR, SEED = 0.01, 1  # a low rate: rounding must not grow into another loss
OURS = "wrn_train"


class OnCpu:
    models = {"wrn-10-1": 40, "wrn-16-2": 16, "wrn-16-4": 8}  # steps: each run some seconds
    peers = {"channels_last": ["--memory-format", "channels_last"],
             "contiguous": ["--memory-format", "contiguous"]}
    more = {}
    epochs, memory = 1, "peak_rss_mb"


class OnGpu:
    models = {"wrn-28-10": 390, "wrn-40-4": 390, "wrn-16-4": 390}
    peers = {mode: ["--mode", mode] for mode in ("compile+graph", "graph", "compile", "eager")}
    more = {"autotune+graph": ["--mode", "autotune+graph"]}  # minutes of searching
    epochs, memory = 3, "peak_device_mb"


class Failed(Exception):
    pass


def run(command, args):
    """-> (standard output, peak resident memory in MB); raises Failed."""
    command = [str(word) for word in command]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        hangs = threading.Timer(args.seconds, process.kill)
        hangs.start()
        _, status, usage = os.wait4(process.pid, 0)
        hangs.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            raise Failed(f"{' '.join(command)}\nended with status {process.returncode}: "
                         f"{err.read().decode()[-2000:]}")
        return out.read().decode(), usage.ru_maxrss / 1024


def run_torch(peer, model, steps, args, scratch):
    output, _ = run([sys.executable, PEER, "--data-path", args.data_path, "--model", model,
                     "--steps", steps, "--batch-size", args.batch_size, "--lr", LR,
                     "--limit-train", steps * args.batch_size, "--limit-test", 128,
                     "--seed", SEED, "--threads", args.threads, "--device", args.device,
                     "--precision", args.precision, *args.peers[peer],
                     "--save-initial", scratch / "initial.safetensors"], args)
    if not output.strip():
        raise Failed(f"{PEER} {peer} printed nothing")
    return json.loads(output.splitlines()[-1])


def run_wrn_train(model, steps, args, scratch):
    _, peak = run([args.wrn_train, "--dataset", "cifar10", "--data-path", args.data_path,
                   "--model", model, "--batch-size", args.batch_size, "--epochs", args.on.epochs,
                   "--lr", LR, "--lr-drops", args.on.epochs, "--save-every", args.on.epochs,
                   "--limit-train", steps * args.batch_size, "--limit-test", 128, "--seed", SEED,
                   "--threads", args.threads, "--device", args.device,
                   *(["--precision", args.precision] if args.device == "cuda" else []),
                   "--import-weights", scratch / "initial.safetensors",
                   "-o", scratch / "run", "--overwrite", "--quiet"], args)
    epochs = [json.loads(line) for line in (scratch / "run/metrics.jsonl").open()]
    timed = [epoch["images_per_second"] for epoch in epochs[1:] or epochs]
    record = epochs[0] | {"images_per_second": statistics.mean(timed), "peak_rss_mb": peak}
    if args.device == "cuda":
        config = json.loads((scratch / "run/config.json").read_text())
        record["peak_device_mb"] = (config["parameter_bytes"] + config["activation_bytes"]) / 2**20
    return record


def compare(model, args):
    """Yields what is known after every run: the last time, all."""
    steps = args.steps or args.on.models.get(model, 6 if args.device == "cpu" else 390)
    first, *others = args.peers
    records = {program: [] for program in (OURS, *args.peers)}
    errors = {}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(args.rounds):  # a peer goes first: it makes the initial weights
            for program in (first, OURS, *others):
                if program in errors:
                    continue
                try:
                    records[program].append(
                        run_wrn_train(model, steps, args, Path(scratch)) if program == OURS else
                        run_torch(program, model, steps, args, Path(scratch)))
                except Failed as failure:
                    errors[program] = str(failure)
                    print(f"compare_pytorch: {failure}", file=sys.stderr)
                yield summary(model, steps, records, errors, args)


def summary(model, steps, records, errors, args):
    """Of a network's runs so far; a ratio once every program has run or failed, and both sides
    have a rate."""
    records = {program: runs for program, runs in records.items() if runs}
    rates = {program: median(runs, "images_per_second") for program, runs in records.items()}
    ours = rates.pop(OURS, None)
    result = {"model": model, "batch": args.batch_size, "precision": args.precision,
              "device": next((runs[0]["device"] for runs in records.values() if "device" in runs[0]),
                             f"CPU, {args.threads} threads"),
              "images_per_second": ours, "pytorch": rates, "steps": steps, "records": records}
    environment = {name: os.environ[name] for name in ("WRN_WITHOUT", "WRN_CHOICES")
                   if os.environ.get(name)}
    if environment:
        result["environment"] = environment
    if errors:
        result["errors"] = errors
    missing = [program for program in (OURS, *args.peers) if program not in {**records, **errors}]
    if missing:
        result["missing"] = missing
    if missing or ours is None or not rates:
        return result
    best = records[max(rates, key=rates.get)]
    result |= {"ratio": ours / max(rates.values()),
               "memory_ratio": median(records[OURS], args.on.memory) / median(best, args.on.memory),
               "same_training": same_training(records, args.precision)}
    if args.device == "cpu":
        share = median(best, "conv_share")
        result |= {"conv_share": share, "bound": 1 / share,
                   "start_rss_mb": median(best, "start_rss_mb")}
    return result


def same_training(records, precision):
    """Whether the same data, weights and arithmetic came to the same mean loss over all the steps
    of an epoch."""
    tolerance = {"fp32": 1e-3, "tf32": 5e-3, "bf16": 2e-2}[precision]
    ours = records[OURS][0]
    return all(abs(ours["lr"] / run["lr"] - 1) < 1e-6 and
               abs(ours["train_loss"] / run["train_loss"] - 1) < tolerance
               for runs in records.values() for run in runs)


def median(records, field):
    return statistics.median(record[field] for record in records)


def print_table(result, args):
    records = result["records"]
    print(f"\n{result['model']}, batch {result['batch']}, {result['precision']}, {result['device']}, "
          f"{result['steps']} steps an epoch, median (least - most) of the rounds")
    print(f"{'':24}{'images/s':>24}{'peak MB':>10}{'mean loss':>12}")
    for program, runs in records.items():
        rates = [run["images_per_second"] for run in runs]
        rate = f"{statistics.median(rates):.1f} ({min(rates):.1f} - {max(rates):.1f})"
        name = program if program == OURS else f"PyTorch {program}"
        print(f"{name:24}{rate:>24}{median(runs, args.on.memory):>10.0f}"
              f"{median(runs, 'train_loss'):>12.6f}")
    for program in result.get("errors", {}):
        print(f"{program}: failed")
    if "missing" in result:
        print("still to run: " + ", ".join(result["missing"]))
    if "ratio" not in result:
        return
    print(f"ours / best of PyTorch: {result['ratio']:.2f} times the images/s, "
          f"{result['memory_ratio']:.2f} times the memory")
    if not result["same_training"]:
        print("NOT THE SAME TRAINING: the mean losses or the learning rates differ")
    if args.device == "cpu":
        print(f"PyTorch holds {result['start_rss_mb']:.0f} MB before the first step, and "
              f"spends {100 * result['conv_share']:.0f}% of a step in convolutions:\nat equal "
              f"convolutions the bound is {result['bound']:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="may be repeated; default: "
                        "three that suit the device")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"),
                        help="default: bf16 on a GPU, fp32 on the CPU")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="default: an epoch on a GPU; "
                        "40 for wrn-10-1 on the CPU, fewer for larger")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=threading.TIMEOUT_MAX,
                        help="a program that runs longer is killed and has failed; default: no limit")
    parser.add_argument("--peer", action="append", help="one of PyTorch's programs; may be repeated; "
                        f"default: {', '.join(OnCpu.peers)}; on a GPU {', '.join(OnGpu.peers)}, "
                        f"and there is {', '.join(OnGpu.more)}")
    parser.add_argument("--wrn-train", type=Path, default=ROOT / "build/wrn_train")
    parser.add_argument("--data-path", type=Path, required=True,
                        help="directory of CIFAR-10's .bin files")
    parser.add_argument("--json", type=Path, help="write all records there")
    args = parser.parse_args()
    args.on = OnGpu if args.device == "cuda" else OnCpu
    args.precision = args.precision or ("bf16" if args.device == "cuda" else "fp32")
    if args.rounds < 1:
        parser.error(f"--rounds {args.rounds}: must be 1 or more")
    if not args.wrn_train.is_file():
        parser.error(f"--wrn-train {args.wrn_train}: no such file; build it first")
    programs = args.on.peers | args.on.more
    if not set(args.peer or []) <= set(programs):
        parser.error(f"--peer: not one of {', '.join(programs)}")
    args.peers = {peer: programs[peer] for peer in args.peer or args.on.peers}
    done, ok = [], True
    for model in args.model or args.on.models:
        for result in compare(model, args):
            if args.json:
                args.json.write_text(json.dumps([*done, result], indent=1) + "\n")
            print_table(result, args)
        done.append(result)
        ok = ok and "errors" not in result and result["same_training"]
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
