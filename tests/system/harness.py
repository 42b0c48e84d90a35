"""What the system tests of wrn_train share: small data sets, the program, and its files read back.

Every test_*.py here is run as `python3 test_X.py PATH_OF_wrn_train [CLASS...]`. The data is made
by the tests themselves, with fixed seeds; nothing depends on how fast the machine is.
"""
import contextlib
import fcntl
import json
import os
import pty
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import unittest
from pathlib import Path

TIME_LIMIT = 600  # seconds; only a hang takes so long, also under sanitizers on a busy machine
TIMES = ("seconds", "training_seconds", "images_per_second")  # all that two equal runs differ in
CHECKPOINT = "latest.safetensors"
RUNTIME, USAGE, OUT_OF_MEMORY, NOT_FINITE = 1, 2, 3, 4  # exit statuses
SKIPPED = 77  # the exit status by which ctest knows a test that could not be run here

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads starve tests beside them
os.environ.setdefault("WRN_SIMT_DEVICES", "0")  # an emulated GPU is only for tests that ask for it
program_path = None


def main():
    """unittest.main(), after taking the path of wrn_train from the command line."""
    global program_path
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} PATH_OF_wrn_train [CLASS...]")
    program_path = Path(sys.argv.pop(1)).resolve()
    result = unittest.main(verbosity=2, exit=False).result
    if result.skipped and len(result.skipped) == result.testsRun:
        sys.exit(SKIPPED)
    sys.exit(not result.wasSuccessful())


def cifar_record(rng, classes):
    """Noise whose brightness tells its class, more or less, so that there is something to learn."""
    label = rng.randrange(classes[-1])
    shade = [b // 2 + label * 128 // classes[-1] for b in range(256)]
    coarse = [rng.randrange(n) for n in classes[:-1]]
    return bytes(coarse + [label]) + rng.randbytes(3072).translate(bytes(shade))


def write_cifar10(directory, train=100, test=100, seed=1):
    """CIFAR-10 binary files of `train` images in five equal files, and `test` in one."""
    rng = random.Random(seed)
    directory.mkdir(parents=True)
    for name, images in [(f"data_batch_{i}.bin", train // 5) for i in range(1, 6)] + [
            ("test_batch.bin", test)]:
        (directory / name).write_bytes(b"".join(cifar_record(rng, [10]) for _ in range(images)))


def write_cifar100(directory, train=60, test=20, seed=1):
    rng = random.Random(seed)
    directory.mkdir(parents=True)
    for name, images in [("train.bin", train), ("test.bin", test)]:
        (directory / name).write_bytes(
            b"".join(cifar_record(rng, [20, 100]) for _ in range(images)))


def read_safetensors(path):
    """(metadata, {name: (dtype, shape, bytes)}); raises an AssertionError for the least fault."""
    blob = Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8:8 + length])
    data = blob[8 + length:]
    metadata = header.pop("__metadata__")
    tensors, covered = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        size = {"F32": 4, "I64": 8, "I32": 4, "U8": 1}[entry["dtype"]]
        for extent in entry["shape"]:
            size *= extent
        assert begin == covered and end - begin == size, f"{path}: {name} lies at {begin}:{end}"
        tensors[name] = (entry["dtype"], entry["shape"], data[begin:end])
        covered = end
    assert covered == len(data), f"{path}: {len(data)} bytes of data, {covered} of them used"
    return metadata, tensors


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def read_metrics(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def position(file):
    return json.loads(read_safetensors(file)[0]["position"])


def temporaries(directory):
    return [path for path in directory.iterdir() if path.name.startswith(".")]


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    def __str__(self):
        return f"exit status {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


class SystemTest(unittest.TestCase):
    """A directory for the class, with data in it, and the program."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(tempfile.mkdtemp(prefix="wrn_system_"))
        cls.addClassCleanup(shutil.rmtree, cls.root, ignore_errors=True)
        cls.data = cls.root / "data"
        write_cifar10(cls.data)

    @classmethod
    def case_of_class(cls):
        """For setUpClass(): a case whose directory is the class's."""
        case = cls()
        case.dir = cls.root
        return case

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(dir=self.root))
        self.out = self.dir / "run"

    def command(self, *args):
        return [program_path] + [arg if isinstance(arg, bytes) else str(arg) for arg in args]

    def run_program(self, *args, **popen):
        done = subprocess.run(self.command(*args), capture_output=True, text=True,
                              timeout=TIME_LIMIT, cwd=self.dir, **popen)
        return Result(done.returncode, done.stdout, done.stderr)

    def flags(self, *more, epochs=2, batch=10, threads=1, train=40, test=20, device="cpu"):
        """The flags of a small run; an epoch of it takes about a tenth of a second."""
        return ["--dataset", "cifar10", "--data-path", self.data, "--model", "wrn-10-1",
                "--device", device,
                "--batch-size", batch, "--threads", threads, "--epochs", epochs,
                "--limit-train", train, "--limit-test", test, *more]

    def succeed(self, *args, **popen):
        result = self.run_program(*args, **popen)
        self.assertEqual(result.status, 0, result)
        self.assertEqual(result.err, "", result)
        return result

    def on_a_terminal(self, columns, *args):
        """What the program writes to a terminal."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(self.command(*args), stdout=theirs, stderr=theirs,
                                   cwd=self.dir)
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(ours, 65536):
                written += block
        os.close(ours)
        self.assertEqual(process.wait(TIME_LIMIT), 0, written)
        return written.decode()

    def fail_with(self, status, *args, says=(), **popen):
        """The program fails with this status and one line on stderr, which says all of `says`."""
        result = self.run_program(*args, **popen)
        self.assert_error(result, status, says)
        return result

    def assert_error(self, result, status, says=()):
        self.assertEqual(result.status, status, result)
        self.assertRegex(result.err, r"\Awrn_train: [^\n]+\n\Z", result)
        for text in [says] if isinstance(says, (str, Path)) else says:
            self.assertIn(str(text), result.err)

    def assert_same_file(self, ours, reference):
        """Equal tensors, bit for bit, and equal metadata apart from times."""
        (metadata, tensors), (metadata2, tensors2) = (
            read_safetensors(ours), read_safetensors(reference))

        def parsed(values):
            return {key: without_times(json.loads(text)) if text[:1] in "[{" else text
                    for key, text in values.items()}

        self.assertEqual(parsed(metadata), parsed(metadata2))
        self.assertEqual(list(tensors), list(tensors2))
        different = [name for name in tensors if tensors[name] != tensors2[name]]
        self.assertEqual(different, [], f"tensors that differ in {ours} and {reference}")

    def assert_same_run(self, ours, reference):
        """Two output directories that tell the same story, times aside."""
        names = {path.name for path in reference.iterdir()}
        self.assertEqual({path.name for path in ours.iterdir()}, names)
        for name in ("latest.safetensors", "best.safetensors", "predictions.safetensors"):
            if name in names:
                self.assert_same_file(ours / name, reference / name)
        self.assertEqual(without_times(read_metrics(ours)), without_times(read_metrics(reference)))
        self.assertEqual((ours / "config.json").read_text(),
                         (reference / "config.json").read_text())

    def snapshot(self, directory):
        """Everything in a directory, for assert_untouched()."""
        return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino,
                            path.read_bytes() if path.is_file() else None)
                for path in directory.iterdir()}

    def assert_untouched(self, directory, before):
        """By name, as unittest would take minutes to tell how two checkpoints differ."""
        now = self.snapshot(directory)
        self.assertEqual([name for name in sorted(now | before) if now.get(name) != before.get(name)], [])


def stopped_at(out):
    """(epoch, step) of the line that a stopped run ends with."""
    match = re.search(r"^stopped in epoch (\d+), after step (\d+)", out, re.M)
    return (int(match[1]), int(match[2])) if match else None
