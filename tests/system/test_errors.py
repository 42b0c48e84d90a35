"""What goes wrong: each error is one line with the reason, the right exit status, and no loss."""
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import harness
from harness import (CHECKPOINT, NOT_FINITE, OUT_OF_MEMORY, RUNTIME, USAGE, position, read_metrics,
                     temporaries)

RECORD = 3073  # bytes of an image and its label


class TestOutputDirectory(harness.SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls.case_of_class()
        cls.finished = cls.root / "finished"
        case.succeed(*case.flags(epochs=3), "-o", cls.finished)

    def setUp(self):
        super().setUp()
        shutil.copytree(self.finished, self.out)

    def refuse(self, status, *args, says):
        """An error that leaves the run as it was."""
        before = self.snapshot(self.out)
        self.fail_with(status, *args, says=says)
        self.assert_untouched(self.out, before)

    def test_not_overwritten_unasked(self):
        self.refuse(USAGE, *self.flags(), "-o", self.out,
                    says=[self.out, "--resume", "--overwrite"])

    def test_overwrite(self):
        (self.out / "notes.txt").write_text("mine")
        self.succeed(*self.flags("--seed", 2), "-o", self.out, "--overwrite")
        self.assertEqual((self.out / "notes.txt").read_text(), "mine")
        (self.out / "notes.txt").unlink()
        self.succeed(*self.flags("--seed", 2), "-o", self.dir / "new")
        self.assert_same_run(self.out, self.dir / "new")

    def test_overwrite_leaves_nothing_of_the_old_run(self):
        """Not even where the new one comes to no file that would replace it."""
        self.fail_with(NOT_FINITE, *self.flags("--lr", 1e30), "-o", self.out, "--overwrite")
        self.assertEqual({path.name for path in self.out.iterdir()},
                         {CHECKPOINT, "config.json", "metrics.jsonl", "report.html"})

    def test_overwrite_excludes_resume(self):
        self.refuse(USAGE, "--resume", "--overwrite", "-o", self.out, says="--overwrite")

    def test_a_directory_of_other_files_is_no_run(self):
        other = self.dir / "other"
        other.mkdir()
        (other / "notes.txt").write_text("mine")
        self.succeed(*self.flags(epochs=1), "-o", other)
        self.assertEqual((other / "notes.txt").read_text(), "mine")

    def test_finished_run(self):
        before = self.snapshot(self.out)
        result = self.succeed("--resume", "-o", self.out, "--quiet")
        self.assertEqual(result.out,
                         f"{self.out / CHECKPOINT}: the run is finished, 3 of 3 epochs\n")
        self.assert_untouched(self.out, before)

    def test_contradictory_settings(self):
        for flag, value in [("--lr", 0.3), ("--epochs", 9), ("--model", "wrn-16-1"),
                            ("--batch-size", 20), ("--seed", 2), ("--dropout", 0.5),
                            ("--lr-drops", "1"), ("--limit-train", 30)]:
            with self.subTest(flag):
                self.refuse(USAGE, "--resume", "-o", self.out, flag, value, says=flag)
        self.refuse(USAGE, "--resume", "-o", self.out, "--no-augment", says="--no-augment")
        # Nor does it in a test what changes no answer.
        expected = f"test error {read_metrics(self.out)[-1]['test_error']:.2f}%"
        tested = self.succeed("--test-only", "--resume", "-o", self.out, "-b", 7)
        self.assertIn(expected, tested.out)
        result = self.succeed("--test-only", "--resume", "-o", self.out, "--limit-test", 10)
        self.assertIn(" 10 test images", result.out)
        self.refuse(USAGE, "--test-only", "--resume", "-o", self.out, "--seed", 2, says="--seed")
        # What says the same as the run, or may change, does not contradict it.
        self.succeed("--resume", "-o", self.out, "--lr", 0.1, "--epochs", 3, "--save-every", 2,
                     "--device", "auto", "--data-path", self.data)

    def test_nothing_to_resume(self):
        empty = self.dir / "empty"
        empty.mkdir()
        self.fail_with(RUNTIME, "--resume", "-o", empty, says=empty / CHECKPOINT)
        self.assertEqual(list(empty.iterdir()), [])
        self.fail_with(RUNTIME, "--resume", "-o", self.dir / "none", says=self.dir / "none")
        self.fail_with(RUNTIME, "--resume", self.dir / "x.safetensors",
                       says=self.dir / "x.safetensors")
        self.fail_with(RUNTIME, "--resume", empty,
                       says=[f"--resume {empty / CHECKPOINT}", f"--resume -o {empty}"])
        self.fail_with(RUNTIME, "--import-weights", self.dir / "x.safetensors",
                       *self.flags(), "-o", empty, says=self.dir / "x.safetensors")

    def test_exported_weights_are_no_checkpoint(self):
        weights = self.dir / "weights.safetensors"
        self.succeed("--resume", "-o", self.out, "--export-weights", weights)
        self.refuse(RUNTIME, "--resume", weights, "-o", self.out, says=weights)

    def test_weights_of_another_model(self):
        command = [flag if flag != "wrn-10-1" else "wrn-16-1" for flag in self.flags()]
        self.fail_with(RUNTIME, *command, "--test-only", "--import-weights",
                       self.out / CHECKPOINT, says=[self.out / CHECKPOINT, "block1.layer.1"])

    def test_other_thread_count_warns(self):
        result = self.run_program("--resume", self.out / "best.safetensors", "-o",
                                  self.dir / "two", "--threads", 2)
        self.assertEqual(result.status, 0, result)
        self.assertRegex(result.err, r"\Awrn_train: warning: [^\n]*2 threads[^\n]*with 1[^\n]*\n\Z")

    def on_one_core(self, *args):
        """The warnings of a program that succeeds there."""
        done = subprocess.run([str(arg) for arg in args], capture_output=True, text=True,
                              cwd=self.dir, timeout=harness.TIME_LIMIT,
                              preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def test_more_threads_than_cores_warn(self):
        """Whether a flag or the checkpoint asks for them."""
        program, new = harness.program_path, self.dir / "new"
        for args in ([program, *self.flags(threads=2, epochs=1), "-o", new],
                     [program, "--test-only", "--resume", "-o", new],
                     [program.parent / "wrn_predict", new / CHECKPOINT, "--device", "cpu",
                      "--threads", 2, self.data / "test_batch.bin"]):
            self.assertEqual(self.on_one_core(*args),
                             f"{Path(args[0]).name}: warning: 2 threads on 1 core keep each other "
                             "waiting: give --threads 1\n")
        self.assertEqual(self.on_one_core(program, *self.flags(epochs=1), "-o", self.dir / "one"), "")

    def test_other_data(self):
        other = self.dir / "other_data"
        harness.write_cifar10(other, seed=2)
        best = self.out / "best.safetensors"
        self.refuse(RUNTIME, "--resume", best, "--data-path", other, says=[other, "checksum"])
        result = self.run_program("--test-only", "--resume", best, "--data-path", other)
        self.assertEqual(result.status, 0, result)
        self.assertRegex(result.err, rf"\Awrn_train: warning: [^\n]*{other}[^\n]*checksum[^\n]*\n\Z")
        (self.dir / "two\nlines").symlink_to(other)
        result = self.run_program("--test-only", "--resume", best, "--data-path", "two\nlines")
        self.assertRegex(result.err, r"\Awrn_train: warning: [^\n]* two lines [^\n]*\n\Z")

    def test_synthetic_data_is_drawn_for_new_runs_only(self):
        """Any other run was begun on data that is somewhere else."""
        flags = ["synthetic" if flag == "cifar10" else flag for flag in self.flags(epochs=1)]
        run = self.dir / "synthetic"
        self.succeed(*flags, "-o", run)
        nowhere = self.dir / "nowhere"
        for args in (["--resume", "-o", run], ["--resume", "-o", run, "--test-only"]):
            self.fail_with(RUNTIME, *args, "--data-path", nowhere, says=[nowhere, "--data-path"])
        flags = [nowhere if flag is self.data else flag for flag in flags]
        self.fail_with(RUNTIME, *flags, "--test-only", "--import-weights", run / CHECKPOINT,
                       says=[nowhere, "--data-path"])
        self.assertFalse(nowhere.exists())

    def test_the_command_to_go_on_can_be_pasted(self):
        for name in ("wrn-10-1-B(3,1)", "it's $HOME"):
            run = self.dir / name
            process = subprocess.Popen(self.command(*self.flags(epochs=1000), "-o", name),
                                       stdout=subprocess.PIPE, text=True, cwd=self.dir)
            while process.poll() is None and not (run / "best.safetensors").exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=harness.TIME_LIMIT)
            (command,) = re.findall(r"go on with: (.*)", out)
            tested = subprocess.run(["bash", "-c", command + " --test-only"], cwd=self.dir,
                                    capture_output=True, text=True, timeout=harness.TIME_LIMIT,
                                    env=os.environ | {
                                        "PATH": f"{harness.program_path.parent}:{os.environ['PATH']}"})
            self.assertEqual((tested.returncode, tested.stderr), (0, ""), command)

    def test_a_path_that_cannot_be_looked_at(self):
        loop = self.dir / "loop"
        loop.symlink_to(loop)
        why = "Too many levels of symbolic links"
        self.fail_with(RUNTIME, "--dataset", "synthetic", "--data-path", loop,
                       says=f"{loop}: cannot be read: {why}")
        (self.out / "predictions.safetensors").unlink()
        (self.out / "predictions.safetensors").symlink_to(loop)
        self.succeed("--test-only", "--resume", "-o", self.out)


    def test_directory_that_cannot_be_made(self):
        file = self.dir / "file"
        file.write_text("in the way")
        for path in (file, file / "below", "/dev/null/run", self.dir / ("x" * 300)):
            with self.subTest(path):
                self.fail_with(RUNTIME, *self.flags(), "-o", path, says=path)
        self.assertEqual(file.read_text(), "in the way")

    def test_a_run_that_does_not_begin_leaves_no_directory(self):
        flags = [*self.flags()[4:], "--data-path", self.dir / "nowhere", "-o"]
        before = sorted(self.dir.iterdir())
        for path in (self.dir / "a", self.dir / "a" / "b" / "c", "a/b/", "./a/../b/c",
                     self.dir / "a" / ("x" * 300)):
            with self.subTest(path):
                self.fail_with(RUNTIME, *flags, path)
                self.assertEqual(sorted(self.dir.iterdir()), before)
        (self.dir / "empty").mkdir()
        (self.dir / "a").mkdir()
        (self.dir / "a" / "mine").write_text("")
        for path in ("empty", "empty/b", "a/b/c"):
            self.fail_with(RUNTIME, *flags, path)
        self.assertEqual(list((self.dir / "empty").iterdir()), [])
        self.assertEqual([path.name for path in (self.dir / "a").iterdir()], ["mine"])


class TestBadData(harness.SystemTest):
    def setUp(self):
        super().setUp()
        self.bad = self.dir / "bad"
        shutil.copytree(self.data, self.bad)
        self.file = self.bad / "data_batch_3.bin"

    def refuse(self, *says):
        flags = [self.bad if flag is self.data else flag for flag in self.flags()]
        self.fail_with(RUNTIME, *flags, "-o", self.out, says=says)
        self.assertFalse(self.out.exists())

    def test_missing_directory(self):
        shutil.rmtree(self.bad)
        self.refuse(self.bad, "no such directory")

    def test_missing_file(self):
        self.file.unlink()
        self.refuse(self.file.name, "data/get_cifar.sh cifar10", "wrn_synthetic")

    def test_file_in_place_of_the_directory(self):
        shutil.rmtree(self.bad)
        self.bad.write_text("")
        self.refuse(self.bad, "not a directory")

    def test_empty(self):
        self.file.write_bytes(b"")
        self.refuse(self.file, "empty")

    def test_truncated(self):
        whole = self.file.read_bytes()
        for size in (1, RECORD - 1, RECORD + 1, len(whole) - 1):
            with self.subTest(size):
                self.file.write_bytes(whole[:size])
                self.refuse(self.file, str(RECORD), f"offset {size // RECORD * RECORD}")

    def test_oversized(self):
        os.truncate(self.file, 10001 * RECORD)  # sparse
        self.refuse(self.file, 10001 * RECORD)
        os.truncate(self.file, 1 << 40)
        self.refuse(self.file, 1 << 40)

    def test_directory_in_place_of_the_file(self):
        self.file.unlink()
        self.file.mkdir()
        self.refuse(self.file, "directory")

    def test_pipe_in_place_of_the_file(self):
        self.file.unlink()
        os.mkfifo(self.file)
        self.refuse(self.file)

    def test_unreadable(self):
        if os.geteuid() == 0:
            # For root nothing is unreadable but what cannot be followed.
            self.file.unlink()
            self.file.symlink_to(self.file)
        else:
            self.file.chmod(0)
        self.refuse(self.file.name)

    def test_label_out_of_range(self):
        blob = bytearray(self.file.read_bytes())
        blob[2 * RECORD] = 10
        self.file.write_bytes(blob)
        self.refuse(self.file, "record 2", f"offset {2 * RECORD}", "label 10")

    def test_cifar100_read_as_cifar10(self):
        shutil.rmtree(self.bad)
        harness.write_cifar100(self.bad)
        self.refuse(self.bad, "data_batch_1.bin")

    def test_fewer_images_than_a_batch(self):
        self.fail_with(RUNTIME, *self.flags(batch=64), "-o", self.out,
                       says=["40 training images", "begun with --batch-size 40", "--keep-last-batch"])
        self.succeed(*self.flags("--keep-last-batch", batch=64, epochs=1), "-o", self.out)


class TestBadFlags(harness.SystemTest):
    def test_usage_errors(self):
        for args, says in [
                (["--wibble"], "--wibble"), (["wibble"], "wibble"), (["--lr"], "--lr"),
                (["--model", "resnet-50"], "resnet-50"),
                (["--model", "wrn-28"], "wrn-28"), (["--model", ""], "model"),
                (["--model", "wrn-27-10"], ["22", "28"]),
                (["--depth", 30, "--widen-factor", 2], ["28", "34"]),
                (["--depth", -10], "-10"), (["--widen-factor", 0], "0"),
                (["--model", "wrn-10-1", "--depth", 10], ["--model", "--depth"]),
                (["--block", "B(3,1)", "--deepening", 2], ["--block", "--deepening"]),
                (["--block", "B(5)"], "B(5)"), (["--block", "B("], "model"),
                (["--resume", "x", "--import-weights", "y"], ["--resume", "--import-weights"]),
                (["--test-only"], "--test-only"),
                (["--dropout", 1], "dropout 1"), (["--dropout", -0.1], "dropout"),
                (["--dropout", "nan"], "dropout"),
                (["--lr", "nan"], "--lr"), (["--lr", -1], "--lr"), (["--lr", "inf"], "--lr"),
                (["--lr", "fast"], "--lr"), (["--momentum", 1], "--momentum"),
                (["--weight-decay", "nan"], "--weight-decay"),
                (["--lr-drop-factor", -1], "--lr-drop-factor"),
                (["--lr-drops", "5,3"], "--lr-drops"), (["--lr-drops", "-1"], "--lr-drops"),
                (["--lr-drops", "3,none"], "none"), (["--lr-drops", "2.5"], "2.5"),
                (["--lr-drops", "2,,3"], "--lr-drops 2,,3: '' is"), (["--lr-drops", ","], "--lr-drops ,"),
                (["--lr-drops", ",2"], "--lr-drops ,2"), (["--lr-drops", "2,"], "--lr-drops 2,"),
                (["--lr-drops", 2, 3], "3"), (["--block", "3,,1"], "B(3,,1)"),
                (["--epochs", 0], "--epochs"), (["--epochs", 1.5], "--epochs"),
                (["--epochs", 10**12], "--epochs"), (["--epochs", "010"], "010"),
                (["--batch-size", 0], "--batch-size"), (["-b", -5], "--batch-size"),
                (["--save-every", 0], "--save-every"), (["--threads", -1], "--threads"),
                (["--seed", -1], "from 0 to 18446744073709551615"), (["--seed", "x"], "--seed"),
                (["--seed", 2**64], str(2**64)), (["--limit-train", 2**63], str(2**63)),
                (["--depth", "016"], "--depth"),
                (["--limit-train", -1], "--limit-train"), (["--limit-test", -1], "--limit-test"),
                (["--val-split", 1], "--val-split"), (["--val-split", "nan"], "--val-split"),
                (["--dataset", "mnist"], "mnist"), (["--device", "tpu"], "tpu"),
                (["--precision", "fp16"], "fp16"), (["--ceilings", 1, 1], "--plan"),
                (["--plan", "--ceilings", 1], "--ceilings"),
                (["--plan", "--ceilings", 0, 1], "--ceilings"),
                (["--plan", "--ceilings", 1, "inf"], "--ceilings"),
                (["--data-path", b"\xff"], ["--data-path", "UTF-8"]),
                (["--plan", "--resume"], ["--plan", "--resume"]),
                (["--plan", "--export-weights", "x"], ["--plan", "--export-weights"]),
                (["--recipe", "mine"], "mine"), (["--preprocess", "pca"], "pca"), (["--gamma-init", "two"], "two"),
                (["--svhn-extra", "perhaps"], "perhaps"),
                (["--epochs", 1, "--epochs", 2], "--epochs"),
                (["--no-augment=maybe"], "--no-augment"),
                (["--quiet\nline"], "--quiet line")]:
            with self.subTest(args):
                result = self.fail_with(USAGE, *args, says=says)
                self.assertLess(len(result.err), 250)
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_empty_values(self):
        """Each would be taken for 0, or for no flag."""
        for flag in ("--dataset", "--data-path", "--svhn-extra", "--preprocess", "--val-split",
                     "--limit-train", "--limit-test", "--model", "--depth", "--widen-factor",
                     "--block", "--deepening", "--dropout", "--recipe", "--epochs", "--batch-size",
                     "--lr", "--lr-drops", "--lr-drop-factor", "--gamma-init", "--momentum",
                     "--weight-decay", "--seed", "--device", "--precision", "--threads",
                     "--output-dir", "-o", "--save-every", "--resume", "--ceilings",
                     "--export-weights", "--import-weights"):
            with self.subTest(flag):
                self.fail_with(USAGE, flag, "", says=f"the value of {flag} is empty")
        for flag in ("--lr", "--resume", "--no-augment"):
            self.fail_with(USAGE, f"{flag}=", says=f"the value of {flag} is empty")
        for program, *args in (("wrn_predict", "x", "--top", ""), ("wrn_predict", "x", ""),
                               ("wrn_report", "x", "-o", ""), ("wrn_synthetic", "x", "--seed", ""),
                               ("wrn_tables", "run", "all", "--runs", "")):
            done = subprocess.run([harness.program_path.parent / program, *args], cwd=self.dir,
                                  capture_output=True, text=True, timeout=harness.TIME_LIMIT)
            self.assertEqual(done.returncode, USAGE)
            self.assertRegex(done.stderr, rf"\A{program}: [^\n]* is empty; see {program} --help\n\Z")
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_usage_errors_seen_with_the_data(self):
        for split in (0.001, 0.999):
            self.fail_with(USAGE, *self.flags("--val-split", split), "-o", self.out, says="none")

    def test_the_cpu_computes_in_fp32_only(self):
        for precision in ("tf32", "bf16"):
            self.fail_with(USAGE, *self.flags("--precision", precision), "-o", self.out,
                           says=[f"--precision {precision}", "fp32 only", "--device"])
        self.assertFalse(self.out.exists())
        for flags in ([], ["--precision", "fp32"]):
            self.succeed(*self.flags(*flags, epochs=1), "-o", self.out, "--overwrite")
            self.assertEqual(json.loads((self.out / "config.json").read_text())["precision"], "fp32")

    def test_the_cpu_has_no_ranges_for_profilers(self):
        self.fail_with(USAGE, *self.flags("--nvtx"), "-o", self.out, says=["--nvtx", "CPU"])
        self.assertFalse(self.out.exists())

    def test_flags_given_true_or_false(self):
        for text, value in [("=false", False), ("=true", True), ("", True)]:
            self.succeed(*self.flags(f"--no-augment{text}", "--keep-last-batch=false", epochs=1),
                         "-o", self.out, "--overwrite")
            training = json.loads((self.out / "config.json").read_text())["training"]
            self.assertEqual((training["no_augment"], training["keep_last_batch"]),
                             (value, False))

    def test_no_cuda(self):
        """Neither in a build without it nor where no GPU is to be seen."""
        self.fail_with(RUNTIME, *self.flags(device="cuda"), "-o", self.out,
                       env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
                       says=["CUDA", "--device cpu"])

    def test_batch_that_does_not_fit(self):
        """Two terabytes are planned and none is taken; the advice is a batch that does fit."""
        flags = [flag if flag != "wrn-10-1" else "wrn-10-10" for flag in
                 self.flags("--keep-last-batch", batch=1 << 20)]
        result = self.fail_with(OUT_OF_MEMORY, *flags, "-o", self.out, says="out of memory")
        match = re.search(r"needs (\S+) MiB, (\S+) MiB are free; a run begun with --batch-size "
                          r"(\d+) fits", result.err)
        self.assertTrue(match, result)
        # What is needed is for evaluation, of which training takes several times as much.
        needed, free, fits = map(float, match.groups())
        self.assertLess(fits * needed / (1 << 20), free / 2)
        self.assertFalse(self.out.exists())

    def test_model_that_does_not_fit(self):
        flags = [flag if flag != "wrn-10-1" else "wrn-1000-1000" for flag in self.flags()]
        self.fail_with(OUT_OF_MEMORY, *flags, "-o", self.out, says="out of memory")

    def test_diverging_learning_rate(self):
        """The last good checkpoint stays, whether a step or the test finds the loss broken."""
        for batch, where in [(10, "in epoch 1, by step"), (40, "after epoch 1")]:
            with self.subTest(where):
                run = self.dir / f"batch{batch}"
                self.fail_with(NOT_FINITE, *self.flags("--lr", 1e30, batch=batch), "-o", run,
                               says=["not finite", where, "1e+30", "--overwrite"])
                self.assertEqual(position(run / CHECKPOINT)["epoch"], 0)
                self.assertEqual(read_metrics(run), [])
                self.succeed("--test-only", "--resume", "-o", run)
                self.assertEqual(temporaries(run), [])

    def test_diverging_later(self):
        """As above, with epochs of a good run before it: a drop that raises the rate."""
        self.fail_with(NOT_FINITE, *self.flags("--lr-drops", 2, "--lr-drop-factor", 1e30,
                                               epochs=4), "-o", self.out, says="epoch 3")
        self.assertEqual(position(self.out / CHECKPOINT)["epoch"], 2)
        self.assertEqual([line["epoch"] for line in read_metrics(self.out)], [1, 2])
        tested = self.succeed("--test-only", "--resume", "-o", self.out, "--quiet").out
        self.assertIn(f"test error {read_metrics(self.out)[-1]['test_error']:.2f}%", tested)


if __name__ == "__main__":
    harness.main()
