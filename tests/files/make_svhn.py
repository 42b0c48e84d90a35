#!/usr/bin/env python3
"""Writes small files in SVHN's format 2 as SciPy saves them. Needs Python with SciPy.

Pixel (row, column, channel) of image n is (31 n + 101 channel + 7 (32 row + column)) % 256, from
image 0 (train), 50 (test) and 90 (extra) on; its label is n % 10, and 10 for the digit 0.
"""
from pathlib import Path

import numpy as np
from scipy.io import savemat

HERE = Path(__file__).parent


def images(first, count):
    row, column, channel, n = np.ogrid[:32, :32, :3, first:first + count]
    return ((31 * n + 101 * channel + 7 * (32 * row + column)) % 256).astype(np.uint8)


def labels(first, count, dtype=np.uint8):
    digits = np.arange(first, first + count) % 10
    return np.where(digits == 0, 10, digits).astype(dtype)[:, None]


def save(name, x, y, **kwargs):
    path = HERE / "svhn" / f"{name}.mat"
    path.parent.mkdir(exist_ok=True)
    savemat(path, {"X": x, "y": y}, **({"do_compression": True} | kwargs))
    # SciPy writes the time into the text of the header.
    content = path.read_bytes()
    path.write_bytes(b"MATLAB 5.0 MAT-file, made by make_svhn.py".ljust(116) + content[116:])


save("train_32x32", images(0, 12), labels(0, 12))
save("test_32x32", images(50, 3), labels(50, 3))
save("extra_32x32", images(90, 5), labels(90, 5, np.float64))  # as numbers of MATLAB's own type
save("plain", images(0, 2), labels(0, 2, np.int64), do_compression=False)

# What is wrong with each is its name.
save("x_is_double", images(0, 2).astype(np.float64), labels(0, 2))
save("x_is_text", "an image", labels(0, 2))
save("x_is_complex", images(0, 2) * 1j, labels(0, 2))
save("x_is_31_wide", images(0, 2)[:, :31], labels(0, 2))
save("x_is_flat", images(0, 2).reshape(3072, 2), labels(0, 2))
save("x_is_empty", images(0, 0), labels(0, 0))
save("y_is_text", images(0, 2), "labels")
save("y_is_a_row", images(0, 2), labels(0, 2).T)
save("y_is_longer", images(0, 2), labels(0, 3))
save("y_has_0", images(0, 2), np.array([[1], [0]], np.uint8))
save("y_has_11", images(0, 2), np.array([[11], [1]], np.uint8))
save("y_has_halves", images(0, 2), np.array([[1.5], [1]]))
save("y_has_nan", images(0, 2), np.array([[np.nan], [1]]))
