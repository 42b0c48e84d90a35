#!/usr/bin/env python3
"""Compares wrn_train with PyTorch: speed and memory of the same training on one machine.

  compare_pytorch.py --wrn-train build/wrn_train --data-path DIR [--device cuda]

PyTorch runs once for each of its programs, and the best counts: on the CPU in channels_last and in
its default layout; on a GPU in channels_last, eager or compiled, launched step by step or captured
in a CUDA graph. Every run is a process of its own; the programs take turns, so that a machine that
grows slower does so for all. All start from the same weights, train on the same batches in the
same precision, and must end at the same mean loss, else the comparison stops. PyTorch's rate
leaves out its first two steps and the making of batches; wrn_train's leaves out nothing of its
last epoch: the only one on the CPU, where the steps should be many, and the second on a GPU.

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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "benchmarks" / "torch_peer.py"
LR, SEED = 0.01, 1  # a low rate: rounding must not grow into another loss
OURS = "wrn_train"


class OnCpu:
    models = {"wrn-10-1": 40, "wrn-16-2": 16, "wrn-16-4": 8}  # steps: each run some seconds
    peers = {"channels_last": ["--memory-format", "channels_last"],
             "contiguous": ["--memory-format", "contiguous"]}
    epochs, memory = 1, "peak_rss_mb"


class OnGpu:
    models = {"wrn-28-10": 390, "wrn-40-4": 390, "wrn-16-4": 390}
    peers = {mode: ["--mode", mode] for mode in ("eager", "graph", "compile", "compile+graph")}
    epochs, memory = 2, "peak_device_mb"


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


def run_torch(peer, model, steps, args, scratch):
    output, _ = run([sys.executable, PEER, "--data-path", args.data_path, "--model", model,
                     "--steps", steps, "--batch-size", args.batch_size, "--lr", LR,
                     "--limit-train", steps * args.batch_size, "--limit-test", 128,
                     "--seed", SEED, "--threads", args.threads, "--device", args.device,
                     "--precision", args.precision, *args.on.peers[peer],
                     "--save-initial", scratch / "initial.safetensors"], args.threads)
    return json.loads(output)


def run_wrn_train(model, steps, args, scratch):
    _, peak = run([args.wrn_train, "--dataset", "cifar10", "--data-path", args.data_path,
                   "--model", model, "--batch-size", args.batch_size, "--epochs", args.on.epochs,
                   "--lr", LR, "--lr-drops", args.on.epochs,
                   "--limit-train", steps * args.batch_size, "--limit-test", 128, "--seed", SEED,
                   "--threads", args.threads, "--device", args.device,
                   *(["--precision", args.precision] if args.device == "cuda" else []),
                   "--import-weights", scratch / "initial.safetensors",
                   "-o", scratch / "run", "--overwrite", "--quiet"], args.threads)
    epochs = [json.loads(line) for line in (scratch / "run/metrics.jsonl").open()]
    record = epochs[0] | {"images_per_second": epochs[-1]["images_per_second"], "peak_rss_mb": peak}
    if args.device == "cuda":
        config = json.loads((scratch / "run/config.json").read_text())
        record["peak_device_mb"] = (config["parameter_bytes"] + config["activation_bytes"]) / 2**20
    return record


def check_same_training(model, records, args):
    """Same data, weights and arithmetic end in the same mean loss over all the steps."""
    tolerance = {"fp32": 1e-3, "tf32": 5e-3, "bf16": 2e-2}[args.precision]
    for round_ in zip(*records.values()):
        ours, *peers = round_
        for peer in peers:
            if not abs(ours["lr"] / peer["lr"] - 1) < 1e-6:
                sys.exit(f"compare_pytorch: {model}: learning rates {ours['lr']}, {peer['lr']}")
            if not abs(ours["train_loss"] / peer["train_loss"] - 1) < tolerance:
                sys.exit(f"compare_pytorch: {model}: mean training loss {ours['train_loss']} in "
                         f"wrn_train, {peer['train_loss']} in PyTorch: not the same training")


def compare(model, args):
    steps = args.steps or args.on.models.get(model, 6 if args.device == "cpu" else 390)
    records = {program: [] for program in (OURS, *args.on.peers)}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(args.rounds):  # PyTorch goes first: it makes the initial weights
            for peer in args.on.peers:
                records[peer].append(run_torch(peer, model, steps, args, Path(scratch)))
            records[OURS].append(run_wrn_train(model, steps, args, Path(scratch)))
    check_same_training(model, records, args)
    device = records[next(iter(args.on.peers))][0].get("device", f"CPU, {args.threads} threads")
    rates = {program: median(runs, "images_per_second") for program, runs in records.items()}
    ours = rates.pop(OURS)
    return {"model": model, "batch": args.batch_size, "precision": args.precision,
            "device": device, "images_per_second": ours, "pytorch": rates,
            "ratio": ours / max(rates.values()), "steps": steps, "records": records}


def median(records, field):
    return statistics.median(record[field] for record in records)


def print_table(result, args):
    records, memory = result["records"], args.on.memory
    print(f"\n{result['model']}, batch {result['batch']}, {result['precision']}, "
          f"{result['device']}, {result['steps']} steps, median (least - most) of {len(records[OURS])} rounds")
    print(f"{'':24}{'images/s':>24}{'peak MB':>10}{'mean loss':>12}")
    for program, runs in records.items():
        rates = [run["images_per_second"] for run in runs]
        rate = f"{statistics.median(rates):.1f} ({min(rates):.1f} - {max(rates):.1f})"
        name = program if program == OURS else f"PyTorch {program}"
        print(f"{name:24}{rate:>24}{median(runs, memory):>10.0f}"
              f"{median(runs, 'train_loss'):>12.6f}")
    best = records[max(result["pytorch"], key=result["pytorch"].get)]
    result["memory_ratio"] = median(records[OURS], memory) / median(best, memory)
    print(f"ours / best of PyTorch: {result['ratio']:.2f} times the images/s, "
          f"{result['memory_ratio']:.2f} times the memory")
    if args.device == "cpu":
        share = median(best, "conv_share")
        result |= {"conv_share": share, "bound": 1 / share}
        print(f"PyTorch holds {median(best, 'start_rss_mb'):.0f} MB before the first step, and "
              f"spends {100 * share:.0f}% of a step in convolutions:\nat equal convolutions the "
              f"bound is {result['bound']:.2f}")
    sys.stdout.flush()


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
    parser.add_argument("--wrn-train", type=Path, default=ROOT / "build/wrn_train")
    parser.add_argument("--data-path", type=Path, required=True,
                        help="directory of CIFAR-10's .bin files")
    parser.add_argument("--json", type=Path, help="write all records there")
    args = parser.parse_args()
    args.on = OnGpu if args.device == "cuda" else OnCpu
    args.precision = args.precision or ("bf16" if args.device == "cuda" else "fp32")
    if not args.wrn_train.is_file():
        parser.error(f"--wrn-train {args.wrn_train}: no such file; build it first")
    results = []
    for model in args.model or args.on.models:
        results.append(compare(model, args))
        print_table(results[-1], args)
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
