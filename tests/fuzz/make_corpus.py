#!/usr/bin/env python3
"""Writes the inputs that the fuzz targets begin with. Those of fuzz_mat are copies of tests/files/svhn."""
import json
import struct
from pathlib import Path

HERE = Path(__file__).resolve().parent


def save(target, name, content):
    path = HERE / "corpus" / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


image = bytes(range(256)) * 12
save("fuzz_cifar", "cifar10", b"\0" + b"\3" + image + b"\11" + image)
save("fuzz_cifar", "cifar100", b"\1" + b"\23\143" + image)
save("fuzz_cifar", "names10", b"\2" + b"".join(b"class %d\n" % i for i in range(10)) + b"\n")
save("fuzz_cifar", "names100", b"\3" + b"".join(b"%d\r\n" % i for i in range(100)))

for name in ("test_32x32", "plain", "x_is_text", "x_is_complex", "y_has_halves"):
    content = (HERE.parent / "files" / "svhn" / f"{name}.mat").read_bytes()
    save("fuzz_mat", name, content)


lines = [{"epoch": n, "lr": 0.1, "test_error": 60 / n, "seconds": n / 4} for n in (1, 2, 3)]
save("fuzz_metrics", "metrics", b"\0" + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
save("fuzz_metrics", "config", b"\1" + json.dumps(
    {"training": {"epochs": 3}, "device_name": "cpu"}, indent=2).encode())


def safetensors(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


save("fuzz_safetensors", "empty", safetensors({}, b""))
save("fuzz_safetensors", "two", safetensors(
    {"__metadata__": {"format": "pt", "settings": "{\"epochs\": 3}"},
     "fc.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
     "steps": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}}, bytes(32)))
save("fuzz_safetensors", "types", safetensors(
    {f"x{size}": {"dtype": dtype, "shape": [size, 0, 1] if size == 3 else [1], "data_offsets": offsets}
     for size, (dtype, offsets) in enumerate([("U8", [0, 1]), ("BF16", [1, 3]), ("F64", [3, 11]),
                                              ("BOOL", [11, 11])])}, bytes(11)))
