#!/usr/bin/env python3
"""Adds cuDNN to the times of bench_ladder, and what the GPU can do at most.

    build/bench_ladder --json ladder.json && python3 benchmarks/cudnn_ladder.py ladder.json

Times PyTorch's convolutions, which are cuDNN's, on the shapes of the file, on the same GPU: bf16,
channels_last, cuDNN's own choice of the algorithm (benchmark mode). A time is that of the replay
of a CUDA graph of many calls, divided by their number, so that launching costs nothing; the calls
take turns over copies of the tensors that together exceed the L2 cache twice. Its wgrad writes
bf16, ours fp32, which is what the optimiser wants. "ceilings" are measured alike: a copy of 1 GiB,
bytes read and written, and a bf16 product of 8192^3 by cuBLAS, on random data.
"""
import argparse
import json
import statistics
import sys
from pathlib import Path

import torch

VERSION = "cuDNN, bf16"
CHANNELS_LAST = torch.channels_last


def microseconds(call, seconds):
    """Of one call(i), i counting up."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())  # which may still be filling the tensors
    with torch.cuda.stream(stream):
        for i in range(3):
            call(i)
    stream.synchronize()

    def replay(calls, replays):
        graph, times = torch.cuda.CUDAGraph(), []
        with torch.cuda.graph(graph, stream=stream):
            for i in range(calls):
                call(i)
        graph.replay()
        for _ in range(replays):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(1000 * begin.elapsed_time(end) / calls)
        return statistics.median(times)

    rough = replay(4, 1)
    calls = max(4, min(200, int(1e5 * seconds / rough)))
    return replay(calls, 10)


def random(*shape):
    return torch.rand(shape, device="cuda", dtype=torch.float32).mul_(2).sub_(1).bfloat16()


def images(n, c, h, w):
    return random(n, c, h, w).contiguous(memory_format=CHANNELS_LAST)


def convolution(shape, direction):
    """-> call(i) of that direction, and the multiply-adds of one."""
    n, h, w, c, k, r, stride = shape
    p, q = (h - 1) // stride + 1, (w - 1) // stride + 1
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    copies = max(2, min(64, 2 * l2 // (2 * (n * h * w * c + n * p * q * k + k * r * r * c)) + 1))
    x = [images(n, c, h, w) for _ in range(copies)]
    dy = [images(n, k, p, q) for _ in range(copies)]
    weights = [images(k, c, r, r) for _ in range(copies)]
    where = {"stride": [stride] * 2, "padding": [r // 2] * 2, "dilation": [1, 1],
             "transposed": False, "output_padding": [0, 0], "groups": 1}

    outputs = [None] * copies  # kept, or all would be written to the same place in the L2

    def call(i):
        i %= copies
        if direction == "fprop":
            outputs[i] = torch.ops.aten.convolution(x[i], weights[i], None, **where)
        else:
            outputs[i] = torch.ops.aten.convolution_backward(
                dy[i], x[i], weights[i], None, **where,
                output_mask=[direction == "dgrad", direction == "wgrad", False])
    return call, n * p * q * k * r * r * c


def ceilings(seconds):
    size = 2**30
    source, target = (torch.randint(256, (size,), device="cuda", dtype=torch.uint8)
                      for _ in range(2))
    copy = microseconds(lambda i: target.copy_(source), seconds)
    a, b = random(8192, 8192), random(8192, 8192)
    product = microseconds(lambda i: torch.mm(a, b), seconds)
    return {"copy_gb_per_s": 2 * size / copy / 1000, "tflops": 2 * 8192**3 / product / 1e6}


def replace(path, results):
    """At once: the file is also all that there is of bench_ladder's times."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="of bench_ladder --json; it is extended")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each time")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("cudnn_ladder: PyTorch finds no GPU")
    results = json.loads(options.json.read_text())
    if not results["device"].startswith(torch.cuda.get_device_name() + " ("):
        sys.exit(f"cudnn_ladder: {options.json} is of the {results['device']}, this is the "
                 f"{torch.cuda.get_device_name()}")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 0  # tries all it has
    results["ceilings"] = ceilings(options.seconds)
    results["peer"] = f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    times = [time for time in results["times"] if time["version"] != VERSION]
    results["times"] = times
    for convolution_, shape, direction in dict.fromkeys(
            (time["convolution"], tuple(time["shape"]), time["direction"]) for time in times):
        call, macs = convolution(shape, direction)
        time = microseconds(call, options.seconds)
        print(f"{VERSION:22} {direction:5} {convolution_:16} {time:10.1f} us "
              f"{2 * macs / time / 1e6:7.2f} TFLOP/s")
        times.append({"version": VERSION, "direction": direction, "convolution": convolution_,
                      "shape": shape, "microseconds": time, "tflops": 2 * macs / time / 1e6})
        replace(options.json, results)


if __name__ == "__main__":
    main()
