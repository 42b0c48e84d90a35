#!/usr/bin/env python3
"""That the benchmarks run and count right; how fast is not looked at.

usage: test_benchmarks.py BUILD_DIRECTORY PROGRAM...
On the CPU, and where the build and the machine have one on a GPU, emulated or real.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import compare_pytorch

BUILD, PROGRAMS = Path(sys.argv[1]).resolve(), sys.argv[2:]
TINY = ["--threads", "1", "--batch-size", "1"]
CONV1, LAYERS = 32 * 32 * 16 * 27, 3  # multiply-adds of WRN-10-1's first convolution; its groups


def run(program, *arguments, **how):
    return subprocess.run([BUILD / program, *map(str, arguments)], capture_output=True, text=True,
                          check=False, **how)


def has_gpu():
    return "bench_ladder" in PROGRAMS and run("bench_ladder", "--help").returncode == 0 and \
        "nowhere" in run("wrn_train", "--device", "cuda", "--data-path", "nowhere").stderr


DEVICES = [["--device", "cpu"]]
if has_gpu():
    DEVICES += [["--device", "cuda", "--precision", precision] for precision in ("fp32", "bf16")]
else:
    print("skipped: no CUDA GPU; on the CPU only")


class TestBenchmarks(unittest.TestCase):
    def test_steps_add_up(self):
        for device in DEVICES:
            with self.subTest(device=device), tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "step.json"
                done = run("bench_step", "--model", "wrn-10-1", "--runs", 1, "--ceilings", 1, 0.1,
                           *device, *TINY, "--json", path)
                self.assertEqual(done.returncode, 0, done.stderr)
                result = json.loads(path.read_text())
                self.assertTrue(result["overlaps_kernels"])
                steps = result["steps"]
                macs = {what: sum(step["macs"] for step in steps if f" {what}" in step["name"])
                        for what in ("fprop", "dgrad", "wgrad")}
                self.assertGreater(macs["fprop"], 11e6)
                self.assertEqual(macs["wgrad"], macs["fprop"])
                self.assertEqual(macs["dgrad"], macs["fprop"] - CONV1)
                for step in steps:
                    self.assertGreater(step["microseconds"], 0, step["name"])
                    floor = 1e6 * max(2 * step["macs"] / 1e12, step["bytes"] / 0.1e12)
                    self.assertAlmostEqual(step["model_microseconds"], floor, delta=1e-6 * floor)
                self.assertAlmostEqual(result["images_per_second"],
                                       1000 / result["step_milliseconds"],
                                       delta=1e-6 * result["images_per_second"])
                for step in steps:
                    if any(product in step["name"] for product in macs):
                        self.assertRegex(step["kind"], r"^conv(Shortcut)? (fprop(, statistics)?|wgrad|"
                                                       r"dgrad(, activation)?)(, projection)?$")
                self.assertIn("conv fprop", done.stdout)
                self.assertRegex(done.stdout, rf"all, one by one +{len(steps)} ")

    def test_kernels(self):
        for device in DEVICES:
            with self.subTest(device=device):
                done = run("bench_kernels", *device, *TINY, "--widen", 1, "--ceilings", 1, 0.1,
                           "--benchmark_filter=conv1 fprop|bn2 (forward|activation)|^k=1/loss",
                           "--benchmark_format=json")
                self.assertEqual(done.returncode, 0, done.stderr)
                result = json.loads(done.stdout)
                self.assertIn("device", result["context"])
                kernels = {kernel["name"].split("/")[1]: kernel for kernel in result["benchmarks"]}
                self.assertEqual(len(kernels), 1 + 2 * LAYERS + 1, sorted(kernels))
                # In bf16 it brings statistics along.
                conv1, = (kernel for name, kernel in kernels.items()
                          if re.fullmatch("conv1 fprop(, statistics)? 1x32x32x16", name))
                seconds = 1e-6 * conv1["real_time"]
                self.assertAlmostEqual(conv1["TFLOP/s"] * seconds, 2e-12 * CONV1, delta=1e-14)
                for kernel in kernels.values():
                    self.assertGreater(kernel["GB/s"], 0)
                    self.assertGreater(kernel["%"], 0)

    def test_every_ladder_agrees_with_v0(self):
        if len(DEVICES) == 1:
            self.skipTest("no CUDA GPU")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "ladder.json"
            done = run("bench_ladder", "--batch", 1, "--widen", 1, "--seconds", 0, "--only", "bf16",
                       "--json", path)
            self.assertEqual(done.returncode, 0, done.stderr)
            times = json.loads(path.read_text())["times"]
            versions = {time["version"] for time in times} - {"v5 Hopper, bf16"}
            self.assertEqual(versions, {"v0 direct", "v4 tensor cores, bf16"})
            self.assertTrue(all(time["microseconds"] > 0 for time in times))

    def test_tune_writes_what_it_chose(self):
        if len(DEVICES) == 1:
            self.skipTest("no CUDA GPU")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "choices.json"
            done = run("tune", "--model", "wrn-10-1", "--batch-size", 1, "--rounds", 1,
                       "--commit", "abc123", "--out", path)
            if "no kernels to choose from" in done.stderr:
                self.skipTest(done.stderr)
            self.assertEqual(done.returncode, 0, done.stderr)
            first, _, *lines = done.stdout.splitlines()
            # conv1 has 3 channels, which leave no choice; the first group has one shape, and the others a
            # projection each, which has a wgrad of its own.
            self.assertEqual(len(lines), 3 * (1 + 2 + 2) + 2, done.stdout)
            chosen = sum(line.endswith(" chosen") for line in lines)
            self.assertIn("commit abc123", first)
            [table] = json.loads(path.read_text())
            self.assertEqual(table["measured_on"], first)
            self.assertEqual(len(table["choices"]), chosen)
            again = run("bench_step", "--model", "wrn-10-1", "--batch-size", 1, "--runs", 1,
                        env=os.environ | {"WRN_CHOICES": str(path)})
            self.assertEqual(again.returncode, 0, again.stderr)

    def test_bad_arguments(self):
        cases = [
                (["bench_step", "--model", "wrn-11-1"], 2, "depth 11"),
                (["bench_step", "--runs", "0"], 2, "--runs: '0' is no whole number from 1 to"),
                (["bench_step", "--batch-size", "010"], 2, "--batch-size: '010' is no whole number"),
                (["bench_step", "--threads", "-1"], 2, "--threads: '-1' is no whole number from 0 to"),
                (["bench_step", "--ceilings", "1", "nan"], 2, "--ceilings: 'nan' is no number from"),
                (["bench_step", "--device", "cpu", "--precision", "bf16"], 2, "fp32 only"),
                (["bench_step", "--device", "cpu", "--model", "wrn-10-1", "--runs", 1, *TINY,
                  "--json", "/nowhere/step.json"], 1, "/nowhere/step.json"),
                (["bench_kernels", "--benchmark_nonsense"], 2, "--benchmark_nonsense"),
                (["bench_kernels", "--widen", "0"], 2, "--widen: '0' is no whole number")]
        if "bench_ladder" in PROGRAMS:
            cases += [(["bench_ladder", "--batch", "0"], 2, "--batch: '0' is no whole number"),
                      (["bench_ladder", "--widen", "1.5"], 2, "--widen: '1.5' is no whole number"),
                      (["bench_ladder", "--seconds", "-1"], 2, "--seconds: '-1' is no number from 0 to")]
        if "tune" in PROGRAMS:
            cases += [(["tune", "--model", "wrn-11-1"], 2, "depth 11"),
                      (["tune", "--rounds", "0"], 2, "--rounds: '0' is no whole number"),
                      (["tune", "--commit", "\""], 2, "--commit")]
            if len(DEVICES) == 1:
                cases += [(["tune"], 1, "GPU")]
        for arguments, status, word in cases:
            with self.subTest(arguments=arguments):
                done = run(*arguments)
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertIn(word, done.stderr)


class TestComparison(unittest.TestCase):
    ARGS = argparse.Namespace(on=compare_pytorch.OnGpu, peers=["graph", "eager"], batch_size=128,
                              precision="bf16", device="cuda", threads=2)

    def summary(self, rates, losses, errors):
        records = {program: [{"images_per_second": rates[program], "peak_device_mb": 100, "lr": 0.01,
                              "train_loss": losses.get(program, 2.3), "device": "GPU"}]
                   if program in rates else [] for program in ("wrn_train", "graph", "eager")}
        return compare_pytorch.summary("wrn-28-10", 390, records, errors, self.ARGS)

    def test_a_ratio_is_to_the_best_of_all_programs(self):
        some = self.summary({"wrn_train": 900, "eager": 300}, {}, {})
        self.assertEqual(some["missing"], ["graph"])
        self.assertNotIn("ratio", some)
        whole = self.summary({"wrn_train": 900, "eager": 300, "graph": 600}, {}, {})
        self.assertNotIn("missing", whole)
        self.assertEqual((whole["ratio"], whole["same_training"]), (1.5, True))
        failed = self.summary({"wrn_train": 900, "eager": 300}, {}, {"graph": "no memory"})
        self.assertEqual((failed["ratio"], failed["errors"]), (3, {"graph": "no memory"}))
        other = self.summary({"wrn_train": 900, "eager": 300, "graph": 600}, {"wrn_train": 2.4}, {})
        self.assertFalse(other["same_training"])


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    unittest.main(argv=sys.argv[:1], verbosity=2)
