"""The paper's experiments by name: recipes, SVHN, and whitened images."""
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import harness
from harness import CHECKPOINT, RUNTIME, USAGE, read_metrics, read_safetensors

SVHN = Path(__file__).resolve().parent.parent / "files" / "svhn"


def floats(data):
    return struct.unpack(f"<{len(data) // 4}f", data)


class TestRecipes(harness.SystemTest):
    def config(self, *flags):
        """What config.json says of a run of these flags and one step an epoch, on either data."""
        self.succeed(*flags, "--model", "wrn-7-1-l1", "--device", "cpu", "--threads", 1,
                     "--limit-train", 4, "--limit-test", 2, "--save-every", 100, "-o", self.out,
                     "--overwrite")
        config = json.loads((self.out / "config.json").read_text())
        return config | config["training"]

    def test_paper_cifar(self):
        for flags, dropout in [((), 0), (("--recipe", "paper-cifar"), 0),
                               (("--recipe", "paper-cifar-dropout"), 0.3)]:
            config = self.config(*flags, "--data-path", self.data, "--batch-size", 4)
            self.assertEqual(config["recipe"], flags[1] if flags else "paper-cifar")
            self.assertEqual(
                {key: config[key] for key in (
                    "dropout", "epochs", "lr", "momentum", "weight_decay", "lr_drop_factor",
                    "lr_drops", "keep_momentum", "no_augment", "keep_last_batch", "preprocess",
                    "gamma_init")},
                {"dropout": dropout, "epochs": 200, "lr": 0.1, "momentum": 0.9,
                 "weight_decay": 0.0005, "lr_drop_factor": 0.2, "lr_drops": [60, 120, 160],
                 "keep_momentum": False, "no_augment": False, "keep_last_batch": False,
                 "preprocess": "meanstd", "gamma_init": "one"})
            self.assertEqual(config["dataset"]["name"], "cifar10")

    def test_no_drops(self):
        config = self.config("--data-path", self.data, "--batch-size", 4, "--epochs", 3,
                             "--lr-drops", "none")
        self.assertEqual(config["lr_drops"], [])

    def test_a_data_set_has_its_recipe(self):
        config = self.config("--dataset", "svhn", "--data-path", SVHN, "--batch-size", 4,
                             "--epochs", 2)
        self.assertEqual((config["recipe"], config["preprocess"], config["lr"]),
                         ("paper-svhn", "scale", 0.01))
        config = self.config("--dataset", "svhn", "--recipe", "paper-cifar", "--data-path", SVHN,
                             "--batch-size", 4, "--epochs", 2)
        self.assertEqual((config["recipe"], config["preprocess"], config["lr"]),
                         ("paper-cifar", "meanstd", 0.1))

    def test_paper_svhn(self):
        config = self.config("--recipe", "paper-svhn", "--data-path", SVHN, "--batch-size", 4)
        self.assertEqual(
            {key: config[key] for key in (
                "dropout", "epochs", "lr", "lr_drop_factor", "lr_drops", "no_augment",
                "preprocess", "svhn_extra")},
            {"dropout": 0.4, "epochs": 160, "lr": 0.01, "lr_drop_factor": 0.1,
             "lr_drops": [80, 120], "no_augment": True, "preprocess": "scale",
             "svhn_extra": "auto"})
        self.assertEqual((config["dataset"]["mean"], config["dataset"]["std"]),
                         ([0, 0, 0], [255, 255, 255]))
        rates = [line["lr"] for line in read_metrics(self.out)]
        self.assertEqual(len(rates), 160)
        for epoch, rate in [(79, 0.01), (80, 0.001), (119, 0.001), (120, 0.0001)]:
            self.assertAlmostEqual(rates[epoch], rate)

    def test_flags_come_before_the_recipe(self):
        config = self.config("--recipe", "paper-svhn", "--dataset", "cifar10", "--data-path",
                             self.data, "--no-augment=false", "--dropout", 0, "--epochs", 8,
                             "--lr", 0.05, "--batch-size", 4)
        self.assertEqual(
            {key: config[key] for key in ("dropout", "epochs", "lr", "lr_drops", "no_augment",
                                          "preprocess")},
            {"dropout": 0, "epochs": 8, "lr": 0.05, "lr_drops": [4, 6], "no_augment": False,
             "preprocess": "scale"})
        self.assertEqual(config["dataset"]["name"], "cifar10")

    def test_no_such_recipe(self):
        self.fail_with(USAGE, "--recipe", "paper-imagenet",
                       says=["paper-imagenet", "paper-cifar, paper-cifar-dropout, paper-svhn"])

    def test_momentum_at_a_drop(self):
        """At a rate of 0 from the drop on, what momentum is left is all that moves the weights."""
        def weights(*more):
            self.succeed(*self.flags("--lr-drops", 1, "--lr-drop-factor", 0, *more, batch=40),
                         "-o", self.out, "--overwrite")
            return read_safetensors(self.out / CHECKPOINT)[1]

        cleared, kept = weights(), weights("--keep-momentum")
        name = "optimizer.conv1.weight"
        self.assertNotEqual(cleared[name], kept[name])
        # One gradient, and one and nine tenths of about as much.
        size = [sum(v * v for v in floats(run[name][2])) for run in (cleared, kept)]
        self.assertLess(size[0], size[1])

    def test_uniform_gamma(self):
        gammas = {}
        for how in ("one", "uniform"):
            run = self.dir / how
            self.succeed(*self.flags("--gamma-init", how, "--lr", 0, epochs=1), "-o", run)
            tensors = read_safetensors(run / CHECKPOINT)[1]
            gammas[how] = [value for name, (_, shape, data) in tensors.items()
                           if name.endswith(".weight") and len(shape) == 1
                           and not name.startswith("optimizer.") for value in floats(data)]
        self.assertEqual(set(gammas["one"]), {1.0})
        self.assertEqual(len(gammas["uniform"]), len(gammas["one"]))
        self.assertTrue(all(0 <= gamma <= 1 for gamma in gammas["uniform"]))
        self.assertAlmostEqual(sum(gammas["uniform"]) / len(gammas["uniform"]), 0.5, delta=0.1)


class TestSvhn(harness.SystemTest):
    def svhn_flags(self, path, *more):
        return ["--recipe", "paper-svhn", "--data-path", path, "--model", "wrn-7-1-l1", "--epochs",
                2, "--batch-size", 4, "--device", "cpu", "--threads", 1, "-o", self.out, *more]

    def test_trains_on_extra_where_it_is(self):
        for more, images in [((), 17), (("--svhn-extra", "no"), 12),
                             (("--svhn-extra", "yes"), 17)]:
            self.succeed(*self.svhn_flags(SVHN, *more), "--overwrite")
            config = json.loads((self.out / "config.json").read_text())["dataset"]
            self.assertEqual((config["train_images"], config["test_images"]), (images, 3))
        self.succeed("--test-only", "--resume", "-o", self.out)

    def test_without_extra(self):
        path = self.dir / "svhn"
        path.mkdir()
        for name in ("train_32x32.mat", "test_32x32.mat"):
            shutil.copy(SVHN / name, path)
        self.succeed(*self.svhn_flags(path))
        self.fail_with(RUNTIME, *self.svhn_flags(path, "--svhn-extra", "yes", "--overwrite"),
                       says=[path, "extra_32x32.mat", "get_svhn.sh"])
        # The run that began without it does not go on with it.
        shutil.copy(SVHN / "extra_32x32.mat", path)
        self.fail_with(RUNTIME, "--resume", "-o", self.out, says=[path, "checksum"])

    def test_bad_files(self):
        path = self.dir / "svhn"
        shutil.copytree(SVHN, path)
        train = path / "train_32x32.mat"
        for blob, says in [(train.read_bytes()[:1000], "offset 128"), (b"", "empty"),
                           (b"x" * 1000, "MAT-file"),
                           ((SVHN / "y_has_11.mat").read_bytes(), "label 11"),
                           ((SVHN / "x_is_double.mat").read_bytes(), "uint8")]:
            train.write_bytes(blob)
            self.fail_with(RUNTIME, *self.svhn_flags(path), says=[train, says])
            self.assertFalse(self.out.exists())


class TestWhitening(harness.SystemTest):
    """The whitening is fitted once, in setUpClass: it takes ten seconds and more."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls.case_of_class()
        cls.whole = cls.root / "whole"
        cls.printed = case.succeed(*case.zca_flags(), "-o", cls.whole).out
        caches = list(cls.data.glob("zca-*.safetensors"))
        case.assertEqual(len(caches), 1, caches)
        cls.cache = caches[0]

    def zca_flags(self, *more, **settings):
        return self.flags("--preprocess", "zca", "--dropout", 0.1, *more, epochs=3, **settings)

    def test_checkpoint_and_config_carry_it(self):
        metadata, tensors = read_safetensors(self.whole / CHECKPOINT)
        config = json.loads((self.whole / "config.json").read_text())
        self.assertRegex(metadata["whitening"], r"\A[0-9a-f]{16}\Z")
        self.assertEqual(config["dataset"]["whitening"], metadata["whitening"])
        self.assertEqual(config["training"]["preprocess"], "zca")
        self.assertEqual(tensors["whitening.mean"][1], [3072])
        self.assertEqual(tensors["whitening.matrix"][1], [3072, 3072])
        cached = read_safetensors(self.cache)
        self.assertEqual(cached[0]["whitening"], metadata["whitening"])
        self.assertEqual(cached[1]["whitening.matrix"], tensors["whitening.matrix"])

    def test_used_again_and_not_for_other_images(self):
        written = self.cache.stat().st_mtime_ns
        self.succeed(*self.zca_flags(), "-o", self.out)
        self.assert_same_run(self.out, self.whole)
        self.assertEqual(self.cache.stat().st_mtime_ns, written)

    def test_stopped_run_goes_on_without_the_cache(self):
        """A checkpoint is all that resuming and testing need."""
        flags = self.zca_flags("--lr-drops", 2, "--lr-drop-factor", 1e30)
        self.fail_with(harness.NOT_FINITE, *flags, "-o", self.out)  # a way to end after two epochs
        hidden = self.cache.rename(self.dir / "hidden")
        try:
            tested = self.succeed("--test-only", "--resume", "-o", self.whole, "--quiet").out
            self.fail_with(harness.NOT_FINITE, "--resume", "-o", self.out)
            self.assertEqual(list(self.data.glob("zca-*")), [])
        finally:
            hidden.rename(self.cache)
        self.assertIn(f"test error {read_metrics(self.whole)[-1]['test_error']:.2f}%", tested)

    def test_damaged_cache(self):
        """It is written anew, and the run is the same."""
        self.cache.write_bytes(self.cache.read_bytes()[:10**6])
        result = self.run_program(*self.zca_flags(), "-o", self.out)
        self.assertEqual(result.status, 0, result)
        self.assertRegex(result.err, rf"\Awrn_train: warning: [^\n]*{self.cache}: [^\n]*anew\n\Z")
        self.assert_same_run(self.out, self.whole)

    def test_prediction_whitens_too(self):
        done = subprocess.run(
            [harness.program_path.parent / "wrn_predict", self.whole / CHECKPOINT, "--json",
             "--device", "cpu", "--threads", "1", self.data / "test_batch.bin"],
            capture_output=True, text=True, timeout=harness.TIME_LIMIT)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        answers = [json.loads(line) for line in done.stdout.splitlines()][:20]  # --limit-test 20
        wrong = sum(a["top"][0]["class"] != a["label"] for a in answers)
        self.assertAlmostEqual(100 * wrong / 20, read_metrics(self.whole)[-1]["test_error"])

    def test_checkpoint_with_a_smaller_whitening(self):
        """A mean and a matrix of one value each: well formed, and of no use."""
        header = {"__metadata__": read_safetensors(self.whole / CHECKPOINT)[0] | {
                      "whitening": "a8c7f832281a39c5"},  # FNV-1a of eight zero bytes
                  "whitening.mean": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                  "whitening.matrix": {"dtype": "F32", "shape": [1, 1], "data_offsets": [4, 8]}}
        text = json.dumps(header).encode()
        self.out.mkdir()
        (self.out / CHECKPOINT).write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
        self.fail_with(RUNTIME, "--resume", "-o", self.out, says=[self.out, "images of 1 values"])

    def test_without_openblas(self):
        self.fail_with(RUNTIME, *self.zca_flags(), "-o", self.out,
                       env=os.environ | {"WRN_OPENBLAS": "/nowhere.so"},
                       says=["zca", "/nowhere.so", "apt install libopenblas"])
        self.fail_with(RUNTIME, *self.zca_flags(), "-o", self.out,
                       env=os.environ | {"WRN_OPENBLAS": "libm.so.6"}, says="libm.so.6 is no OpenBLAS")

    def test_damaged_checkpoint(self):
        blob = bytearray((self.whole / CHECKPOINT).read_bytes())
        blob[-1] ^= 1  # of the last tensor, which is the matrix
        self.out.mkdir()
        (self.out / CHECKPOINT).write_bytes(blob)
        self.fail_with(RUNTIME, "--resume", "-o", self.out,
                       says=[self.out / CHECKPOINT, "whitening", "damaged"])


if __name__ == "__main__":
    harness.main()
