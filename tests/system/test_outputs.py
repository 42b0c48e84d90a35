"""What the program prints and writes, and what --export-weights and --import-weights are for."""
import base64
import html.parser
import json
import os
import re
import shutil
import struct

import harness
from harness import CHECKPOINT, RUNTIME, USAGE, position, read_metrics, read_safetensors


def pytorch_names(blocks_a_group=1):
    """The state dict of the common PyTorch port of WRN with two convolutions a block, k = 1."""
    def norm(name):
        return [f"{name}.{part}" for part in
                ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]

    names = ["conv1.weight"]
    for group in (1, 2, 3):
        for block in range(blocks_a_group):
            layer = f"block{group}.layer.{block}"
            names += norm(f"{layer}.bn1") + norm(f"{layer}.bn2")
            names += [f"{layer}.conv1.weight", f"{layer}.conv2.weight"]
            if group > 1 and block == 0:
                names.append(f"{layer}.convShortcut.weight")
    return set(names + norm("bn1") + ["fc.weight", "fc.bias"])


class PageParser(html.parser.HTMLParser):
    """Checks that tags are closed in order, and gathers what a page has."""

    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.references, self.text = [], [], [], ""

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open}"
        self.open.pop()

    def handle_data(self, data):
        self.text += data


class TestPlan(harness.SystemTest):
    """--plan: no data, no training, nothing written; any precision on any machine."""

    def plan(self, *args, **how):
        out = self.succeed("--plan", "--model", "wrn-16-2", "--device", "cpu", *args, **how).out
        self.assertEqual(list(self.dir.iterdir()), [])
        for text in ("block1.layer.1.conv2 wgrad", " E ", "parameters", "kept from the forward"):
            self.assertIn(text, out)
        return out

    def images_per_second(self, *args, **how):
        return float(re.search(r"(\d+) images/s", self.plan(*args, **how))[1])

    def test_plans(self):
        self.assertIn("128 images in bf16", self.plan())
        # An H100's multiprocessors are known, so whole tiles count; of ceilings given they are not.
        ideal = self.images_per_second("--ceilings", 798, 3.0)
        self.assertLess(self.images_per_second("--precision", "bf16"), ideal)
        self.assertLess(abs(self.images_per_second("--ceilings", 399, 1.5) - ideal / 2), 1.5)
        fp32 = self.plan("--precision", "fp32", "--batch-size", 4, "--dataset", "cifar100")
        self.assertIn("4 images in fp32", fp32)
        self.assertIn("not modelled", fp32)

    def test_with_a_table_of_choices(self):
        table = self.root / "choices.json"
        choice = {"product": "dgrad", "shape": [128, 32, 32, 32, 32, 3, 1], "version": 4,
                  "columns": 0, "parts": 0}
        content = [{"multiprocessors": 132, "measured_on": "", "choices": [choice]}]
        table.write_text(json.dumps(content))
        environment = {"env": os.environ | {"WRN_CHOICES": str(table)}}
        self.assertNotEqual(self.images_per_second(), self.images_per_second(**environment))
        choice["columns"] = 96
        table.write_text(json.dumps(content))
        self.fail_with(harness.RUNTIME, "--plan", **environment, says="no convolution can be computed")
        table.unlink()
        self.fail_with(harness.RUNTIME, "--plan", **environment, says="choices.json cannot be read")
        table.mkdir()
        self.fail_with(harness.RUNTIME, "--plan", **environment, says="choices.json: not a table")


class TestFiles(harness.SystemTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls.case_of_class()
        cls.run_dir = cls.root / "trained"
        cls.weights = cls.root / "weights.safetensors"
        cls.printed = case.succeed(
            *case.flags("--val-split", 0.25, "--dropout", 0.1, "--seed", 7, epochs=3),
            "-o", cls.run_dir, "--export-weights", cls.weights)

    def test_config_has_every_setting(self):
        config = json.loads((self.run_dir / "config.json").read_text())
        self.assertEqual(config["model"],
                         {"name": "wrn-10-1", "parameters": 77850, "classes": 10})
        self.assertEqual(config["device"], "cpu")
        self.assertEqual(config["threads"], 1)
        self.assertEqual(config["training"], {
            "recipe": "paper-cifar", "dropout": 0.1, "epochs": 3, "batch_size": 10, "lr": 0.1,
            "momentum": 0.9, "weight_decay": 0.0005, "lr_drops": [1, 2],
            "lr_drop_factor": 0.2, "keep_momentum": False, "no_augment": False,
            "keep_last_batch": False, "preprocess": "meanstd", "gamma_init": "one",
            "svhn_extra": "auto", "val_split": 0.25, "seed": 7,
            "limit_train": 40, "limit_test": 20, "save_every": 1, "tensorboard": False})
        data = config["dataset"]
        self.assertEqual((data["name"], data["path"]), ("cifar10", str(self.data)))
        self.assertEqual((data["train_images"], data["validation_images"], data["test_images"]),
                         (30, 10, 20))
        self.assertEqual((len(data["mean"]), len(data["std"])), (3, 3))
        for name in ("wrn_train", "library", "compiler"):
            self.assertRegex(config["versions"][name], r"\d+\.\d+")

    def test_metrics(self):
        lines = read_metrics(self.run_dir)
        self.assertEqual([line["epoch"] for line in lines], [1, 2, 3])
        for line in lines:
            self.assertEqual(set(line), {
                "epoch", "lr", "train_loss", "train_error", "test_loss", "test_error",
                "test_top5_error", "val_loss", "val_error", "seconds", "training_seconds",
                "images_per_second"})
            for name, value in line.items():
                self.assertIsInstance(value, (int, float), name)
                if name.endswith("error"):
                    self.assertTrue(0 <= value <= 100, line)
                    images = {"train": 30, "val": 10, "test": 20}[name.split("_")[0]]
                    self.assertAlmostEqual(value * images / 100, round(value * images / 100))
            self.assertLess(line["training_seconds"], line["seconds"])
            self.assertAlmostEqual(line["images_per_second"] * line["training_seconds"], 30)
        for line, lr in zip(lines, [0.1, 0.02, 0.004]):
            self.assertAlmostEqual(line["lr"], lr)

    def test_more_validation_than_training_and_test_images(self):
        """The test images, however many, have no part in what the validation says."""
        losses = set()
        for test in (10, 50):
            self.succeed(*self.flags("--val-split", 0.75, test=test, epochs=1), "-o", self.out,
                         "--overwrite")
            losses.add(read_metrics(self.out)[0]["val_loss"])
        self.assertEqual(len(losses), 1)

    def test_no_validation_keys_without_a_split(self):
        self.succeed(*self.flags(epochs=1), "-o", self.out)
        self.assertEqual(set(read_metrics(self.out)[0]), {
            "epoch", "lr", "train_loss", "train_error", "test_loss", "test_error",
            "test_top5_error", "seconds", "training_seconds", "images_per_second"})

    def test_best_is_chosen_on_the_validation_split(self):
        best = json.loads(read_safetensors(self.run_dir / CHECKPOINT)[0]["best"])
        errors = [line["val_error"] for line in read_metrics(self.run_dir)]
        self.assertEqual(best, {"split": "validation", "error": min(errors),
                                "epoch": errors.index(min(errors)) + 1})
        metadata, _ = read_safetensors(self.run_dir / "best.safetensors")
        self.assertEqual(json.loads(metadata["position"])["epoch"], best["epoch"])

    def test_report(self):
        page = PageParser()
        page.feed((self.run_dir / "report.html").read_text())
        page.close()
        self.assertEqual(page.open, [])
        self.assertGreaterEqual(page.tags.count("svg"), 2)
        self.assertNotIn("script", page.tags)
        self.assertGreater(len(page.references), 0)
        for reference in page.references:
            kind, text = reference.split(",")
            self.assertEqual(kind, "data:image/png;base64")
            png = base64.b64decode(text, validate=True)
            self.assertTrue(png.startswith(b"\x89PNG") and png.endswith(b"IEND\xaeB`\x82"), png)
        self.assertEqual(page.tags.count("tr") > 3, True)
        for text in ("wrn-10-1", "weight_decay", "0.0005"):
            self.assertIn(text, page.text)

    def test_test_only_and_imported_weights_agree(self):
        """The last line of training, a test of the checkpoint and of the exported weights."""
        error = read_metrics(self.run_dir)[-1]["test_error"]
        self.assertIn(f"test error {error:.2f}% after 3 epochs", self.printed.out)
        before = self.snapshot(self.run_dir)
        tested = self.succeed("--test-only", "--resume", self.run_dir / CHECKPOINT, "--quiet")
        self.assertRegex(tested.out, rf"\Atest error {error:.2f}%, loss \d+\.\d+\n\Z")
        imported = self.succeed(*self.flags("--test-only", "--import-weights", self.weights,
                                            "--quiet"))
        self.assertEqual(imported.out, tested.out)
        self.assert_untouched(self.run_dir, before)
        # With -o it writes what it predicted, and nothing else.
        by_directory = self.succeed("--test-only", "--quiet", "--resume", "-o", self.run_dir)
        self.assertEqual(by_directory.out, tested.out)
        after = self.snapshot(self.run_dir)
        name = "predictions.safetensors"
        self.assertEqual(after.pop(name)[2], before.pop(name)[2])
        self.assertEqual(after, before)
        self.assertFalse((self.dir / "runs").exists(), "--test-only makes no directory")

    def test_export_is_what_pytorch_loads(self):
        _, tensors = read_safetensors(self.weights)
        self.assertEqual(set(tensors), pytorch_names())
        shapes = {name: shape for name, (_, shape, _) in tensors.items()}
        self.assertEqual(shapes["conv1.weight"], [16, 3, 3, 3])
        self.assertEqual(shapes["block1.layer.0.conv1.weight"], [16, 16, 3, 3])
        self.assertEqual(shapes["block2.layer.0.conv1.weight"], [32, 16, 3, 3])
        self.assertEqual(shapes["block2.layer.0.convShortcut.weight"], [32, 16, 1, 1])
        self.assertEqual(shapes["fc.weight"], [10, 64])
        for name, (dtype, shape, data) in tensors.items():
            if name.endswith("num_batches_tracked"):
                self.assertEqual((dtype, shape), ("I64", []))
                self.assertEqual(struct.unpack("<q", data), (3 * 3,))  # steps of 10 of 30 images
            else:
                self.assertEqual(dtype, "F32")
        # What the checkpoint holds besides is its optimiser's.
        _, saved = read_safetensors(self.run_dir / CHECKPOINT)
        extra = {name for name in saved if name not in tensors}
        self.assertTrue(all(name.startswith("optimizer.") for name in extra), extra)
        self.assertTrue(all(saved[name] == tensors[name] for name in tensors))

    def test_training_goes_on_from_imported_weights(self):
        self.succeed(*self.flags("--import-weights", self.weights, "--lr", 0, epochs=1), "-o",
                     self.out)
        _, tensors = read_safetensors(self.out / CHECKPOINT)
        _, weights = read_safetensors(self.weights)
        for name in ("conv1.weight", "fc.bias", "block2.layer.0.convShortcut.weight"):
            self.assertEqual(tensors[name], weights[name])

    def test_export_from_a_finished_run(self):
        again = self.dir / "again.safetensors"
        self.succeed("--resume", "-o", self.run_dir, "--export-weights", again)
        self.assertEqual(again.read_bytes(), self.weights.read_bytes())

    def test_export_that_cannot_be_written(self):
        """Found before the data are read; nothing is made."""
        nowhere = self.dir / "nowhere"
        pipe = self.dir / "pipe"
        os.mkfifo(pipe)
        for path, says in [(nowhere / "weights.safetensors",
                            [f"cannot write to {nowhere}: No such", "another with --export-weights"]),
                           (self.dir, self.dir), (pipe, pipe)]:
            self.fail_with(RUNTIME, *self.flags()[4:], "--data-path", nowhere, "-o", self.out,
                           "--export-weights", path, says=says)
            self.assertFalse(self.out.exists())

    def test_export_over_the_files_of_a_run(self):
        before = self.snapshot(self.run_dir)
        for name in (CHECKPOINT, "best.safetensors", "config.json", "tensorboard"):
            for run, args in [(self.run_dir, ["--resume", "-o", self.run_dir]),
                              (self.run_dir, [*self.flags(), "-o", self.out]),
                              (self.out, [*self.flags(), "-o", self.out])]:
                self.fail_with(USAGE, *args, "--export-weights", run / name, says=run / name)
        self.assert_untouched(self.run_dir, before)
        self.assertFalse(self.out.exists())
        # Nor over a checkpoint that they come from, whatever its name.
        alone = self.dir / "alone.safetensors"
        shutil.copy(self.run_dir / CHECKPOINT, alone)
        self.fail_with(USAGE, "--test-only", "--resume", alone, "--export-weights", alone, says=alone)
        # The names are free where there is no run.
        self.succeed("--resume", "-o", self.run_dir, "--export-weights", self.dir / CHECKPOINT)

    def test_images_that_are_all_of_one_colour(self):
        """Their deviation is 0, by which nothing is divided."""
        data = self.dir / "grey"
        harness.write_cifar10(data)
        for path in data.iterdir():
            path.write_bytes(b"".join(bytes([i % 10]) + 3072 * b"\x80" for i in range(20)))
        self.succeed(*self.flags(epochs=1)[4:], "--data-path", data, "-o", self.out)
        config = json.loads((self.out / "config.json").read_text())["dataset"]
        self.assertEqual((config["mean"], config["std"]), ([128] * 3, [1] * 3))

    def test_cifar100(self):
        data = self.dir / "data100" / "cifar-100-binary"  # the official sub-directory
        harness.write_cifar100(data)
        self.succeed("--dataset", "cifar100", "--data-path", data.parent, "--model", "wrn-10-1",
                     "-b", 10, "--epochs", 1, "--threads", 1, "-o", self.out)
        self.assertEqual(read_safetensors(self.out / CHECKPOINT)[1]["fc.weight"][1], [100, 64])
        config = json.loads((self.out / "config.json").read_text())
        self.assertEqual((config["model"]["classes"], config["dataset"]["train_images"]),
                         (100, 60))


class TestPrinting(harness.SystemTest):
    def test_a_line_an_epoch_without_a_terminal(self):
        out = self.succeed(*self.flags(epochs=3), "-o", self.out).out
        self.assertNotIn("\r", out)
        lines = out.splitlines()
        self.assertEqual(len(lines), 5, out)  # what is trained, three epochs, the result
        self.assertIn("wrn-10-1: 77850 parameters", lines[0])
        self.assertIn("40 training, 0 validation, 20 test images", lines[0])
        for epoch, line in enumerate(lines[1:4], 1):
            self.assertTrue(line.startswith(f"epoch {epoch}/3 "), line)
        self.assertRegex(lines[4], r"\Atest error \d+\.\d\d% after 3 epochs .*report\.html\Z")

    def test_the_best_is_of_the_epochs_saved(self):
        out = self.succeed(*self.flags("--save-every", 2, epochs=3), "-o", self.out).out
        match = re.search(r"best\.safetensors: (\S+)% on the test images, epoch (\d)\)", out)
        self.assertTrue(match, out)
        self.assertIn(int(match[2]), (2, 3))
        self.assertEqual(position(self.out / "best.safetensors")["epoch"], int(match[2]))
        self.assertEqual(f"{read_metrics(self.out)[int(match[2]) - 1]['test_error']:.2f}", match[1])

    def test_quiet_prints_the_result_alone(self):
        out = self.succeed(*self.flags(), "-o", self.out, "--quiet").out
        self.assertRegex(out, r"\Atest error [^\n]+\n\Z")

    def test_a_bar_on_a_terminal(self):
        text = self.on_a_terminal(100, *self.flags(), "-o", self.out)
        bars = [part for part in text.split("\r") if "[" in part and ">" in part]
        self.assertGreaterEqual(len(bars), 2, text)  # each epoch draws its first step at least
        self.assertRegex(bars[0], r"epoch 1/2 \[=*> *\]  loss \d")
        for name in ("loss", "error", "left", "images/s"):
            self.assertIn(name, bars[0])
        self.assertTrue(all(re.search(r"\ds left", bar) for bar in bars), text)
        self.assertTrue(all(len(bar) < 100 + len("\x1b[K") for bar in bars))
        last = text.splitlines()[-1].split("\r")[-1].replace("\x1b[K", "")
        self.assertRegex(last, r"\Atest error \d")

    def test_no_bar_when_quiet(self):
        text = self.on_a_terminal(100, *self.flags(), "-o", self.out, "--quiet")
        self.assertRegex(text, r"\Atest error [^\r\n]+\r\n\Z")

    def test_help_and_version(self):
        text = self.succeed("--help").out
        for flag in ("--dataset", "--data-path", "--model", "--depth", "--widen-factor", "--block",
                     "--deepening", "--dropout", "--recipe", "--epochs", "--batch-size", "--lr",
                     "--momentum", "--weight-decay", "--lr-drops", "--lr-drop-factor",
                     "--preprocess", "--gamma-init", "--svhn-extra", "--no-augment", "--keep-last-batch",
                     "--val-split", "--seed",
                     "--device", "--threads", "--output-dir", "--overwrite", "--save-every",
                     "--resume", "--test-only", "--export-weights", "--import-weights",
                     "--limit-train", "--limit-test", "--quiet"):
            self.assertIn(flag, text)
        self.assertRegex(self.succeed("--version").out, r"\Awrn_train \d+\.\d+\.\d+\n\Z")

    def test_limits(self):
        self.succeed(*self.flags(train=0, test=0, epochs=1), "-o", self.out)
        config = json.loads((self.out / "config.json").read_text())["dataset"]
        self.assertEqual((config["train_images"], config["test_images"]), (100, 100))
        self.succeed(*self.flags(train=30, test=7, epochs=1), "-o", self.out, "--overwrite")
        config = json.loads((self.out / "config.json").read_text())["dataset"]
        self.assertEqual((config["train_images"], config["test_images"]), (30, 7))


if __name__ == "__main__":
    harness.main()
