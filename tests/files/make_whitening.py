#!/usr/bin/env python3
"""Writes whitening.safetensors: small images, and what NumPy makes of them (golden/whitening.py) in
float64. Needs Python with NumPy and safetensors.

The tests fit on `images`, and whiten them and `others`. One image of each is of one colour.
"""
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "golden"))
from whitening import Whitening  # noqa: E402

SHAPE = (8, 8, 3)


def draw(random, n):
    """Images whose neighbouring values are alike, as in photographs: uint8 [n, 192]."""
    walk = random.standard_normal((n, *SHAPE)).cumsum(1).cumsum(2).cumsum(3)
    walk += 4 * random.standard_normal((n, *SHAPE))
    images = np.clip(128 + 8 * walk, 0, 255).astype(np.uint8).reshape(n, -1)
    images[n // 2] = 77
    return images


random = np.random.RandomState(1)
images, others = draw(random, 150), draw(random, 20)
whiten = Whitening(images)
path = HERE / "whitening.safetensors"
save_file({"images": images, "others": others, "whitened": whiten(images)[65:85],
           "whitened_others": whiten(others)}, path)
path.chmod(0o644)
