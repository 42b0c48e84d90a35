#!/usr/bin/env python3
"""Writes the golden values: what three SGD steps of plain PyTorch, in float64, make of a network.

  make_golden.py            writes every file anew
  make_golden.py --check    recomputes them and compares with the files that are there

Both also print how far the same three steps in float32 PyTorch are from the float64 ones, as the
worst relative Frobenius difference of all tensors of a file. README.md lists what a file holds.
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch.nn import functional as F

from philox import DROPOUT, philox
from torch_wrn import WideResNet

HERE = Path(__file__).resolve().parent
STEPS = 3
MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)

# Model: (batch size, seed). A ReLU input within float32's rounding of zero may fall on the other
# side of it in another implementation, and then gradients differ by more than the tests allow. So
# each seed is the first, from 1, at which no ReLU input of the three steps is closer to zero than
# MARGIN times the largest error of float32 PyTorch in that layer.
MARGIN = 0.7
DROP, DROP_SEED = 0.3, 1  # of the models whose file's name ends so; the seed of the masks
MODELS = {
    "wrn-10-1": (8, 1),
    "wrn-16-2": (4, 68),
    "wrn-10-1-B(3,1)": (8, 20),
    "wrn-10-1-B(1,3)": (8, 2),
    "wrn-10-1-B(1,3,1)": (8, 28),
    "wrn-10-1-B(3,1,1)": (8, 7),
    "wrn-10-1-B(3,1,3)": (8, 1),
    "wrn-7-1-l1": (8, 3),
    "wrn-13-1-l3": (8, 31),
    "wrn-16-1-l4": (4, 2),
    "wrn-10-1-dropout": (8, 3),
    "wrn-10-1-B(3,1,1)-dropout": (8, 15),
}


def round_to_bits(x, bits):
    """Nearest float32 of that many significant bits; the zeros at the end let git compress it."""
    mantissa, exponent = torch.frexp(x.double())
    return torch.ldexp(torch.round(mantissa * 2**bits), exponent - bits).float()


def model_of(name):
    """-> (the model's name, its dropout)."""
    model = name.removesuffix("-dropout")
    return model, DROP if model != name else 0.0


class PhiloxDropout(torch.nn.Module):
    """Dropout by the program's own masks: those of layer number `layer` in training step `step`."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.step = layer, 0

    def forward(self, x):  # [n, c, h, w]; the masks are drawn for [n, h, w, c]
        if not self.training:
            return x
        n, c, h, w = x.shape
        p = float(np.float32(DROP))
        words = np.stack([philox(DROP_SEED, np.arange(c * h * w // 4), row, self.step,
                                 DROPOUT + self.layer).T for row in range(n)])
        keep = (words >> np.uint64(8)).reshape(n, h, w, c) / 2.0**24 >= p
        return x * torch.from_numpy(keep).permute(0, 3, 1, 2).to(x.dtype) / (1 - p)


def with_our_dropout(model):
    """Replaces the network's dropouts, in their order; -> those that are there now."""
    places = [(parent, name) for parent in model.modules()
              for name, child in parent.named_children()
              if isinstance(child, torch.nn.Dropout) and child.p > 0]
    for layer, (parent, name) in enumerate(places):
        setattr(parent, name, PhiloxDropout(layer))
    return [getattr(parent, name) for parent, name in places]


def starting_point(name, batch, seed):
    """-> initial state_dict in float32, images uint8 [STEPS * batch, 32, 32, 3], labels int64."""
    random = np.random.RandomState(seed)  # numpy promises that its stream never changes
    state = {}
    for key, value in WideResNet(model_of(name)[0]).state_dict().items():
        if key.endswith("num_batches_tracked"):
            state[key] = value
            continue
        noise = torch.from_numpy(random.standard_normal(value.shape))
        if value.dim() == 4:
            noise *= (2 / value[0].numel()) ** 0.5
        elif key == "fc.weight":
            noise *= value.shape[1] ** -0.5
        elif key.endswith("running_var") or "bn" in key and key.endswith("weight"):
            noise = torch.exp(0.2 * noise)  # around 1
        else:
            noise *= 0.2  # around 0
        state[key] = round_to_bits(noise, 8)
    images = random.randint(0, 256, (STEPS * batch, 32, 32, 3)).astype(np.uint8)
    labels = random.randint(0, 10, STEPS * batch)
    return state, torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def three_steps(name, batch, start, dtype):
    """-> results by name, and every ReLU input, in the order they are computed."""
    state, images, labels = start
    architecture, drop = model_of(name)
    model = WideResNet(architecture, dropout=drop).to(dtype)
    model.load_state_dict(state)
    dropouts = with_our_dropout(model)
    assert bool(dropouts) == (drop > 0)
    relu_inputs = []
    hooks = [module.register_forward_hook(lambda _, __, y: relu_inputs.append(y.detach()))
             for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    x = (images.to(dtype) - torch.tensor(MEAN, dtype=dtype)) / torch.tensor(STD, dtype=dtype)
    x = x.permute(0, 3, 1, 2).contiguous()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    result, losses = {}, []
    for step in range(STEPS):
        for dropout in dropouts:
            dropout.step = step
        part = slice(step * batch, (step + 1) * batch)
        logits = model(x[part])
        loss = F.cross_entropy(logits, labels[part])
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            result |= {"logits": logits.detach(), "loss": loss.detach()}
            result |= {f"grad.{key}": p.grad.clone() for key, p in model.named_parameters()}
            result |= {f"step1.{key}": b.clone() for key, b in model.named_buffers()
                       if b.is_floating_point()}
        optimizer.step()
    result |= {f"step3.{key}": v for key, v in model.state_dict().items() if v.is_floating_point()}
    result["losses"] = torch.stack(losses)
    for hook in hooks:
        hook.remove()
    model.eval()
    with torch.no_grad():
        result["eval_logits"] = model(x[:batch])
    return result, relu_inputs


def difference(actual, expected):
    """Worst relative Frobenius difference of all tensors."""
    return max(((actual[key].double() - value.double()).norm() / value.double().norm()).item()
               for key, value in expected.items())


def compute(name, batch, seed):
    """-> (tensors of the file, how far float32 is from float64, margin of the ReLU inputs)."""
    start = starting_point(name, batch, seed)
    result, relu = three_steps(name, batch, start, torch.float64)
    result32, relu32 = three_steps(name, batch, start, torch.float32)
    margin = min((a.abs().min() / (a - b).abs().max()).item() for a, b in zip(relu, relu32))
    state, images, labels = start
    tensors = {f"init.{key}": value for key, value in state.items()}
    tensors |= {"images": images, "labels": labels}
    tensors |= {key: round_to_bits(value, 16).contiguous() for key, value in result.items()}
    return tensors, difference(result32, result), margin


def write(path, name, batch, seed, tensors):
    """A safetensors file. (The package's writer puts the metadata in another order every time.)"""
    model, drop = model_of(name)
    metadata = {"model": model, "batch": batch, "steps": STEPS, "seed": seed, "lr": 0.1,
                "momentum": 0.9, "weight_decay": 0.0005,
                "mean": ",".join(map(str, MEAN)), "std": ",".join(map(str, STD))}
    if drop > 0:
        metadata |= {"dropout": drop, "dropout_seed": DROP_SEED}
    header, data = {"__metadata__": {key: str(value) for key, value in metadata.items()}}, b""
    dtypes = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}
    # Larger elements first, so that every tensor is aligned.
    for key, value in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        part = value.numpy().tobytes()
        header[key] = {"dtype": dtypes[value.dtype], "shape": list(value.shape),
                       "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def compare(path, tensors):
    """Exact in what is drawn, to 5e-5 in what is computed: other CPUs round otherwise."""
    with safe_open(path, "pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}
    assert stored.keys() == tensors.keys(), path
    computed = {key: tensors.pop(key) for key in list(tensors)
                if not key.startswith(("init.", "images", "labels"))}
    assert all(torch.equal(value, stored[key]) for key, value in tensors.items()), path
    worst = difference(stored, computed)
    assert worst < 5e-5, (path, worst)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, (batch, seed) in MODELS.items():
        tensors, worst, margin = compute(name, batch, seed)
        path = HERE / f"{name}.safetensors"
        print(f"{name:26} float32 differs by {worst:.1e}, ReLU margin {margin:.2f}")
        if args.check:
            compare(path, tensors)
        elif worst < 3e-5 and margin > MARGIN:
            write(path, name, batch, seed, tensors)
        else:
            sys.exit(f"{name}: too near a kink of the network; choose another seed")


if __name__ == "__main__":
    main()
