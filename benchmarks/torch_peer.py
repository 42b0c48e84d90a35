#!/usr/bin/env python3
"""wrn_train's peer: the same training in plain PyTorch.

It draws the same random numbers (Philox, see kernels/philox.h) and so trains on the same images,
flipped and cropped alike, in the same order, by the same recipe. Two uses:

  torch_peer.py --data-path DIR --model wrn-16-1 --epochs 5 --seed 1 -o metrics.jsonl
      trains; a line of metrics an epoch, with the fields of wrn_train's metrics.jsonl.
  torch_peer.py --data-path DIR --model wrn-16-1 --steps 40 --memory-format channels_last
      trains for that many steps and prints speed and memory as JSON; on the CPU the share of
      convolutions, too. The making of batches, what a mode prepares, and the first two steps are
      not timed; the profiled steps follow the timed ones. On a GPU the steps are done three times
      over: the first time for their mean loss, and timed the other two.

On a GPU there are five modes: eager, or by torch.compile, with or without its search for the
fastest kernels (autotune, only in a graph); and launched step by step or captured in a CUDA graph,
whose replay is a step. bf16 is autocast's, over fp32 weights.
"""
import argparse
import contextlib
import json
import resource
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "golden"))
from philox import AUGMENT, SHUFFLE, philox  # noqa: E402
from torch_wrn import WideResNet  # noqa: E402
from whitening import Whitening  # noqa: E402

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
WARM_UP = 2  # steps, on the CPU
TIMED_EPOCHS = 2  # on a GPU
MODES = ("eager", "graph", "compile", "compile+graph", "autotune+graph")


# ---- data ---------------------------------------------------------------------------------------

def read_cifar10(directory, limit_train=None, limit_test=None):
    """-> train images [n,32,32,3] and labels [n], test images and labels; all uint8."""
    def read(names, limit):
        data = b"".join((Path(directory) / name).read_bytes() for name in names)
        records = np.frombuffer(data, np.uint8).reshape(-1, 3073)[:limit]
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), records[:, 0].copy()
    return (*read([f"data_batch_{i}.bin" for i in range(1, 6)], limit_train),
            *read(["test_batch.bin"], limit_test))


def epoch_order(seed, epoch, count):
    word = philox(seed, np.arange(count), 0, epoch, SHUFFLE)
    return np.argsort(word[0] << np.uint64(32) | word[1], kind="stable")


def augment(images, indices, seed, epoch):
    """Flip with probability 1/2, then pad 4 pixels by reflection and crop 32x32: [n,32,32,3]."""
    word = philox(seed, indices, 0, epoch, AUGMENT)
    flip = (word[0] >> np.uint64(31)).astype(bool)

    def reflected(word):  # source coordinate of each pixel: [n, 32]
        offset = (word * np.uint64(9) >> np.uint64(32)).astype(np.int64)
        place = np.abs(np.arange(32) + offset[:, None] - 4)
        return np.where(place > 31, 62 - place, place)

    rows, columns = reflected(word[1]), reflected(word[2])
    columns[flip] = 31 - columns[flip]
    return images[np.asarray(indices)[:, None, None], rows[:, :, None], columns[:, None, :]]


class Data:
    """CIFAR-10 as normalised float32 NCHW batches."""

    def __init__(self, args):
        (self.images, self.labels,
         self.test_images, self.test_labels) = read_cifar10(args.data_path, args.limit_train,
                                                            args.limit_test)
        self.args = args
        if args.preprocess == "zca":
            whiten = Whitening(self.images)
            self.images, self.test_images = whiten(self.images), whiten(self.test_images)
            self.mean, self.std = 0.0, 1.0
        else:
            # How often each channel has each of the 256 values: NumPy's own std takes seconds, and
            # gigabytes, for all images.
            shares = np.stack([np.bincount(self.images[..., channel].ravel(), minlength=256)
                               for channel in range(3)]) * 3 / self.images.size
            values = np.arange(256)
            self.mean = shares @ values
            self.std = np.sqrt(shares @ values**2 - self.mean**2)

    def to_tensors(self, images, labels):
        x = ((images - self.mean) / self.std).astype(np.float32)
        x = torch.from_numpy(x).permute(0, 3, 1, 2)
        return (x.contiguous(memory_format=FORMATS[self.args.memory_format]).to(self.args.device),
                torch.from_numpy(labels.astype(np.int64)).to(self.args.device))

    def training_batches(self, epoch):
        size, seed = self.args.batch_size, self.args.seed
        order = epoch_order(seed, epoch, len(self.labels))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start:start + size]
            yield self.to_tensors(augment(self.images, chosen, seed, epoch), self.labels[chosen])

    def test_batches(self, size=500):
        for start in range(0, len(self.test_labels), size):
            yield self.to_tensors(self.test_images[start:start + size],
                                  self.test_labels[start:start + size])


# ---- training ---------------------------------------------------------------------------------

def make_optimizer(model, args):
    return torch.optim.SGD(model.parameters(), args.lr, momentum=0.9, nesterov=True,
                           weight_decay=5e-4, fused=args.device == "cuda")


def autocast(args):
    """The context of a forward pass in the precision asked for."""
    if args.precision != "bf16":
        return contextlib.nullcontext()
    # A captured graph must cast the weights at every replay: no cache.
    return torch.autocast(args.device, torch.bfloat16, cache_enabled="graph" not in args.mode)


def train_step(model, optimizer, x, labels, args):
    """-> the loss and the logits, still on the device."""
    with autocast(args):
        logits = model(x)
    loss = F.cross_entropy(logits.float(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), logits.detach()


class Mean:
    """Running sums of loss and errors over batches."""

    def __init__(self):
        self.count = self.loss = self.errors = 0

    def add(self, loss, logits, labels):
        self.count += len(labels)
        self.loss += loss.item() * len(labels)
        self.errors += (logits.argmax(1) != labels).sum().item()

    def summary(self, split):
        return {f"{split}_loss": self.loss / self.count,
                f"{split}_error": 100 * self.errors / self.count}


@torch.no_grad()
def evaluate(model, batches, args):
    model.eval()
    total = Mean()
    for x, labels in batches:
        with autocast(args):
            logits = model(x).float()
        total.add(F.cross_entropy(logits, labels), logits, labels)
    model.train()
    return total.summary("test")


def train(model, data, args):
    drops = [args.epochs * tenths // 10 for tenths in (3, 6, 8)]
    optimizer = make_optimizer(model, args)
    for epoch in range(args.epochs):
        if epoch in drops:
            optimizer.state.clear()  # the momentum, as the paper's code does
            for group in optimizer.param_groups:
                group["lr"] = args.lr * 0.2 ** sum(drop <= epoch for drop in drops)
        start, total = time.perf_counter(), Mean()
        for x, labels in data.training_batches(epoch):
            total.add(*train_step(model, optimizer, x, labels, args), labels)
        seconds = time.perf_counter() - start
        line = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], **total.summary("train"),
                **evaluate(model, data.test_batches(), args), "seconds": time.perf_counter() - start,
                "images_per_second": total.count / seconds}
        print(json.dumps(line), file=args.output, flush=True)


# ---- speed ------------------------------------------------------------------------------------

def peak_rss_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed_steps(step, batches):
    """-> seconds of every step, without the making of its batch, and the mean of all steps."""
    seconds, total = [], Mean()
    for x, labels in batches:
        start = time.perf_counter()
        total.add(*step(x, labels), labels)
        seconds.append(time.perf_counter() - start)
    return seconds, total


def convolution_share(step, batches):
    """Share of the time of training steps that is spent in convolutions, both directions."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        seconds, _ = timed_steps(step, batches)
    return sum(event.cpu_time_total for event in profile.key_averages()
               if event.key in ("aten::conv2d", "aten::convolution_backward")
               ) / (sum(seconds) * 1e6)


def measure_on_cpu(model, data, args):
    start_rss_mb = peak_rss_mb()
    optimizer = make_optimizer(model, args)
    def step(x, labels): return train_step(model, optimizer, x, labels, args)
    seconds, total = timed_steps(step, islice(data.training_batches(0), args.steps))
    timed = seconds[WARM_UP:]
    record = {"images_per_second": len(timed) * args.batch_size / sum(timed),
              "peak_rss_mb": peak_rss_mb(), "start_rss_mb": start_rss_mb, "lr": args.lr,
              **total.summary("train")}
    record["conv_share"] = convolution_share(step, islice(data.training_batches(0), 5))
    return record


def undone(prepare, model, optimizer):
    """Does what trains some steps, and takes them back."""
    values = model.state_dict().values()
    before = [value.clone() for value in values]
    prepare()
    for value, old in zip(values, before):
        value.copy_(old)  # into the tensors that a graph knows
    for state in optimizer.state.values():
        state["momentum_buffer"].zero_()


def captured(step, batch, stream):
    """-> a function that does `step` by replaying a CUDA graph of it, and the most bytes that were
    in use while it was captured: a replay uses the same. It has to be preceded by steps."""
    static = [x.clone() for x in batch]
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step(*static)
    peak = torch.cuda.max_memory_allocated()

    def replay(*inputs):
        for mine, given in zip(static, inputs):
            mine.copy_(given)
        graph.replay()
    return replay, peak


def measure_on_gpu(model, data, args):
    """Steps are launched without waiting; the device's clock is read once before and once after."""
    batches = list(islice(data.training_batches(0), args.steps))
    optimizer = make_optimizer(model, args)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked = None  # spares a kernel each
    network = model
    if "compile" in args.mode or "autotune" in args.mode:
        network = torch.compile(model, mode="max-autotune-no-cudagraphs"
                                if "autotune" in args.mode else None)
    loss_sum = torch.zeros((), device=args.device)

    def step(x, labels):
        loss_sum.add_(train_step(network, optimizer, x, labels, args)[0])

    def epoch():
        for batch in batches:
            step(*batch)

    stream, peak = torch.cuda.Stream(), None
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # all in one: a graph must not meet what is left in another
        # Compiles, and lets cuDNN search, whose memory does not count.
        undone(lambda: [step(*batches[0]) for _ in range(3)], model, optimizer)
        if "graph" in args.mode:
            step, peak = captured(step, batches[0], stream)
        else:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        loss_sum.zero_()
        epoch()
        mean_loss = loss_sum.item() / args.steps
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(TIMED_EPOCHS):
            epoch()
        end.record()
    torch.cuda.synchronize()
    seconds = begin.elapsed_time(end) / 1000
    # All that it holds but the batches, which would come one by one.
    held = sum(x.numel() * x.element_size() for batch in batches[1:] for x in batch)
    return {"images_per_second": TIMED_EPOCHS * args.steps * args.batch_size / seconds,
            "peak_device_mb": ((peak or torch.cuda.max_memory_allocated()) - held) / 2**20,
            "lr": args.lr, "device": torch.cuda.get_device_name(), "train_loss": mean_loss,
            "versions": f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"}


def measure(model, data, args):
    if not WARM_UP < args.steps <= len(data.labels) // args.batch_size:
        raise SystemExit(f"torch_peer: --steps {args.steps}: must be more than {WARM_UP} and at "
                         f"most an epoch, {len(data.labels) // args.batch_size}")
    on_device = measure_on_gpu if args.device == "cuda" else measure_on_cpu
    print(json.dumps(on_device(model, data, args)), file=args.output)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", required=True, help="directory of CIFAR-10's .bin files")
    parser.add_argument("--model", default="wrn-10-1")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, help="measure this many steps of one epoch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--preprocess", choices=["meanstd", "zca"], default="meanstd")
    parser.add_argument("--gamma-init", choices=["one", "uniform"], default="one")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-format", choices=FORMATS, default="channels_last")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--mode", choices=MODES, default="eager", help="on a GPU, with --steps")
    parser.add_argument("--limit-train", type=int)
    parser.add_argument("--limit-test", type=int)
    parser.add_argument("--save-initial", help="safetensors of the initial weights, for wrn_train")
    parser.add_argument("-o", "--output", type=argparse.FileType("w"), default=sys.stdout)
    args = parser.parse_args()

    if args.device == "cpu" and (args.precision != "fp32" or args.mode != "eager"):
        parser.error("on the CPU there are only --precision fp32 and --mode eager")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 0  # tries all it has
    torch.backends.cuda.matmul.allow_tf32 = args.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = args.precision == "tf32"
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model = WideResNet(args.model)
    if args.gamma_init == "uniform":
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight)
    if args.save_initial:
        from safetensors.torch import save_file
        save_file(model.state_dict(), args.save_initial)
    model.to(args.device, memory_format=FORMATS[args.memory_format])
    (measure if args.steps else train)(model, Data(args), args)


if __name__ == "__main__":
    main()
