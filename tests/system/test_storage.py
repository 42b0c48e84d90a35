"""Checkpoints that are damaged, and disks that are full: one line, and nothing lost."""
import contextlib
import json
import math
import os
import random
import resource
import shutil
import struct
import subprocess
import time
import unittest

import harness
from harness import (CHECKPOINT, NOT_FINITE, RUNTIME, position, read_metrics, read_safetensors,
                     temporaries)


class AfterGoodRun(harness.SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls.case_of_class()
        cls.good = cls.root / "good"
        case.succeed(*case.flags(), "-o", cls.good)


class TestDamagedCheckpoint(AfterGoodRun):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.blob = (cls.good / CHECKPOINT).read_bytes()

    def refuse(self, blob):
        self.out.mkdir(exist_ok=True)
        (self.out / CHECKPOINT).write_bytes(blob)
        result = self.fail_with(RUNTIME, "--resume", "-o", self.out, says=self.out / CHECKPOINT)
        self.assertEqual(result.out, "")

    def test_cut_in_its_first_bytes(self):
        for size in range(64):
            self.refuse(self.blob[:size])

    def test_cut_anywhere(self):
        rng = random.Random(1)
        for _ in range(100):
            self.refuse(self.blob[:rng.randrange(len(self.blob))])

    def test_longer_than_it_says(self):
        self.refuse(self.blob + b"x")

    def with_metadata(self, key, change):
        (length,) = struct.unpack_from("<Q", self.blob)
        header = json.loads(self.blob[8:8 + length])
        value = json.loads(header["__metadata__"][key])
        header["__metadata__"][key] = json.dumps(change(value))
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + self.blob[8 + length:]

    def test_settings_of_before_there_was_one(self):
        """A checkpoint of an earlier version goes on with the default of what it does not name."""
        self.out.mkdir()
        (self.out / CHECKPOINT).write_bytes(self.with_metadata(
            "settings", lambda old: {k: v for k, v in old.items()
                                     if k not in ("gamma_init", "tensorboard")}))
        self.succeed("--test-only", "--resume", "-o", self.out)

    def test_seconds_of_an_epoch_that_is_gone_on_with(self):
        self.out.mkdir()
        (self.out / CHECKPOINT).write_bytes(self.with_metadata(
            "position",
            lambda old: {**old, "epoch": 1, "seconds": 1000, "training_seconds": 900}))
        self.succeed("--resume", "-o", self.out)
        line = read_metrics(self.out)[-1]
        self.assertEqual(line["epoch"], 2)
        self.assertGreater(line["seconds"], 1000)
        self.assertTrue(900 < line["training_seconds"] < 1000, line)

    def test_metadata_of_no_run(self):
        for key, name, value in [
                ("settings", "batch_size", 0), ("settings", "batch_size", "x"),
                ("settings", "batch_size", -1), ("settings", "epochs", 0),
                ("settings", "save_every", 0), ("settings", "threads", -1),
                ("settings", "threads", 10**6), ("settings", "epochs", 2e32),
                ("settings", "epochs", 2**32 + 1), ("settings", "epochs", 2.5),
                ("settings", "limit_train", 2e32), ("settings", "limit_train", -1),
                ("settings", "limit_test", 2**64 - 1), ("settings", "lr_drops", [1, 2e32]),
                ("settings", "lr_drops", [2**64 - 1]), ("settings", "lr_drops", [[1]]),
                ("settings", "seed", -1), ("settings", "seed", 2e32),
                ("settings", "batch_size", 2**31 - 1), ("settings", "lr", -5),
                ("settings", "lr_drops", [3, 2]), ("settings", "lr_drops", [-1]),
                ("settings", "dataset", "mnist"), ("settings", "device", "tpu"),
                ("settings", "precision", "fp16"), ("settings", "model", "resnet-50"),
                ("settings", "preprocess", "pca"), ("settings", "dropout", 1),
                ("position", "epoch", -1), ("position", "epoch", 2e32),
                ("position", "epoch", 2**32), ("position", "epoch", 0.5),
                ("position", "step", -1), ("position", "step", None), ("position", "step", 2e32),
                ("position", "images", 2e32), ("position", "wrong", -1),
                ("position", "wrong_top5", -1), ("best", "epoch", 2e32)]:
            with self.subTest(f"{key} {name} {value}"):
                self.refuse(self.with_metadata(key, lambda old: {**old, name: value}))
        self.refuse(self.with_metadata("steps_per_epoch", lambda old: -old))
        self.refuse(self.with_metadata("steps_per_epoch", lambda old: 2e32))
        self.refuse(self.with_metadata("classes", lambda old: 2e32))
        self.refuse(self.with_metadata("std", lambda old: [0, *old[1:]]))
        for key in ("mean", "std"):
            self.refuse(self.with_metadata(key, lambda old: [1e300, *old[1:]]))
        self.refuse(self.with_metadata("settings", lambda old: []))
        self.refuse(self.with_metadata("metrics", lambda old: 1))
        self.refuse(self.with_metadata("metrics", lambda old: json.loads("[" * 500 + "]" * 500)))

    def test_weights_that_are_not_finite(self):
        blob = bytearray((self.good / CHECKPOINT).read_bytes())
        (length,) = struct.unpack_from("<Q", blob)
        begin, _ = json.loads(blob[8:8 + length])["conv1.weight"]["data_offsets"]
        ruined = self.dir / "ruined.safetensors"
        for value in (math.nan, math.inf):
            struct.pack_into("<f", blob, 8 + length + begin, value)
            ruined.write_bytes(blob)
            for args in (["--resume", ruined], ["--test-only", "--resume", ruined],
                         [*self.flags(), "--import-weights", ruined]):
                self.fail_with(NOT_FINITE, *args, "-o", self.out, says=[ruined, "conv1.weight is not finite"])
                self.assertFalse(self.out.exists())


class TestHalfWritten(AfterGoodRun):
    """A run's directory of which only a part is there, or whole: as after a copy that was cut."""

    def test_without_its_checkpoint(self):
        for name in {path.name for path in self.good.iterdir()} - {CHECKPOINT}:
            with self.subTest(name):
                run = self.dir / name
                run.mkdir()
                shutil.copy(self.good / name, run)
                before = self.snapshot(run)
                self.fail_with(RUNTIME, "--resume", "-o", run, says=run / CHECKPOINT)
                self.fail_with(harness.USAGE, *self.flags(), "-o", run,
                               says=[run, "--overwrite"])
                self.assert_untouched(run, before)
                self.succeed(*self.flags(), "-o", run, "--overwrite")
                self.assert_same_run(run, self.good)

    def test_directories_in_place_of_files(self):
        """Found before training."""
        for path in self.good.iterdir():
            with self.subTest(path.name):
                run = self.dir / path.name
                (run / path.name).mkdir(parents=True)
                self.fail_with(RUNTIME, *self.flags(), "-o", run, "--overwrite",
                               says=run / path.name)
                self.assertEqual([entry.name for entry in run.iterdir()], [path.name])

    def test_other_files_cut_short_are_written_anew(self):
        flags = self.flags("--lr-drops", 2, "--lr-drop-factor", 1e30, epochs=4)
        self.fail_with(NOT_FINITE, *flags, "-o", self.out)  # a way to end after two epochs
        whole = {path.name: path.read_bytes() for path in self.out.iterdir()}
        for name in ("config.json", "metrics.jsonl", "report.html"):
            (self.out / name).write_bytes(whole[name][:len(whole[name]) // 2])
        self.fail_with(NOT_FINITE, "--resume", "-o", self.out)
        self.assertEqual(whole["config.json"], (self.out / "config.json").read_bytes())
        self.assertEqual(whole["metrics.jsonl"], (self.out / "metrics.jsonl").read_bytes())


class TestFullDisk(harness.SystemTest):
    """A small file system of its own, filled by another file, or read-only. Needs root."""

    def setUp(self):
        super().setUp()
        self.disk = self.dir / "disk"
        self.disk.mkdir()
        mounted = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "wrn_test", self.disk],
            capture_output=True).returncode == 0
        if not mounted:
            self.skipTest("a small file system cannot be mounted (root may)")
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk])
        self.out = self.disk / "run"
        self.filler = self.disk / "filler"
        self.reference = self.dir / "reference"

    def fill(self):
        with open(self.filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def check_failed(self, result):
        self.assert_error(result, RUNTIME, [self.out, "No space left on device"])
        read_safetensors(self.out / CHECKPOINT)
        self.assertEqual(temporaries(self.out), [])
        self.succeed("--test-only", "--resume", "-o", self.out)

    def test_full_while_training(self):
        flags = self.flags(epochs=12)
        self.succeed(*flags, "-o", self.reference)
        process = subprocess.Popen(self.command(*flags, "-o", self.out), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, cwd=self.dir)
        process.stdout.readline()
        process.stdout.readline()  # an epoch is done
        while process.poll() is None:
            self.fill()  # again, as the temporary of a failed save gives its room back
            time.sleep(0.001)
        out, err = process.communicate(timeout=harness.TIME_LIMIT)
        self.check_failed(harness.Result(process.returncode, out, err))
        self.filler.unlink()
        self.succeed("--resume", "-o", self.out)
        self.assert_same_run(self.out, self.reference)

    def test_read_only(self):
        """Found before the data are read. A finished run can still be asked for its weights."""
        done, weights = self.disk / "done", self.dir / "weights.safetensors"
        self.succeed(*self.flags(epochs=1), "-o", done)
        self.out.mkdir()
        subprocess.run(["mount", "-o", "remount,ro", self.disk], check=True)
        for run in (self.out, self.disk / "new"):
            self.fail_with(RUNTIME, "--data-path", self.dir / "nowhere", "-o", run,
                           says=[run, "Read-only"])
        self.succeed("--resume", "-o", done, "--export-weights", weights)
        read_safetensors(weights)

    def test_full_at_the_start_and_on_resume(self):
        self.fill()
        self.fail_with(RUNTIME, *self.flags(), "-o", self.out,
                       says=[self.out, "No space left on device"])
        self.filler.unlink()
        flags = self.flags("--lr-drops", 2, "--lr-drop-factor", 1e30, epochs=4)
        self.fail_with(NOT_FINITE, *flags, "-o", self.out)  # a way to end after two epochs
        before = self.snapshot(self.out)
        self.fill()
        result = self.run_program("--resume", "-o", self.out)
        self.check_failed(result)
        self.assert_untouched(self.out, before)


class TestFailedSave(harness.SystemTest):
    def test_save_beyond_the_limit(self):
        """Like a full disk, but needs no root: files of at most 100 kB."""
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        self.succeed(*self.flags(), "-o", self.out)
        before = self.snapshot(self.out)
        self.fail_with(RUNTIME, *self.flags(), "-o", self.out, "--overwrite",
                       says=[self.out / CHECKPOINT, "File too large"], preexec_fn=limit)
        self.assert_untouched(self.out, before)

    def test_the_other_programs_write_beyond_the_limit(self):
        """They are not killed by a signal, and leave nothing half-written."""
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

        self.succeed(*self.flags(epochs=1), "-o", self.out)
        before = self.snapshot(self.out)
        for tool, *args in [("wrn_report", self.out),
                            ("wrn_synthetic", self.dir / "drawn", "--train", 50, "--test", 5),
                            ("wrn_tables", "run", "all", "--data-path", self.data, "-o", self.dir / "tables")]:
            with self.subTest(tool):
                done = subprocess.run([harness.program_path.with_name(tool), *map(str, args)], cwd=self.dir,
                                      capture_output=True, text=True, timeout=harness.TIME_LIMIT,
                                      preexec_fn=limit)
                self.assertEqual(done.returncode, RUNTIME, done)
                self.assertRegex(done.stderr, rf"\A{tool}: [^\n]*File too large[^\n]*\n\Z")
        self.assert_untouched(self.out, before)
        self.assertEqual([path for path in self.dir.rglob("*") if self.out not in [path, *path.parents]],
                         [self.dir / "tables"])

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_curves_that_cannot_be_replaced(self):
        """Found before the old run is touched."""
        self.succeed(*self.flags("--tensorboard", epochs=1), "-o", self.out)
        curves = self.out / "tensorboard"
        before = self.snapshot(self.out)
        curves.chmod(0o555)
        self.addCleanup(curves.chmod, 0o755)
        self.fail_with(RUNTIME, *self.flags(), "-o", self.out, "--overwrite", says=[curves, "Permission denied"])
        self.assert_untouched(self.out, before)

    def test_best_that_cannot_be_written(self):
        """The checkpoint then stays one epoch behind, and the resumed run finds its best again."""
        reference = self.dir / "reference"
        flags = self.flags(epochs=1)
        self.succeed(*flags, "-o", reference)
        best = self.out / "best.safetensors"
        while not best.is_dir():  # if the epoch was done before it could be made, once more
            shutil.rmtree(self.out, ignore_errors=True)
            process = subprocess.Popen(self.command(*flags, "-o", self.out), cwd=self.dir,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while not (self.out / CHECKPOINT).exists() and process.poll() is None:
                time.sleep(0.001)
            with contextlib.suppress(FileExistsError):
                best.mkdir()
            _, err = process.communicate(timeout=harness.TIME_LIMIT)
        self.assert_error(harness.Result(process.returncode, "", err), RUNTIME, best)
        self.assertEqual(position(self.out / CHECKPOINT)["epoch"], 0)
        best.rmdir()
        self.succeed("--resume", "-o", self.out)
        self.assert_same_run(self.out, reference)


if __name__ == "__main__":
    harness.main()
