"""The whole program on --device cuda: a GPU, or in a build for tests its emulation.

A network of three convolutions and a low learning rate keep the emulation quick, and rounding from
growing into another result: a run is then the same on the CPU but for its last digits.
"""
import json
import os
import signal
import subprocess
import time
import unittest

import harness
from harness import CHECKPOINT, read_metrics, read_safetensors

ENVIRONMENT = os.environ | {"WRN_SIMT_DEVICES": "1"}


class CudaTest(harness.SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        probe = subprocess.run([harness.program_path, "--device", "cuda", "--data-path", "nowhere",
                                "--limit-test", "1"], capture_output=True, text=True, cwd=cls.root,
                               env=ENVIRONMENT, timeout=harness.TIME_LIMIT)
        if "nowhere" not in probe.stderr:  # it came as far as the data
            raise unittest.SkipTest(probe.stderr.strip())

    def flags(self, *more, device="cuda", epochs=2, train=8, test=4, batch=4, lr=0.01,
              precision="fp32"):
        return ["--dataset", "cifar10", "--data-path", self.data, "--model", "wrn-7-1-l1",
                "--lr", lr, "--batch-size", batch, "--threads", 1, "--epochs", epochs,
                "--limit-train", train, "--limit-test", test, "--device", device,
                *(["--precision", precision] if precision else []), *more]

    def run_program(self, *args, env=ENVIRONMENT):
        return super().run_program(*args, env=env)

    def assert_close_runs(self, ours, reference, tolerance=1e-3):
        lines, expected = read_metrics(ours), read_metrics(reference)
        self.assertEqual(len(lines), len(expected))
        for line, other in zip(lines, expected):
            for key in ("train_loss", "test_loss"):
                self.assertLess(abs(line[key] / other[key] - 1), tolerance, (key, line, other))

    def stop_after_first_epoch(self, *args):
        """Runs until a checkpoint follows the first one, then sends SIGINT."""
        process = subprocess.Popen(self.command(*args), stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.PIPE, cwd=self.dir, env=ENVIRONMENT)
        while process.poll() is None and not (self.out / "best.safetensors").exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=harness.TIME_LIMIT)
        self.assertEqual(process.returncode, 128 + signal.SIGINT, out + err)


class TestCudaRuns(CudaTest):
    def test_ten_epochs_come_to_the_same_losses_as_on_the_cpu(self):
        for device in ("cpu", "cuda"):
            self.succeed(*self.flags(device=device, epochs=10), "-o", self.dir / device)
        self.assert_close_runs(self.dir / "cuda", self.dir / "cpu")
        config = json.loads((self.dir / "cuda" / "config.json").read_text())
        self.assertEqual(config["device"], "cuda")
        self.assertIn("CUDA runtime", config["versions"]["library"])

    def test_one_seed_gives_the_same_bits_twice(self):
        for run in ("one", "two"):
            self.succeed(*self.flags("--dropout", 0.3, "--keep-last-batch", "--val-split", 0.25,
                                     train=12),
                         "-o", self.dir / run)
        self.assert_same_run(self.dir / "one", self.dir / "two")

    def test_ranges_for_profilers_change_nothing(self):
        for run, more in (("one", []), ("two", ["--nvtx"])):
            self.succeed(*self.flags(*more), "-o", self.dir / run)
        self.assert_same_run(self.dir / "one", self.dir / "two")


class TestCudaResume(CudaTest):
    def test_a_stopped_run_goes_on_to_the_same_bits(self):
        self.succeed(*self.flags(epochs=6), "-o", self.dir / "reference")
        self.stop_after_first_epoch(*self.flags(epochs=6), "-o", self.out)
        self.succeed("--resume", "-o", self.out)
        self.assert_same_run(self.out, self.dir / "reference")

    def test_from_the_cpu_to_cuda_and_back(self):
        self.succeed(*self.flags(device="cpu", epochs=12), "-o", self.dir / "reference")
        for begin, then in (("cuda", "cpu"), ("cpu", "cuda")):
            self.out = self.dir / begin
            self.stop_after_first_epoch(*self.flags(device=begin, epochs=12), "-o", self.out)
            result = self.run_program("--resume", "-o", self.out, "--device", then)
            self.assertEqual(result.status, 0, result)
            self.assertEqual(result.err, f"wrn_train: warning: resuming on {then} in fp32 a run begun "
                                         f"on {begin} in fp32: the results will differ\n")
            self.assert_close_runs(self.out, self.dir / "reference")
            settings = json.loads(read_safetensors(self.out / CHECKPOINT)[0]["settings"])
            self.assertEqual(settings["device"], then)


class TestPrecision(CudaTest):
    def config(self):
        return json.loads((self.out / "config.json").read_text())

    def settings(self):
        return json.loads(read_safetensors(self.out / CHECKPOINT)[0]["settings"])

    def test_bf16_is_the_default_on_cuda_and_near_the_cpu(self):
        self.succeed(*self.flags(precision=None), "-o", self.out)
        self.assertEqual(self.config()["precision"], "bf16")
        self.assertEqual(self.settings()["precision"], "bf16")
        self.succeed(*self.flags(device="cpu", precision=None), "-o", self.dir / "cpu")
        self.assert_close_runs(self.out, self.dir / "cpu", tolerance=1e-2)
        ours, theirs = (read_safetensors(run / CHECKPOINT)[1] for run in (self.out, self.dir / "cpu"))
        self.assertEqual({name: entry[:2] for name, entry in ours.items()},
                         {name: entry[:2] for name, entry in theirs.items()})  # the fp32 masters

    def test_tf32(self):
        self.succeed(*self.flags(precision="tf32"), "-o", self.out)
        self.assertEqual(self.config()["precision"], "tf32")
        self.succeed(*self.flags(device="cpu"), "-o", self.dir / "cpu")
        self.assert_close_runs(self.out, self.dir / "cpu", tolerance=2e-3)

    def test_a_stopped_run_goes_on_in_its_precision_to_the_same_bits(self):
        self.succeed(*self.flags(epochs=3, precision="bf16"), "-o", self.dir / "reference")
        self.stop_after_first_epoch(*self.flags(epochs=3, precision="bf16"), "-o", self.out)
        self.succeed("--resume", "-o", self.out)
        self.assert_same_run(self.out, self.dir / "reference")

    def test_another_precision_is_taken_with_a_warning(self):
        for begin, then, flag in (("bf16", "tf32", ["--precision", "tf32"]),
                                  ("fp32", "bf16", ["--precision", "bf16"]),
                                  ("bf16", "fp32", ["--device", "cpu"]),
                                  ("bf16", "fp32", ["--device", "cpu", "--precision", "auto"])):
            self.out = self.dir / "-".join([begin, then, *flag])
            self.stop_after_first_epoch(*self.flags(epochs=3, precision=begin), "-o", self.out)
            result = self.run_program("--resume", "-o", self.out, *flag)
            self.assertEqual(result.status, 0, result)
            device = "cpu" if "cpu" in flag else "cuda"
            self.assertEqual(result.err, f"wrn_train: warning: resuming on {device} in {then} a run "
                                         f"begun on cuda in {begin}: the results will differ\n")
            self.assertEqual(self.settings()["precision"], then)
            self.assertEqual(self.config()["precision"], then)

    def test_without_what_is_new_on_hopper(self):
        """With and without the overlap of kernels: the same bits; by v4: nearly."""
        runs = {}
        for without in ("", "overlap", "hopper"):
            runs[without] = self.dir / f"without-{without}"
            self.run_program(*self.flags(precision="bf16"), "-o", runs[without],
                             env=ENVIRONMENT | {"WRN_WITHOUT": without})
        self.assert_same_run(runs[""], runs["overlap"])
        self.assert_close_runs(runs["hopper"], runs[""], tolerance=1e-2)
        self.fail_with(harness.RUNTIME, *self.flags(), "-o", self.out,
                       env=ENVIRONMENT | {"WRN_WITHOUT": "v5"}, says="WRN_WITHOUT=v5")

    def test_evaluation_is_in_the_same_precision(self):
        self.succeed(*self.flags(precision="bf16", epochs=1), "-o", self.out)
        loss = read_metrics(self.out)[-1]["test_loss"]
        result = self.succeed("--test-only", "--resume", "-o", self.out)
        self.assertIn(f"loss {loss:.4f}", result.out)

    def test_a_loss_that_is_not_finite_keeps_the_checkpoint(self):
        self.fail_with(harness.NOT_FINITE, *self.flags(lr=1e30, precision="bf16"), "-o", self.out,
                       says="not finite")
        self.succeed("--test-only", "--resume", "-o", self.out)


class TestCudaErrors(CudaTest):
    def setUp(self):
        super().setUp()
        config = self.run_program(*self.flags(epochs=1), "-o", self.dir / "probe")
        self.assertEqual(config.status, 0, config)
        name = json.loads((self.dir / "probe/config.json").read_text())["device_name"]
        if not name.startswith("emulated"):
            self.skipTest("only the emulation can lack a GPU at will")

    def test_gpus_that_cannot_be_used(self):
        for change, says in (({"WRN_SIMT_DEVICES": "0"}, "no CUDA GPU was found"),
                             ({"WRN_SIMT_DRIVER": "old"}, "update the driver"),
                             ({"WRN_SIMT_ARCH": "unsupported"}, "has no code for")):
            environment = ENVIRONMENT | change
            self.fail_with(harness.RUNTIME, *self.flags(), "-o", self.dir / "none", env=environment,
                           says=[says, "; --device cpu"])
            result = self.run_program(*self.flags(device="auto"), "-o", self.out, "--overwrite",
                                      env=environment)
            self.assertEqual(result.status, 0, result)
            # Where there is none, nobody misses it.
            missed = "" if says == "no CUDA GPU was found" else \
                rf"wrn_train: warning: the CPU computes: [^\n]*{says}[^\n]*\n"
            self.assertRegex(result.err, rf"\A{missed}\Z")
            self.assertEqual(json.loads((self.out / "config.json").read_text())["device"], "cpu")

    def test_too_little_memory_says_which_batch_fits(self):
        environment = ENVIRONMENT | {"WRN_SIMT_MEMORY": str(24 << 20)}
        result = self.fail_with(harness.OUT_OF_MEMORY, *self.flags(batch=64, train=100), "-o",
                                self.out, env=environment,
                                says=["out of memory", "a batch of 64 needs", "fits"])
        batch = int(result.err.split("--batch-size ")[1].split()[0])
        self.assertLess(batch, 64)
        self.succeed(*self.flags(batch=batch, train=batch, epochs=1), "-o", self.out,
                     env=environment)
        self.fail_with(harness.OUT_OF_MEMORY, *self.flags(), "-o", self.dir / "none",
                       env=ENVIRONMENT | {"WRN_SIMT_MEMORY": str(1 << 20)},
                       says=["out of", "memory", "MiB are free"])

    def test_divergence_keeps_the_last_checkpoint(self):
        self.fail_with(harness.NOT_FINITE, *self.flags(lr=1e30), "-o", self.out, says="not finite")
        self.assertTrue((self.out / CHECKPOINT).exists())


if __name__ == "__main__":
    harness.main()
