"""wrn_predict and wrn_report, beside wrn_train: what they read of a run, and what they refuse. And
of every program, what becomes of its output."""
import json
import os
import shutil
import signal
import struct
import subprocess
import zlib

import harness
from harness import CHECKPOINT, RUNTIME, USAGE, read_metrics, read_safetensors

RECORD = 3073
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows):
    """8-bit RGB; `rows` are the bytes of the pixels."""
    lines = b"".join(b"\0" + rows[y * 3 * width:(y + 1) * 3 * width] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b""))


def png_of_record(record):
    """The image of a CIFAR record, whose planes lie one behind another."""
    planes = record[-3072:]
    return png(32, 32, bytes(planes[plane * 1024 + i] for i in range(1024) for plane in range(3)))


class ToolTest(harness.SystemTest):
    """A trained run, and the program `tool` beside wrn_train."""
    tool = ""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls.case_of_class()
        cls.run_dir = cls.root / "trained"
        done = subprocess.run(
            [harness.program_path, *map(str, case.flags(epochs=2, train=100, test=100)), "-o",
             cls.run_dir, "--quiet"], capture_output=True, text=True, timeout=harness.TIME_LIMIT)
        assert done.returncode == 0, done.stderr
        cls.checkpoint = cls.run_dir / CHECKPOINT

    def command(self, *args):
        return [str(harness.program_path.parent / self.tool)] + [str(arg) for arg in args]

    def train(self, *args):
        done = subprocess.run([harness.program_path, *map(str, args)], capture_output=True,
                              text=True, timeout=harness.TIME_LIMIT, cwd=self.dir)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def assert_error(self, result, status, says=()):
        self.assertEqual(result.status, status, result)
        self.assertRegex(result.err, rf"\A{self.tool}: [^\n]+\n\Z", result)
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(str(text), result.err)


class TestPredict(ToolTest):
    tool = "wrn_predict"

    def answers(self, *args):
        return [json.loads(line) for line in
                self.succeed(self.checkpoint, "--json", "--threads", 1, "--device", "cpu",
                             *args).out.splitlines()]

    def test_records_as_wrn_train_tests_them(self):
        answers = self.answers(self.data / "test_batch.bin")
        self.assertEqual([a["record"] for a in answers], list(range(100)))
        wrong = sum(a["top"][0]["class"] != a["label"] for a in answers)
        self.assertEqual(wrong, read_metrics(self.run_dir)[-1]["test_error"])  # of 100
        top5 = sum(a["label"] not in [t["class"] for t in a["top"]] for a in answers)
        self.assertEqual(top5, read_metrics(self.run_dir)[-1]["test_top5_error"])
        for answer in answers:
            p = [t["probability"] for t in answer["top"]]
            self.assertEqual(p, sorted(p, reverse=True))
            self.assertEqual(len(p), 5)
            self.assertTrue(0 < sum(p) <= 1 + 1e-9, p)
            self.assertTrue(all(t["class"] == NAMES[t["index"]] for t in answer["top"]))
        whole = self.answers("--top", 99, self.data / "test_batch.bin")
        self.assertEqual(len(whole[0]["top"]), 10)
        self.assertAlmostEqual(sum(t["probability"] for t in whole[0]["top"]), 1, places=12)

    def test_a_png_is_what_its_record_is(self):
        records = (self.data / "test_batch.bin").read_bytes()
        files = []
        for i in range(7):
            files.append(self.dir / f"{i}.png")
            files[-1].write_bytes(png_of_record(records[i * RECORD:(i + 1) * RECORD]))
        ours = self.answers("--batch-size", 3, *files)  # two whole batches and a part of one
        theirs = self.answers(self.data / "test_batch.bin")[:7]
        for file, a, b in zip(files, ours, theirs):
            self.assertEqual(a["image"], str(file))
            self.assertEqual([t["class"] for t in a["top"]], [t["class"] for t in b["top"]])
            for x, y in zip(a["top"], b["top"]):
                self.assertAlmostEqual(x["probability"], y["probability"], places=6)

    def test_lines_for_people(self):
        file = self.dir / "white.png"
        file.write_bytes(png(50, 40, b"\xff" * 6000))
        out = self.succeed(self.checkpoint, file, "--device", "cpu").out
        self.assertRegex(out, r"\A" + str(file) + r":( [a-z]+ \d+\.\d%,){4} [a-z]+ \d+\.\d%\n\Z")

    def test_one_image_costs_no_batch_of_many(self):
        file = self.dir / "white.png"
        file.write_bytes(png(50, 40, b"\xff" * 6000))
        process = subprocess.Popen(self.command(self.checkpoint, file, "--batch-size", 65536,
                                                "--device", "cpu"), stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        self.assertLess(used.ru_maxrss, 2**20)  # kilobytes; a batch of 65,536 needs twelve times that

    def test_broken_files_are_lines_and_the_rest_goes_on(self):
        whole = png(50, 40, bytes(i % 251 for i in range(6000)))
        good, cut, text = (self.dir / name for name in ("good.png", "cut.png", "text.jpg"))
        good.write_bytes(whole)
        cut.write_bytes(whole[:-200])
        text.write_text("hello")
        bomb = self.dir / "bomb.png"
        bomb.write_bytes(b"\x89PNG\r\n\x1a\n"
                         + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
                         + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""))
        record = self.dir / "cut.bin"
        record.write_bytes(b"\1" * (RECORD + 1))
        broken = [cut, text, bomb, record, self.dir / "missing.png", self.dir]
        result = self.run_program(self.checkpoint, "--json", "--device", "cpu", good, *broken, good)
        self.assertEqual(result.status, RUNTIME, result)
        self.assertEqual(len(result.out.splitlines()), 2)
        lines = result.err.splitlines()
        self.assertEqual(len(lines), len(broken), result)
        for line, file in zip(lines, broken):
            self.assertTrue(line.startswith(f"wrn_predict: {file}: "), line)
        self.assertIn("60000 x 60000 pixels", lines[2])

    def test_what_is_no_checkpoint(self):
        image = self.dir / "a.png"
        image.write_bytes(png(32, 32, bytes(3072)))
        weights = self.dir / "weights.safetensors"
        self.train("--resume", self.checkpoint, "--export-weights", weights, "--quiet")
        self.fail_with(RUNTIME, weights, image, says=[weights, "no checkpoint"])
        self.fail_with(RUNTIME, self.dir / "none", image, says="none")
        self.fail_with(RUNTIME, image, image, says=str(image))
        self.fail_with(USAGE, self.checkpoint, says="IMAGES")
        self.fail_with(USAGE, self.checkpoint, image, "--batch-size", 0, says="--batch-size")

    def changed_checkpoint(self, old, new):
        """The checkpoint with a piece of its header replaced."""
        blob = self.checkpoint.read_bytes()
        (length,) = struct.unpack_from("<Q", blob)
        header = blob[8:8 + length].replace(old, new)
        self.assertNotEqual(header, blob[8:8 + length])
        path = self.dir / "changed.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + blob[8 + length:])
        return path

    def test_a_checkpoint_of_other_classes(self):
        image = self.dir / "a.png"
        image.write_bytes(png(32, 32, bytes(3072)))
        eleven = self.changed_checkpoint(b'"classes":"10"', b'"classes":"11"')
        self.fail_with(RUNTIME, eleven, image, says=["11 classes", "10 names"])
        more = self.changed_checkpoint(b'\\"airplane\\"', b'\\"airplane\\",\\"kite\\"')
        self.fail_with(RUNTIME, more, image, says=["10 classes", "11 names"])

    def test_cifar100(self):
        data = self.dir / "data100"
        harness.write_cifar100(data)
        self.train("--dataset", "cifar100", "--data-path", data, "--model", "wrn-10-1", "-b", 10,
                   "--epochs", 1, "--threads", 1, "--device", "cpu", "-o", self.out, "--quiet")
        result = self.succeed(self.out / CHECKPOINT, "--json", "--device", "cpu", data / "test.bin")
        answers = [json.loads(line) for line in result.out.splitlines()]
        wrong = sum(a["top"][0]["class"] != a["label"] for a in answers)
        self.assertEqual(100 * wrong / len(answers), read_metrics(self.out)[-1]["test_error"])

    def test_help(self):
        self.assertIn("--json", self.succeed("--help").out)
        self.assertRegex(self.succeed("--version").out, r"\Awrn_predict \d+\.\d+\.\d+\n\Z")


class TestReport(ToolTest):
    tool = "wrn_report"

    def test_the_page_of_the_run(self):
        before = (self.run_dir / "report.html").read_bytes()
        out = self.succeed(self.run_dir).out
        self.assertEqual(out, f"{self.run_dir}/report.html\n")
        self.assertEqual((self.run_dir / "report.html").read_bytes(), before)
        self.assertIn(b"What it gets wrong", before)
        page = self.dir / "page.html"
        self.succeed(self.run_dir, "-o", page)
        self.assertEqual(page.read_bytes(), before)
        checkpoint = self.run_dir / "latest.safetensors"
        self.fail_with(USAGE, self.run_dir, "-o", checkpoint, says="does not end in .html")

    def test_predictions_agree_with_the_metrics(self):
        metadata, tensors = read_safetensors(self.run_dir / "predictions.safetensors")
        labels, predicted = tensors["labels"][2], tensors["predicted"][2]
        wrong = sum(a != b for a, b in zip(labels, predicted))
        last = read_metrics(self.run_dir)[-1]
        self.assertEqual((wrong, metadata["epoch"]), (last["test_error"], str(last["epoch"])))
        records = (self.data / "test_batch.bin").read_bytes()
        self.assertEqual(labels, records[::RECORD])
        (first,) = struct.unpack_from("<i", tensors["mistakes"][2])
        planes = records[first * RECORD + 1:(first + 1) * RECORD]
        self.assertEqual(tensors["images"][2][:6],
                         bytes(planes[p * 1024 + i] for i in range(2) for p in range(3)))

    def test_a_run_without_predictions(self):
        shutil.copytree(self.run_dir, self.out)
        predictions = self.out / "predictions.safetensors"
        saved = predictions.read_bytes()
        predictions.unlink()
        self.succeed(self.out)
        self.assertNotIn("What it gets wrong", (self.out / "report.html").read_text())
        self.train("--test-only", "--resume", "-o", self.out, "--quiet")
        self.assertEqual(predictions.read_bytes(), saved)
        (self.out / "metrics.jsonl").unlink()
        self.succeed(self.out)
        self.assertIn("No epoch is finished yet.", (self.out / "report.html").read_text())

    def test_several_runs(self):
        shutil.copytree(self.run_dir, self.out)
        self.succeed(self.run_dir, self.out, "-o", self.dir / "page.html")
        text = (self.dir / "page.html").read_text()
        self.assertIn("2 runs compared", text)
        self.assertIn("Their configurations are the same.", text)
        self.fail_with(USAGE, *[self.run_dir] * 17, says="17 runs")

    def test_runs_of_one_name(self):
        for place in ("a", "b"):
            shutil.copytree(self.run_dir, self.dir / place / "run")
        for ending in ("run", "run/"):
            self.succeed(f"a/{ending}", "b/run", "-o", self.dir / "page.html")
            text = (self.dir / "page.html").read_text()
            for name in (f"a/{ending}", "b/run"):
                self.assertIn(name, text)

    def test_half_written_directories(self):
        damages = {
            "config.json": [(b"", "config.json"), (b"{", "config.json"), (b"[1]", "config.json"),
                            (b"[" * 100000, "config.json"),
                            (b'{"a":' * 100000 + b"1" + b"}" * 100000, "config.json")],
            "metrics.jsonl": [(b'{"epoch":1}\n{"epo', "line 2"), (b"7\n", "line 1"),
                              (b"\xff\xfe\n", "line 1")],
            "predictions.safetensors": [(b"", "predictions"), (b"\0" * 100, "predictions")]}
        for name, cases in damages.items():
            for content, says in cases:
                shutil.copytree(self.run_dir, self.out)
                (self.out / name).write_bytes(content)
                page = (self.out / "report.html").read_bytes()
                self.fail_with(RUNTIME, self.out, says=[self.out, says])
                self.assertEqual((self.out / "report.html").read_bytes(), page)
                shutil.rmtree(self.out)
        self.fail_with(RUNTIME, self.dir / "none", says="no such directory")
        self.fail_with(RUNTIME, self.dir, says="no config.json")
        self.fail_with(RUNTIME, self.run_dir, "-o", self.dir / "no" / "page.html", says="page.html")
        self.fail_with(USAGE, says="RUN_DIR")

    def test_predictions_cut_short(self):
        shutil.copytree(self.run_dir, self.out)
        path = self.out / "predictions.safetensors"
        whole = path.read_bytes()
        for size in range(0, len(whole), len(whole) // 23):
            path.write_bytes(whole[:size])
            self.fail_with(RUNTIME, self.out, says=str(path))


class TestStandardOutput(ToolTest):
    """What every program prints is an error where it does not arrive."""

    def commands(self):
        run = ["--test-only", "--resume", "-o", self.run_dir]
        return [("wrn_train", *run), ("wrn_train", "--plan"), ("wrn_train", "--help"),
                ("wrn_tables", "list"), ("wrn_tables", "--help"), ("wrn_report", self.run_dir),
                ("wrn_predict", "--version"),
                ("wrn_predict", self.checkpoint, self.data / "test_batch.bin"),
                ("wrn_synthetic", "--help"), ("wrn_synthetic", "set", "--train", 5, "--test", 1)]

    def test_it_does_not_arrive(self):
        for self.tool, *args in self.commands():
            for redirection in (">/dev/full", ">&-"):
                with self.subTest(tool=self.tool, args=args, redirection=redirection):
                    done = subprocess.run(
                        ["sh", "-c", f'exec "$@" {redirection}', "sh", *self.command(*args)],
                        stderr=subprocess.PIPE, text=True, timeout=harness.TIME_LIMIT,
                        cwd=self.dir)
                    self.assert_error(harness.Result(done.returncode, "", done.stderr), RUNTIME,
                                      "cannot write to standard output")

    def test_nobody_reads_it(self):
        """As of every program, it is the signal that ends it."""
        for self.tool, *args in self.commands():
            with self.subTest(tool=self.tool, args=args):
                ours, theirs = os.pipe()
                os.close(ours)
                done = subprocess.run(self.command(*args), stdout=theirs, stderr=subprocess.PIPE,
                                      timeout=harness.TIME_LIMIT, cwd=self.dir)
                os.close(theirs)
                self.assertEqual((done.returncode, done.stderr), (-signal.SIGPIPE, b""))


if __name__ == "__main__":
    harness.main()
