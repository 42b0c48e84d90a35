"""Wide residual networks in plain PyTorch: the reference that the C++ program is compared with.

Names, shapes and arithmetic are those of the paper's pre-activation network, in the naming of the
common PyTorch port. Run as a program, it checks the parameter count of every network whose size
the paper (or a list derived from it) gives.

A model's name is wrn-DEPTH-WIDTH, with an optional block type, wrn-40-2-B(3,1), or deepening
factor, wrn-40-2-l3. The two differ in how the depth becomes blocks a group: (depth - 4) / 6 for
every block type, (depth - 4) / 3l for l convolutions of 3x3 a block.
"""
import math
import re

import torch
from torch import nn
from torch.nn import functional as F


def parse_name(name):
    """'wrn-16-4-B(3,1)' -> (blocks a group, widening factor, kernel sizes of a block)."""
    match = re.fullmatch(r"wrn-(\d+)-(\d+)(?:-B\((\d(?:,\d)*)\)|-l(\d+))?", name)
    if not match:
        raise ValueError(f"'{name}' is no name like wrn-28-10, wrn-40-2-B(3,1) or wrn-40-2-l3")
    depth, width = int(match[1]), int(match[2])
    if match[4]:
        kernels, convolutions = [3] * int(match[4]), 3 * int(match[4])
    else:
        kernels, convolutions = [int(k) for k in (match[3] or "3,3").split(",")], 6
    blocks, rest = divmod(depth - 4, convolutions)
    if rest or blocks < 1:
        raise ValueError(f"'{name}': the depth must be 4 + a multiple of {convolutions}")
    return blocks, width, kernels


def conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Pre-activation residual block; the projection, where there is one, reads the activation."""

    def __init__(self, inputs, outputs, kernels, stride, dropout):
        super().__init__()
        self.depth = len(kernels)
        for i, kernel in enumerate(kernels, 1):
            planes = inputs if i == 1 else outputs
            self.add_module(f"bn{i}", nn.BatchNorm2d(planes))
            if i > 1:
                self.add_module(f"drop{i}", nn.Dropout(dropout))
            self.add_module(f"conv{i}", conv(planes, outputs, kernel, stride if i == 1 else 1))
        if inputs != outputs:
            self.convShortcut = conv(inputs, outputs, 1, stride)

    def forward(self, x):
        y = F.relu(self.bn1(x))
        shortcut = self.convShortcut(y) if hasattr(self, "convShortcut") else x
        y = self.conv1(y)
        for i in range(2, self.depth + 1):
            y = F.relu(getattr(self, f"bn{i}")(y))
            y = getattr(self, f"conv{i}")(getattr(self, f"drop{i}")(y))
        return y + shortcut


class Group(nn.Module):
    def __init__(self, blocks, inputs, outputs, kernels, stride, dropout):
        super().__init__()
        self.layer = nn.Sequential(*(
            Block(inputs if i == 0 else outputs, outputs, kernels, stride if i == 0 else 1, dropout)
            for i in range(blocks)))

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, name, classes=10, dropout=0.0):
        super().__init__()
        blocks, width, kernels = parse_name(name)
        planes = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = conv(3, 16, 3)
        self.block1 = Group(blocks, planes[0], planes[1], kernels, 1, dropout)
        self.block2 = Group(blocks, planes[1], planes[2], kernels, 2, dropout)
        self.block3 = Group(blocks, planes[2], planes[3], kernels, 2, dropout)
        self.bn1 = nn.BatchNorm2d(planes[3])
        self.fc = nn.Linear(planes[3], classes)
        self.initialise()

    def initialise(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # N(0, sqrt(2 / fan_in))
        bound = 1 / math.sqrt(self.fc.in_features)
        nn.init.uniform_(self.fc.weight, -bound, bound)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        """x: [n, 3, 32, 32], normalised -> logits [n, classes]."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.avg_pool2d(F.relu(self.bn1(x)), 8).flatten(1))


PARAMETERS = {
    "wrn-10-1": 77_850, "wrn-16-1": 175_066, "wrn-16-4": 2_748_890, "wrn-16-8": 10_961_370,
    "wrn-16-10": 17_116_634, "wrn-22-8": 17_158_106, "wrn-22-10": 26_797_914,
    "wrn-28-10": 36_479_194, "wrn-28-12": 52_517_850, "wrn-40-1": 563_930, "wrn-40-2": 2_243_546,
    "wrn-40-4": 8_949_210, "wrn-40-8": 35_748_314, "wrn-40-10": 55_841_754, "wrn-52-1": 758_362,
    "wrn-40-2-B(1,3,1)": 1_429_082, "wrn-40-2-B(3,1)": 1_211_354, "wrn-40-2-B(1,3)": 1_297_370,
    "wrn-40-2-B(3,1,1)": 1_343_066, "wrn-28-2-B(3,3)": 1_467_610, "wrn-22-2-B(3,1,3)": 1_145_498,
    "wrn-40-2-l1": 2_243_546, "wrn-40-2-l2": 2_243_546, "wrn-40-2-l3": 2_243_546,
    "wrn-40-2-l4": 2_243_546,
}


def count_parameters(name, classes=10):
    with torch.device("meta"):
        return sum(p.numel() for p in WideResNet(name, classes).parameters())


if __name__ == "__main__":
    for name, expected in PARAMETERS.items():
        assert count_parameters(name) == expected, (name, count_parameters(name), expected)
    assert count_parameters("wrn-28-10", classes=100) == 36_536_884
    print(f"{len(PARAMETERS) + 1} parameter counts are the paper's")
