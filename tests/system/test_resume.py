"""Determinism: runs repeated, stopped and killed all end with the same bits; no run costs another."""
import collections
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import harness
from harness import (CHECKPOINT, NOT_FINITE, RUNTIME, USAGE, position, read_metrics,
                     read_safetensors, stopped_at, temporaries)


def inode(file):
    """What changes when a file is replaced; None if there is no file."""
    return file.stat().st_ino if file and file.exists() else None


class TestDeterminism(harness.SystemTest):
    def train_twice(self, *more, **settings):
        runs = [self.dir / "one", self.dir / "two"]
        for run in runs:
            self.succeed(*self.flags(*more, **settings), "-o", run, "--export-weights",
                         self.dir / f"{run.name}.safetensors")
        self.assert_same_run(*runs)
        exports = [(self.dir / f"{run.name}.safetensors").read_bytes() for run in runs]
        self.assertEqual(exports[0], exports[1])
        return runs[0]

    def test_one_seed_gives_one_result_and_another_seed_another(self):
        first = self.train_twice()
        self.succeed(*self.flags("--seed", 2), "-o", self.out)
        weights, others = (read_safetensors(run / CHECKPOINT)[1] for run in (first, self.out))
        self.assertNotEqual(weights["conv1.weight"], others["conv1.weight"])
        self.assertNotEqual(read_metrics(first)[-1]["train_loss"],
                            read_metrics(self.out)[-1]["train_loss"])

    def test_dropout_is_seeded(self):
        dropped = self.train_twice("--dropout", 0.3)
        self.succeed(*self.flags(), "-o", self.out)
        self.assertNotEqual(read_metrics(dropped)[-1]["train_loss"],
                            read_metrics(self.out)[-1]["train_loss"])

    def test_dropout_differs_from_epoch_to_epoch(self):
        """One image, and weights that never move: a loss is another only by what is dropped."""
        self.succeed(*self.flags("--dropout", 0.5, "--lr", 0, "--no-augment", train=1, batch=1,
                                 epochs=3), "-o", self.out)
        self.assertEqual(len({line["train_loss"] for line in read_metrics(self.out)}), 3)

    def test_two_threads(self):
        self.train_twice("--dropout", 0.3, threads=2)

    def test_validation_split_and_partial_batch(self):
        self.train_twice("--val-split", 0.25, "--keep-last-batch", batch=8)


class RandomMoments(harness.SystemTest):
    """Runs that are ended from outside, at moments that a seed draws."""

    def setUp(self):
        super().setUp()
        self.rng = random.Random(f"{type(self).__name__} {self._testMethodName}")

    def reference(self, flags):
        """The run that nobody interrupts. Learns how long the program takes to start, and to train
        an epoch, on this machine now."""
        run = self.dir / "reference"
        begin = time.monotonic()
        self.succeed(*flags, "-o", run)
        total = time.monotonic() - begin
        training = sum(line["seconds"] for line in read_metrics(run))
        self.epoch_time = training / len(read_metrics(run))
        self.start_time = total - training
        return run

    def interrupt(self, number, delay, *args, after=None):
        """Starts the program and sends it a signal after `delay` seconds; with `after`, these
        begin when the program has written that file."""
        before = inode(after)
        environment = dict(os.environ)
        if number == signal.SIGKILL:  # or LeakSanitizer, killed at the program's end, complains
            environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        process = subprocess.Popen(self.command(*args), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, cwd=self.dir,
                                   env=environment)
        while after and process.poll() is None and inode(after) == before:
            time.sleep(0.001)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        out, err = process.communicate(timeout=harness.TIME_LIMIT)
        self.pid = process.pid
        return harness.Result(process.returncode, out, err)


class TestStop(RandomMoments):
    """SIGINT and SIGTERM: the program saves, says how to go on, and exits with 128 + the signal."""

    def stop_once(self, flags, run):
        """Starts or resumes a run and stops it. Returns where: a name for the kind of moment."""
        checkpoint = run / CHECKPOINT
        number = self.rng.choice([signal.SIGINT, signal.SIGTERM])
        begun = checkpoint.exists()
        delay = self.rng.uniform(0, 1.5 if begun else 0.7) * self.epoch_time
        result = self.interrupt(number, delay, *(["--resume"] if begun else flags), "-o", run,
                                after=checkpoint)
        if result.status == 0:
            return "finished"
        self.assertEqual(result.status, 128 + number, result)
        self.assertEqual(result.err, "", result)
        stops = [line for line in result.out.splitlines() if line.startswith("stopped")]
        self.assertEqual(len(stops), 1, result)
        self.assertTrue(stops[0].endswith(f"go on with: wrn_train --resume -o {run}"), result)
        self.assertEqual(temporaries(run), [])

        epoch, step = stopped_at(result.out)
        saved = position(checkpoint)
        self.assertEqual((saved["epoch"], saved["step"]), (epoch - 1, step), result)
        if epoch == 1 and step == 0:
            return "before the first step"
        if step == 0 or step == self.steps_of(checkpoint):
            return "between epochs"
        return "in the first epoch" if epoch == 1 else "in a later epoch"

    def steps_of(self, checkpoint):
        return int(read_safetensors(checkpoint)[0]["steps_per_epoch"])

    def stop_often(self, *more, **settings):
        """Runs are stopped again and again until every kind of moment was met twice, and each is
        at its end the run that was never stopped."""
        flags = self.flags(*more, test=50, **settings)
        reference = self.reference(flags)
        met = collections.Counter()

        def enough():
            return all(met[kind] >= 2 for kind in
                       ("in the first epoch", "in a later epoch", "between epochs"))

        for attempt in range(50):
            run = self.dir / f"run{attempt}"
            kind = ""
            while kind != "finished" and not enough():
                kind = self.stop_once(flags, run)
                met[kind] += 1
            self.succeed("--resume", "-o", run)
            self.assert_same_run(run, reference)
            if enough():
                break
        else:
            self.fail(f"the moments met are {met}")

    def test_plain(self):
        self.stop_often(epochs=5)

    def test_dropout_validation_partial_batch_and_rare_saves(self):
        self.stop_often("--dropout", 0.3, "--val-split", 0.25, "--keep-last-batch",
                        "--save-every", 3, epochs=7, batch=8)

    def test_two_threads(self):
        self.stop_often("--dropout", 0.2, epochs=4, threads=2)

    def test_signal_before_training(self):
        """While the program loads its libraries, reads the data, records: it ends cleanly."""
        reference = self.reference(self.flags())
        for attempt in range(12):
            run = self.dir / f"run{attempt}"
            number = self.rng.choice([signal.SIGINT, signal.SIGTERM])
            delay = self.start_time * attempt / 12
            result = self.interrupt(number, delay, *self.flags(), "-o", run)
            self.assertIn(result.status, (0, -number, 128 + number), result)
            self.assertEqual(result.err, "", result)
            if (run / CHECKPOINT).exists():
                if result.status != 0:
                    self.succeed("--resume", "-o", run)
                self.assert_same_run(run, reference)

    def start_slowly(self, run):
        """A process that has begun to heed signals, and takes long to read data and begin."""
        stale = run / ".config.json.tmp.999999999.0"  # gone as soon as it does
        stale.write_text("of no living process")
        flags = [*self.flags(), "--overwrite"]
        flags[flags.index("wrn-10-1")] = "wrn-40-4"
        process = subprocess.Popen(self.command(*flags, "-o", run), cwd=self.dir,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and stale.exists():
            pass
        return process

    def test_second_signal(self):
        """It ends the program at once, whatever that is at."""
        self.out.mkdir()
        for _ in range(20):
            process = self.start_slowly(self.out)
            process.send_signal(signal.SIGINT)
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status").read_text()
                caught = re.search(r"^SigCgt:\s*(\w+)", status, re.M)
                if not caught or not int(caught[1], 16) >> (signal.SIGINT - 1) & 1:
                    break  # the first one has come
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=harness.TIME_LIMIT)
            if process.returncode == -signal.SIGINT:
                return
            self.assertEqual(process.returncode, 128 + signal.SIGINT)  # too late: the first has ended it
        self.fail("the second signal never ended it")

    def test_signal_before_an_overwrite(self):
        """While the program reads the data: the run that would be replaced stays whole."""
        run = self.reference(self.flags())
        before = self.snapshot(run)
        process = self.start_slowly(run)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.communicate(timeout=harness.TIME_LIMIT)[1], "")
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.assert_untouched(run, before)

    def test_signal_while_testing_only(self):
        reference = self.reference(self.flags())
        before = self.snapshot(reference)
        for _ in range(6):
            result = self.interrupt(signal.SIGTERM, self.rng.uniform(0, self.start_time),
                                    "--resume", "--test-only", "-o", reference)
            self.assertIn(result.status, (0, -signal.SIGTERM, 128 + signal.SIGTERM), result)
            self.assertEqual(result.err, "", result)
        self.assert_untouched(reference, before)


class TestOtherRuns(harness.SystemTest):
    """A run's files are not lost to another run, nor to a second process."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls.case_of_class()
        cls.finished, cls.begun = cls.root / "finished", cls.root / "begun"
        case.succeed(*case.flags(epochs=1), "-o", cls.finished)
        case.fail_with(NOT_FINITE, *case.flags("--lr-drops", 1, "--lr-drop-factor", 1e30),
                       "-o", cls.begun)  # a way to end after an epoch

    def refuse(self, *args, says):
        before = self.snapshot(self.out)
        self.fail_with(USAGE, *args, "-o", self.out, says=says)
        self.assert_untouched(self.out, before)

    def test_resumed_into_the_directory_of_another(self):
        for run, other in [(self.begun, self.finished), (self.finished, self.begun)]:
            self.out = other
            self.refuse("--resume", run / CHECKPOINT, says=[f"{other} holds another run", "-o"])
        link = self.dir / "link"  # another name of the same directory
        link.symlink_to(self.begun)
        self.fail_with(NOT_FINITE, "--resume", self.begun / CHECKPOINT, "-o", link)

    def test_a_checkpoint_of_another_run_beside(self):
        """As one that was copied there under a name that no run writes."""
        shutil.copytree(self.begun, self.out)
        beside = self.out / "beside.safetensors"
        shutil.copy(self.finished / CHECKPOINT, beside)
        self.refuse("--resume", beside, says=[f"{beside} has other epochs behind it than", "-o"])
        (self.out / "predictions.safetensors").unlink()
        self.refuse("--test-only", "--resume", beside, says=beside)
        self.succeed("--test-only", "--resume", beside)
        shutil.copy(self.out / CHECKPOINT, beside)
        self.fail_with(NOT_FINITE, "--resume", beside, "-o", self.out)

    def test_a_checkpoint_beside_what_is_left_of_another_run(self):
        shutil.copytree(self.finished, self.out)
        (self.out / CHECKPOINT).unlink()
        beside = self.out / "beside.safetensors"
        shutil.copy(self.begun / CHECKPOINT, beside)
        self.refuse("--resume", beside, says=[beside, "another run", "another -o"])
        self.fail_with(NOT_FINITE, "--resume", beside, "-o", self.dir / "new")

    def test_curves_of_a_finished_run(self):
        """It writes none, and says so."""
        result = self.run_program("--resume", "-o", self.finished, "--tensorboard")
        self.assertEqual(result.status, 0, result)
        self.assertRegex(result.err, r"\Awrn_train: warning: --tensorboard: [^\n]*finished[^\n]*\n\Z")

    def test_finished_is_said_of_the_file(self):
        out = self.succeed("--resume", self.finished / CHECKPOINT, "-o", self.out, "--quiet").out
        self.assertEqual(out,
                         f"{self.finished / CHECKPOINT}: the run is finished, 1 of 1 epochs\n")
        self.assertFalse(self.out.exists())

    def test_no_predictions_of_another(self):
        shutil.copytree(self.finished, self.out)
        predictions = self.out / "predictions.safetensors"
        predictions.unlink()
        self.refuse("--test-only", "--resume", self.begun / CHECKPOINT, says=self.out)
        self.refuse("--test-only", "--import-weights", self.begun / CHECKPOINT, "--overwrite",
                    *self.flags(), says=self.out)
        self.succeed("--test-only", "--resume", self.out / "best.safetensors", "-o", self.out)
        self.assertEqual(predictions.read_bytes(),
                         (self.finished / "predictions.safetensors").read_bytes())
        alone = self.dir / "alone"
        test = ["--test-only", "--resume", self.begun / CHECKPOINT, "-o", alone]
        for batch in (10, 7):  # the second time they are there
            self.succeed(*test, "-b", batch)
        self.assertEqual([path.name for path in alone.iterdir()], [predictions.name])
        # Of other images, or another network, they stay too, and that is said.
        self.warn_of_predictions(alone, *test, "--limit-test", 10)
        blob = bytearray((alone / predictions.name).read_bytes())
        (length,) = struct.unpack_from("<Q", blob)
        first, _ = json.loads(blob[8:8 + length])["predicted"]["data_offsets"]
        blob[8 + length + first] ^= 1
        (alone / predictions.name).write_bytes(blob)
        self.warn_of_predictions(alone, *test)

    def warn_of_predictions(self, run, *args):
        before = self.snapshot(run)
        result = self.run_program(*args)
        self.assertEqual(result.status, 0, result)
        self.assertRegex(result.err, rf"\Awrn_train: warning: {run}/predictions.safetensors holds other "
                                     r"predictions [^\n]* another -o [^\n]*\n\Z")
        self.assert_untouched(run, before)

    def test_two_processes(self):
        flags = self.flags(epochs=1000)
        first = subprocess.Popen(self.command(*flags, "-o", self.out), stdout=subprocess.DEVNULL,
                                 cwd=self.dir)
        self.addCleanup(first.kill)
        while not (self.out / "metrics.jsonl").exists():
            self.assertIsNone(first.poll())
            time.sleep(0.005)
        first.send_signal(signal.SIGSTOP)
        (self.out / ".config.json.tmp.999999999.0").write_text("of no living process")
        before = self.snapshot(self.out)
        for args in (flags, [*flags, "--overwrite"], ["--resume"]):
            self.fail_with(RUNTIME, *args, "-o", self.out, says=["another wrn_train", self.out])
        self.assert_untouched(self.out, before)
        first.send_signal(signal.SIGTERM)
        first.send_signal(signal.SIGCONT)
        self.assertEqual(first.wait(harness.TIME_LIMIT), 128 + signal.SIGTERM)
        self.succeed(*self.flags(epochs=1), "--overwrite", "-o", self.out)
        self.assertEqual(temporaries(self.out), [])


class TestGoingBack(harness.SystemTest):
    """--resume RUN/best.safetensors, of an epoch that is not the last."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls.case_of_class()
        for seed in range(1, 30):
            cls.reference = cls.root / f"seed{seed}"
            case.succeed(*case.flags("--seed", seed, epochs=3), "-o", cls.reference)
            cls.best = position(cls.reference / "best.safetensors")["epoch"]
            if cls.best < 3:
                return

    def setUp(self):
        super().setUp()
        shutil.copytree(self.reference, self.out)

    def test_not_where_the_run_is_further_on(self):
        before = self.snapshot(self.out)
        self.fail_with(USAGE, "--resume", self.out / "best.safetensors",
                       says=[self.out / CHECKPOINT, "further on", "another -o"])
        self.assert_untouched(self.out, before)

    def test_in_another_directory(self):
        """What is said there of the best is of the file that is there."""
        new = self.dir / "new"
        out = self.succeed("--resume", self.out / "best.safetensors", "-o", new).out
        self.assertEqual(out.count("\nepoch "), 3 - self.best, out)
        self.assertEqual(read_safetensors(new / CHECKPOINT)[1],
                         read_safetensors(self.reference / CHECKPOINT)[1])
        epoch = position(new / "best.safetensors")["epoch"]
        self.assertGreater(epoch, self.best)
        error = read_metrics(new)[epoch - 1]["test_error"]
        self.assertIn(f"best.safetensors: {error:.2f}% on the test images, epoch {epoch})", out)

    def test_where_the_last_checkpoint_is_damaged(self):
        (self.out / CHECKPOINT).write_bytes(b"")
        self.dir = self.out  # the directory of a FILE without one is the current one
        self.succeed("--resume", "best.safetensors")
        self.assert_same_run(self.out, self.reference)

    def test_stopped_at_once(self):
        """It has left no later line in metrics.jsonl."""
        (self.out / CHECKPOINT).unlink()
        process = subprocess.Popen(self.command("--resume", self.out / "best.safetensors"),
                                   stdout=subprocess.DEVNULL)
        while process.poll() is None and not (self.out / CHECKPOINT).exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        process.wait(harness.TIME_LIMIT)
        self.assertEqual(len(read_metrics(self.out)), position(self.out / CHECKPOINT)["epoch"])
        self.succeed("--resume", "-o", self.out)
        self.assert_same_run(self.out, self.reference)


class TestKill(RandomMoments):
    """kill -9: what is on the disk is always a run that can go on, or none."""

    KILLS = 50

    def check_after_kill(self, run, inode_before, kill):
        checkpoint = run / CHECKPOINT
        if not checkpoint.exists():
            return
        read_safetensors(checkpoint)
        if (run / "best.safetensors").exists():
            read_safetensors(run / "best.safetensors")
        if inode(checkpoint) != inode_before:  # it came as far as saving
            stale = [path for path in temporaries(run) if f".tmp.{self.pid}." not in path.name]
            self.assertEqual(stale, [], "temporaries of a process killed earlier")
        if kill % 5 == 0:
            self.succeed("--test-only", "--resume", checkpoint)

    def test_killed_at_random_moments(self):
        flags = self.flags(epochs=10, train=20, test=10)
        reference = self.reference(flags)
        kills = finished = 0
        while kills < self.KILLS or finished == 0:
            run = self.dir / f"run{finished}"
            checkpoint = run / CHECKPOINT
            resume = checkpoint.exists()
            before = inode(checkpoint)
            delay = self.rng.uniform(0, self.start_time + 4 * self.epoch_time)
            if kills >= self.KILLS:
                delay = harness.TIME_LIMIT
            result = self.interrupt(signal.SIGKILL, delay, *(["--resume"] if resume else flags),
                                    "-o", run)
            self.assertEqual(result.err, "", result)
            if result.status == 0:
                self.assert_same_run(run, reference)
                finished += 1
                continue
            self.assertEqual(result.status, -signal.SIGKILL, result)
            kills += 1
            if run.exists():
                self.check_after_kill(run, before, kills)

    def test_killed_while_overwriting(self):
        """A run is there at every moment: the old one, or the new one from its first step on."""
        self.succeed(*self.flags("--seed", 2), "-o", self.out)
        reference = self.reference(self.flags())
        for _ in range(10):
            delay = self.rng.uniform(0.3, 1.2) * self.start_time
            self.interrupt(signal.SIGKILL, delay, *self.flags(), "--overwrite", "-o", self.out)
            read_safetensors(self.out / CHECKPOINT)
        self.succeed("--resume", "-o", self.out)
        seed = json.loads(read_safetensors(self.out / CHECKPOINT)[0]["settings"])["seed"]
        if seed == 1:  # else the kills all came before the overwriting
            self.assert_same_run(self.out, reference)


if __name__ == "__main__":
    harness.main()
