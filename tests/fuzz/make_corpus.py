#!/usr/bin/env python3
"""Writes the inputs that the fuzz targets begin with. Those of fuzz_mat and of fuzz_image are copies
of files in tests/files/svhn and tests/images."""
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

for name in ("tiny.png", "line.png", "alpha.png", "palette.png", "one_bit.png", "grey16.png",
             "grey.jpg", "progressive.jpg", "turned6.jpg", "cmyk.jpg"):
    save("fuzz_image", name, (HERE.parent / "images" / name).read_bytes())

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

settings = {
    "dataset": "cifar10", "data_path": "cifar", "model": "wrn-10-1", "recipe": "paper-cifar",
    "dropout": 0.0, "epochs": 3, "batch_size": 10, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
    "lr_drop_factor": 0.2, "lr_drops": [1, 2], "keep_momentum": False, "no_augment": False,
    "keep_last_batch": False, "preprocess": "meanstd", "gamma_init": "one", "svhn_extra": "auto",
    "val_split": 0.0, "seed": 1, "limit_train": 0, "limit_test": 0, "device": "cpu",
    "precision": "fp32", "threads": 1, "save_every": 1, "tensorboard": False}
checkpoint = {
    "format": "wrn.cu checkpoint 1", "model": "wrn-10-1", "classes": "2", "whitening": "none",
    "class_names": json.dumps(["cat", "dog"]), "mean": "[120.5,120,119]", "std": "[50.25,51,52]",
    "settings": json.dumps(settings), "data_checksum": "79c5fdb31332a4f6", "steps_per_epoch": "4",
    "position": json.dumps({"epoch": 2, "step": 1, "seconds": 0.5, "training_seconds": 0.25, "wrong": 7,
                            "wrong_top5": 3, "images": 10, "loss_sum": 22.5}),
    "best": json.dumps({"epoch": 2, "error": 30.0, "split": "test"}), "metrics": json.dumps(lines[:2]),
    "version": "0.1.0"}
older = {key: value for key, value in settings.items()
         if key not in ("precision", "gamma_init", "svhn_extra", "tensorboard")}
save("fuzz_checkpoint", "checkpoint", json.dumps({"__metadata__": checkpoint}).encode())
save("fuzz_checkpoint", "older", json.dumps(
    {"__metadata__": checkpoint | {"settings": json.dumps(older)}}).encode())
save("fuzz_checkpoint", "whitening", json.dumps(
    {"__metadata__": checkpoint | {"whitening": "0123456789abcdef"},
     "whitening.mean": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]},
     "whitening.matrix": {"dtype": "F32", "shape": [0, 0], "data_offsets": [0, 0]}}).encode())

save("fuzz_run", "config", b"\0" + json.dumps({"model": {"name": "wrn-10-1"}, "training": settings}).encode())
save("fuzz_run", "metrics", b"\1" + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
save("fuzz_run", "predictions", b"\2" + safetensors(
    {"__metadata__": {"format": "wrn.cu predictions 1", "epoch": "3", "class_names": checkpoint["class_names"]},
     "probability": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
     "mistakes": {"dtype": "I32", "shape": [1], "data_offsets": [8, 12]},
     "labels": {"dtype": "U8", "shape": [2], "data_offsets": [12, 14]},
     "predicted": {"dtype": "U8", "shape": [2], "data_offsets": [14, 16]},
     "images": {"dtype": "U8", "shape": [1, 32, 32, 3], "data_offsets": [16, 16 + len(image)]}},
    struct.pack("<ffiBBBB", 0.75, 0.5, 1, 0, 1, 0, 0) + image))
