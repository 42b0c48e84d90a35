"""--tensorboard: the event files, by a reader of our own and by TensorBoard's."""
import signal
import struct
import subprocess
import time

import harness
from harness import RUNTIME, read_metrics

TAGS = {"train_loss": "Loss/train", "test_loss": "Loss/test", "val_loss": "Loss/validation",
        "train_error": "Error/train", "test_error": "Error/test",
        "val_error": "Error/validation", "lr": "LR"}


def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc32c_table()


def masked_crc(data):
    crc = 0xffffffff
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xffffffff
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def records(path):
    """The records of a file, each with its checksums checked."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8) == (masked_crc(data[at:at + 8]),), at
        record = data[at + 12:at + 12 + length]
        assert len(record) == length
        assert struct.unpack_from("<I", data, at + 12 + length) == (masked_crc(record),), at
        yield record
        at += length + 16


def fields(message):
    """(number, value) of a protocol buffer message: integers, or bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: lambda: 8, 2: varint, 5: lambda: 4}[key & 7]()
        assert at + size <= len(message)
        yield key >> 3, message[at:at + size]
        at += size


def events(path):
    """(wall time, step, {tag: value}, other fields) of each event of a file."""
    for record in records(path):
        event = dict(fields(record))
        values = {}
        for number, value in fields(event.pop(5, b"")):
            assert number == 1
            parts = dict(fields(value))
            values[parts[1].decode()] = struct.unpack("<f", parts[2])[0]
        yield struct.unpack("<d", event.pop(1))[0], event.pop(2), values, event


def curves(directory):
    """{tag: {step: value}} of all files, with what each START drops, as TensorBoard documents it."""
    result = {}
    for path in sorted(directory.iterdir()):
        assert path.name.startswith("events.out.tfevents."), path
        first, second, *rest = events(path)
        assert first[1:] == (0, {}, {3: b"brain.Event:2"}), first
        assert second[1:] == (0, {}, {7: b"\x08\x01"}), second  # SessionLog, status START
        for points in result.values():
            for step in [step for step in points if step >= second[1]]:
                del points[step]
        for _, step, values, other in rest:
            assert other == {}, other
            for tag, value in values.items():
                assert step not in result.setdefault(tag, {}), f"{tag} of {step} twice"
                result[tag][step] = value
    return result


def expected_curves(run):
    def rounded(value):
        return struct.unpack("<f", struct.pack("<f", value))[0]

    lines = read_metrics(run)
    return {tag: {line["epoch"]: rounded(line[name]) for line in lines}
            for name, tag in TAGS.items() if name in lines[0]}


class EventTest(harness.SystemTest):
    def stop_after(self, epochs, *flags):
        """Starts a run and stops it once so many of its epochs are done."""
        process = subprocess.Popen(self.command(*flags, "-o", self.out), cwd=self.dir,
                                   stdout=subprocess.DEVNULL)
        metrics = self.out / "metrics.jsonl"
        while not metrics.exists() or len(read_metrics(self.out)) < epochs:
            self.assertIsNone(process.poll())
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(harness.TIME_LIMIT), 128 + signal.SIGTERM)

    def interrupted_run(self):
        """A run of three processes and 40 epochs, whose last checkpoint each time lies back."""
        flags = self.flags("--save-every", 7, epochs=40)
        self.stop_after(3, *flags, "--tensorboard")
        self.stop_after(12, "--resume")
        self.succeed("--resume", "-o", self.out)


class TestEvents(EventTest):
    def test_curves_are_those_of_the_metrics(self):
        self.succeed(*self.flags("--tensorboard", "--val-split", 0.25, epochs=3), "-o", self.out)
        got = curves(self.out / "tensorboard")
        self.assertEqual(set(got), set(TAGS.values()))
        self.assertEqual(got, expected_curves(self.out))

    def test_no_validation_no_curve_of_it(self):
        before = time.time()
        self.succeed(*self.flags("--tensorboard"), "-o", self.out)
        (path,) = (self.out / "tensorboard").iterdir()
        got = list(events(path))
        self.assertEqual([event[1] for event in got], [0, 0, 1, 2])
        self.assertEqual(set(got[2][2]), {tag for tag in TAGS.values() if "validation" not in tag})
        times = [event[0] for event in got]
        self.assertEqual(times, sorted(times))
        self.assertTrue(before <= times[0] and times[-1] <= time.time(), times)

    def test_a_resumed_run_goes_on_unasked(self):
        self.interrupted_run()
        self.assertEqual(len(list((self.out / "tensorboard").iterdir())), 3)
        self.assertEqual(len(read_metrics(self.out)), 40)
        self.assertEqual(curves(self.out / "tensorboard"), expected_curves(self.out))

    def test_begun_on_resuming(self):
        self.stop_after(3, *self.flags(epochs=20))
        self.assertFalse((self.out / "tensorboard").exists())
        self.succeed("--resume", "-o", self.out, "--tensorboard")
        self.assertEqual(curves(self.out / "tensorboard"), expected_curves(self.out))
        # The epochs before take up the time they took, so that the axis of time is true.
        times = [event[0] for path in (self.out / "tensorboard").iterdir()
                 for event in events(path)][2:]
        seconds = [line["seconds"] for line in read_metrics(self.out)]
        self.assertAlmostEqual(times[2] - times[0], seconds[1] + seconds[2], delta=1e-4)

    def test_not_unasked(self):
        self.succeed(*self.flags(epochs=1), "-o", self.out)
        self.assertFalse((self.out / "tensorboard").exists())

    def test_overwriting_leaves_none_of_an_old_run(self):
        self.succeed(*self.flags("--tensorboard"), "-o", self.out)
        self.succeed(*self.flags("--overwrite", "--tensorboard", epochs=1), "-o", self.out)
        self.assertEqual(curves(self.out / "tensorboard"), expected_curves(self.out))
        self.succeed(*self.flags("--overwrite"), "-o", self.out)
        self.assertFalse((self.out / "tensorboard").exists())

    def test_a_place_that_cannot_be_written(self):
        self.out.mkdir()
        (self.out / "tensorboard").write_text("a file")
        self.fail_with(RUNTIME, *self.flags("--tensorboard"), "-o", self.out,
                       says=self.out / "tensorboard")
        self.assertEqual([path.name for path in self.out.iterdir()], ["tensorboard"])
        self.succeed(*self.flags(epochs=1), "-o", self.out)  # which has no need of it

    def test_files_of_others_stay(self):
        """They are not removed, and do not switch events on."""
        directory = self.out / "tensorboard"
        directory.mkdir(parents=True)
        others = {"notes.txt", "events.out.tfevents.1700000000.host.1.0"}
        for name in others:
            (directory / name).write_text("mine")
        for flags in ([], ["--overwrite", "--tensorboard"], ["--overwrite"]):
            self.succeed(*self.flags(*flags, epochs=1), "-o", self.out)
            ours = {path.name for path in directory.iterdir()} - others
            self.assertEqual(len(ours), "--tensorboard" in flags)
        self.assertTrue(all((directory / name).read_text() == "mine" for name in others))

    def test_ended_on_resuming(self):
        self.stop_after(1, *self.flags("--tensorboard", epochs=20))
        self.succeed("--resume", "-o", self.out, "--tensorboard=false")
        self.assertEqual(len(list((self.out / "tensorboard").iterdir())), 1)


class TestTensorBoardItself(EventTest):
    def setUp(self):
        try:
            from tensorboard.backend.event_processing import event_accumulator
        except ImportError:
            self.skipTest("TensorBoard is not here: pip install tensorboard")
        super().setUp()
        self.accumulator = event_accumulator.EventAccumulator

    def test_reads_an_interrupted_run(self):
        self.interrupted_run()
        reader = self.accumulator(str(self.out / "tensorboard"))
        reader.Reload()
        got = {tag: {point.step: point.value for point in reader.Scalars(tag)}
               for tag in reader.Tags()["scalars"]}
        self.assertEqual(got, expected_curves(self.out))
        self.assertEqual([len(reader.Scalars(tag)) for tag in got], [40] * len(got))


if __name__ == "__main__":
    harness.main()
