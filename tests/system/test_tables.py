"""wrn_tables: the paper's tables by name, stopped, killed, broken and gone on with."""
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import harness
from harness import CHECKPOINT, RUNTIME, USAGE, read_metrics, without_times

SMALL = "dropout/wrn-52-1/cifar10/without"
OTHER = "dropout/wrn-16-4/cifar10/without"
EPOCH = """echo '{"epoch": %d, "test_error": 5, "seconds": 3600}' >> metrics.jsonl"""
CONFIG = """echo '{"training": {"epochs": %d}}' > config.json"""
REHEARSAL = ["--limit-train", 20, "--limit-test", 20, "--batch-size", 10]


class TablesTest(harness.SystemTest):
    tables = None  # a copy of wrn_tables, with another wrn_train beside it

    def command(self, *args):
        tables = self.tables or harness.program_path.with_name("wrn_tables")
        return [str(tables)] + [str(arg) for arg in args]

    def replace_wrn_train(self, *lines):
        """By a shell script, to which $run is the run's directory."""
        self.tables = self.dir / "bin" / "wrn_tables"
        if not self.tables.exists():
            self.tables.parent.mkdir()
            shutil.copy(harness.program_path.with_name("wrn_tables"), self.tables)
        script = self.tables.with_name("wrn_train")
        script.write_text("\n".join([
            "#!/bin/sh", 'while [ "$1" != -o ]; do shift; done', "run=$2", 'mkdir -p "$run"',
            'cd "$run"', *lines]))
        script.chmod(0o755)

    def assert_error(self, result, status, says=()):
        result.err = result.err.replace("wrn_tables: ", "wrn_train: ", 1)
        super().assert_error(result, status, says)

    def rehearse(self, *tables, epochs=1, runs=1, data=None, out=None):
        return ["run", *tables, "--data-path", data or self.data, "--device", "cpu", "--threads", 1,
                "--epochs", epochs, "--runs", runs, *REHEARSAL, "-o", out or self.out]

    def runs(self, out=None):
        """{"wrn-16-4-cifar10-meanstd/seed1": its directory}"""
        found = sorted((out or self.out).glob("runs/*/seed*/"))
        return {f"{path.parent.name[:-9]}/{path.name}": path for path in found}

    def rows(self, out=None):
        """The cells of tables.md, by network and dropout."""
        found = {}
        for line in ((out or self.out) / "tables.md").read_text().splitlines():
            if line.startswith("| wrn-"):
                cells = [cell.strip() for cell in line[1:-1].split(" |")]
                found[cells[0], cells[1].split(",")[0], cells[2]] = cells[3:]
        return found

    def start(self, *args):
        return subprocess.Popen(self.command(*args), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, cwd=self.dir)

    def wait_for_epochs(self, process, epochs):
        while not any((run / "metrics.jsonl").exists() and len(read_metrics(run)) >= epochs
                      for run in self.runs().values()):
            self.assertIsNone(process.poll())
            time.sleep(0.005)


class TestTables(TablesTest):
    def test_list(self):
        everything = self.succeed("list").out
        self.assertEqual(len(re.findall(r"^  [a-z]+/wrn-", everything, re.M)), 55)
        self.assertEqual(self.succeed("list", "all").out, everything)
        self.assertEqual(
            self.succeed("list", "zca/wrn-40-1").out.splitlines()[1:],
            ["  zca/wrn-40-1/cifar10                       563930 parameters,  6.85% in the paper",
             "  zca/wrn-40-1/cifar100                      569780 parameters, 30.89% in the paper"])

    def test_run_and_show(self):
        printed = self.succeed(*self.rehearse(SMALL, OTHER, runs=2)).out
        self.assertIn("4 runs finished, 0 failed, 0 left out", printed)
        self.assertEqual(set(self.runs()), {
            f"{model}-cifar10-meanstd/seed{seed}"
            for model in ("wrn-52-1", "wrn-16-4") for seed in (1, 2)})
        errors = [read_metrics(self.runs()[f"wrn-52-1-cifar10-meanstd/seed{seed}"])[-1]
                  ["test_error"] for seed in (1, 2)]
        cells = self.rows()["wrn-52-1", "cifar10", ""]
        self.assertEqual(cells[0], "758,362")
        self.assertEqual(cells[1], "6.43")
        self.assertEqual(cells[2], f"{sum(errors) / 2:.2f}")
        self.assertEqual(cells[3], f"{sum(errors) / 2 - 6.43:+.2f}")
        links = re.findall(r"\[([\d.]+)\]\(<([^>]+)>\)", cells[4])
        self.assertEqual([error for error, _ in links], [f"{error:.2f}" for error in errors])
        self.assertTrue(all((self.out / link).is_file() for _, link in links), links)
        self.assertRegex(cells[5], r"\A\d+\.\d\Z")
        self.assertEqual(cells[6], "")
        self.assertEqual(self.rows()["wrn-52-1", "cifar10", "0.3"][6], "not run yet")
        config = json.loads((self.runs()["wrn-52-1-cifar10-meanstd/seed2"] /
                             "config.json").read_text())
        self.assertEqual((config["training"]["seed"], config["training"]["dropout"]), (2, 0))

        # Another time there is nothing to do.
        before = {name: self.snapshot(path) for name, path in self.runs().items()}
        again = self.succeed(*self.rehearse(SMALL, OTHER, runs=2)).out
        self.assertIn("4 runs, 4 finished already", again)
        self.assertEqual(
            {name: self.snapshot(path) for name, path in self.runs().items()}, before)

        markdown = (self.out / "tables.md").read_text()
        page = (self.out / "tables.html").read_text()
        for name in ("tables.md", "tables.html"):
            (self.out / name).unlink()
        shown = self.succeed("show", "dropout", "-o", self.out).out
        self.assertEqual((self.out / "tables.md").read_text(), markdown)
        self.assertEqual((self.out / "tables.html").read_text(), page)
        self.assertEqual(shown, markdown)
        self.assertIn("not run yet", self.succeed("show", "blocks", "-o", self.out).out)

        # When fewer are wanted the others stay on the pages.
        fewer = self.succeed(*self.rehearse(SMALL, runs=1)).out
        self.assertIn("1 run, 1 finished already", fewer)
        self.assertEqual(self.rows()["wrn-52-1", "cifar10", ""], cells)
        self.assertEqual((self.out / "tables.md").read_text(), markdown)

    def test_a_rehearsal_is_marked_and_kept_apart(self):
        self.succeed(*self.rehearse(SMALL))
        (run,) = self.runs().values()
        left = {path.name for path in run.iterdir()}
        self.assertEqual(left & {CHECKPOINT, "best.safetensors"}, set())  # gigabytes, of no use
        self.assertIn("report.html", left)
        flags = "--epochs 1 --limit-train 20 --limit-test 20 --batch-size 10"
        markdown = (self.out / "tables.md").read_text()
        self.assertIn(f"> **REHEARSAL, not results.** These are runs with {flags}", markdown)
        self.assertIn(" (rehearsal)\n", markdown)
        page = (self.out / "tables.html").read_text()
        self.assertIn(f"<strong>REHEARSAL, not results.</strong> These are runs with {flags}", page)
        self.assertNotIn("<script", page)
        self.assertNotIn("http", page)
        real = ["run", SMALL, "--data-path", self.data, "-o", self.out]
        self.fail_with(USAGE, *real, says=[self.out, "a rehearsal with " + flags, "give another with -o"])
        self.fail_with(USAGE, *self.rehearse(SMALL, epochs=2), says="--epochs 2")
        self.assertEqual((self.out / "tables.md").read_text(), markdown)

    def test_runs_as_in_the_paper_are_not_marked(self):
        """They cannot even begin here: the images are fewer than a batch."""
        result = self.run_program("run", SMALL, "--data-path", self.data, "--device", "cpu",
                                  "--runs", 1, "-o", self.out)
        self.assert_error(result, RUNTIME, "100 training images are fewer than a batch of 128")
        self.assertNotIn("REHEARSAL", (self.out / "tables.md").read_text())

    def test_a_run_as_in_the_paper_keeps_its_checkpoints(self):
        self.replace_wrn_train(CONFIG % 1, EPOCH % 1, "touch latest.safetensors best.safetensors")
        for _ in range(2):  # when it has been run, and when it is met again
            self.succeed("run", SMALL, "--data-path", self.data, "--runs", 1, "-o", self.out)
            (run,) = self.runs().values()
            self.assertLessEqual({CHECKPOINT, "best.safetensors"},
                                 {path.name for path in run.iterdir()})

    def test_tables_share_their_runs(self):
        out = self.succeed(*self.rehearse("zca/wrn-40-2/cifar10", "deepening/wrn-40-2")).out
        self.assertIn("1 run finished", out)
        self.assertEqual(list(self.runs()), ["wrn-40-2-cifar10-zca/seed1"])
        tables = (self.out / "tables.md").read_text()
        cells = re.findall(r"^\| wrn-40-2 \| cifar10, zca \|  \| 2,243,546 \| (\S+) \| (\S+) \|",
                           tables, re.M)
        self.assertEqual([paper for paper, _ in cells], ["5.33", "5.43"])
        self.assertEqual(len({ours for _, ours in cells}), 1)

    def test_progress_on_a_terminal(self):
        text = self.on_a_terminal(150, *self.rehearse(SMALL, epochs=12))
        self.assertRegex(text, r"\r\x1b\[K\[1/1\] wrn-52-1-cifar10-meanstd-\w+ seed 1: epoch \d+/12")
        self.assertRegex(text, r"; all in about \d")
        self.assertRegex(text, r"\r\x1b\[K\[1/1\] wrn-52-1\S+ seed 1: test error \d+\.\d\d%")


    def test_time_left_on_a_terminal(self):
        """Of the epochs that are left."""
        self.replace_wrn_train(CONFIG % 3, EPOCH % 1, "sleep 1.5", EPOCH % 2, EPOCH % 3)
        text = self.on_a_terminal(150, *self.rehearse(SMALL, epochs=3))
        self.assertIn("epoch 2/3; all in about 2h00m", text)


class TestTablesInterrupted(TablesTest):
    EPOCHS = 12

    def interrupt(self, number):
        """Ends wrn_tables after three epochs of its first run. Returns what it printed."""
        process = self.start(*self.rehearse(SMALL, epochs=self.EPOCHS, runs=2))
        self.wait_for_epochs(process, 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=harness.TIME_LIMIT)
        return harness.Result(process.returncode, out, err)

    def go_on(self):
        """The same command again ends in the runs of one that nobody interrupted, and trains no
        epoch of the first three again."""
        (run,) = self.runs().values()
        before = read_metrics(run)[:3]
        self.succeed(*self.rehearse(SMALL, epochs=self.EPOCHS, runs=2))
        self.assertEqual(read_metrics(run)[:3], before)  # their times too
        reference = self.dir / "reference"
        self.succeed(*self.rehearse(SMALL, epochs=self.EPOCHS, runs=2, out=reference))
        ours, theirs = self.runs(), self.runs(reference)
        self.assertEqual(set(ours), set(theirs))
        for name, path in ours.items():
            self.assertEqual(without_times(read_metrics(path)),
                             without_times(read_metrics(theirs[name])))

    def test_stopped(self):
        result = self.interrupt(signal.SIGINT)
        self.assertEqual((result.status, result.err), (128 + signal.SIGINT, ""), result)
        self.assertIn("stopped; the same command goes on", result.out)
        self.assertRegex(self.rows()["wrn-52-1", "cifar10", ""][6], r"\Aseed 1: epoch \d+ of 12\Z")
        self.assertEqual(self.succeed("show", "dropout", "-o", self.out).out,
                         (self.out / "tables.md").read_text())
        self.go_on()

    def test_killed(self):
        result = self.interrupt(signal.SIGKILL)
        self.assertEqual(result.status, -signal.SIGKILL)
        # Its wrn_train, which has the log locked, is told to end with it.
        (run,) = self.runs().values()
        with run.with_name("seed1.log").open() as log:
            fcntl.flock(log, fcntl.LOCK_EX)
        self.assertLess(len(read_metrics(run)), self.EPOCHS)
        self.go_on()

    def test_wrn_train_killed_beneath_it(self):
        process = self.start(*self.rehearse(SMALL, epochs=self.EPOCHS))
        self.wait_for_epochs(process, 3)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        # Of a group of its own: Ctrl-C comes to wrn_tables alone, which passes it on.
        self.assertEqual(os.getpgid(int(children[0])), int(children[0]))
        os.kill(int(children[0]), signal.SIGKILL)
        out, err = process.communicate(timeout=harness.TIME_LIMIT)
        self.assert_error(harness.Result(process.returncode, out, err), RUNTIME,
                          ["wrn-52-1-cifar10-meanstd", "seed 1: killed by signal 9", ".log"])
        self.assertIn("failed: killed by signal 9", self.rows()["wrn-52-1", "cifar10", ""][6])
        self.succeed(*self.rehearse(SMALL, epochs=self.EPOCHS))
        self.assertEqual(self.rows()["wrn-52-1", "cifar10", ""][6], "")

    def test_two_at_once(self):
        processes = [self.start(*self.rehearse(SMALL, OTHER, epochs=4)) for _ in range(2)]
        for process in processes:
            out, err = process.communicate(timeout=harness.TIME_LIMIT)
            self.assertEqual((process.returncode, err), (0, ""), out)
            self.assertIn("2 runs finished, 0 failed", out)
        for log in self.out.glob("runs/*/seed1.log"):
            self.assertEqual(log.read_text().count("test error"), 1, log)


class TestTablesErrors(TablesTest):
    def test_usage(self):
        for args in (["run", "nothing"], ["run", "zca/wrn-41-1"], ["show", "nothing"],
                     ["list", "zca/"]):
            self.fail_with(USAGE, *args, says="wrn_tables")
        for args in ([], ["run"], ["walk"], ["run", "all", "--runs", 0], ["run", "all", "--epochs", 0],
                     ["run", "all", "--device", "tpu"], ["run", "all", "--nothing"]):
            self.fail_with(USAGE, *args, says="--help")
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_missing_data(self):
        result = self.run_program(*self.rehearse("dropout/wrn-52-1/cifar100", SMALL,
                                                 "dropout/wrn-52-1/svhn", runs=2))
        self.assertEqual(result.status, RUNTIME, result)
        lines = result.err.splitlines()
        self.assertEqual(len(lines), 2, result)
        self.assertRegex(lines[0], r"\Awrn_tables: cifar100 is not in \S+, so 4 runs are left out: "
                                   r"get it with data/get_cifar.sh cifar100")
        self.assertRegex(lines[1], r"\Awrn_tables: svhn is not in .* data/get_svhn.sh")
        self.assertIn("2 runs finished, 0 failed, 8 left out", result.out)
        self.assertEqual(self.rows()["wrn-52-1", "cifar100", ""][6], "not run yet")

    def test_all_data_missing(self):
        empty = self.dir / "empty"
        empty.mkdir()
        result = self.run_program(*self.rehearse(SMALL, data=empty))
        self.assertEqual(result.status, RUNTIME)
        self.assertEqual(result.err.splitlines()[1],
                         "wrn_tables: nothing can be run without data")

    def test_data_is_found_in_folders(self):
        root = self.dir / "root"
        shutil.copytree(self.data, root / "cifar" / "cifar-10-batches-bin")
        self.succeed(*self.rehearse(SMALL, data=root))
        self.succeed(*self.rehearse("--data-path", self.dir, "--data-path", root, SMALL, data=self.dir,
                                    out=self.dir / "more"))

    def test_data_is_not_taken_for_another(self):
        table = "dropout/wrn-52-1/cifar100/without"
        root = self.dir / "root"
        root.mkdir()
        (root / "test.bin").write_text("of something else")
        result = self.run_program(*self.rehearse(table, data=root))
        self.assertIn("cifar100 is not in", result.err)
        (root / "train.bin").write_text("of something else")
        harness.write_cifar100(root / "cifar" / "cifar-100-binary")
        self.succeed(*self.rehearse(table, data=root))

    def test_nobody_hears_it(self):
        """What it prints is lost, and no run."""
        self.out.mkdir()
        (self.out / ".settings.json.tmp.999999999.0").write_text("of no living process")
        done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *self.command(*self.rehearse(SMALL))],
                              stderr=subprocess.PIPE, text=True, timeout=harness.TIME_LIMIT)
        self.assert_error(harness.Result(done.returncode, "", done.stderr), RUNTIME,
                          "cannot write to standard output")
        self.assertEqual(self.rows()["wrn-52-1", "cifar10", ""][6], "")
        self.assertEqual(harness.temporaries(self.out), [])

    def test_one_fails_and_the_rest_go_on(self):
        name = self.emptied_directory()
        (name / "seed1").write_text("a file")
        result = self.run_program(*self.rehearse(SMALL, OTHER))
        self.assert_error(result, RUNTIME,
                          ["wrn-52-1-cifar10-meanstd", "seed 1: cannot make the output directory"])
        self.assertIn("1 run finished, 1 failed", result.out)
        self.assertIn("failed: cannot make", self.rows()["wrn-52-1", "cifar10", ""][6])
        self.assertEqual(self.rows()["wrn-16-4", "cifar10", ""][6], "")
        (name / "seed1").unlink()
        self.succeed(*self.rehearse(SMALL, OTHER))
        self.assertEqual(self.rows()["wrn-52-1", "cifar10", ""][6], "")
        self.assertEqual(list(name.glob("*.failed")), [])

    def test_what_is_said_of_a_failure(self):
        """The last error of this attempt; warnings are none."""
        def failure(*lines):
            self.replace_wrn_train(*lines)
            return self.run_program(*self.rehearse(SMALL)).err

        self.assertIn("seed 1: no luck\n", failure(
            "echo wrn_train: no", "echo wrn_train: no luck", "echo wrn_train: warning: slow", "exit 3"))
        self.assertRegex(failure("exit 3"), r"seed 1: exit status 3; see \S+/seed1\.log\n")

    def test_a_failure_after_the_last_epoch(self):
        """What should have followed, the last checkpoint, is missing: the run goes on."""
        self.replace_wrn_train(CONFIG % 1, EPOCH % 1, "echo wrn_train: a full disk", "exit 1")
        self.assert_error(self.run_program(*self.rehearse(SMALL)), RUNTIME, "seed 1: a full disk")
        self.replace_wrn_train("touch again")
        self.succeed(*self.rehearse(SMALL))
        (run,) = self.runs().values()
        self.assertTrue((run / "again").exists())

    def emptied_directory(self):
        """The directory of SMALL's runs, with no run in it."""
        self.succeed(*self.rehearse(SMALL))
        (run,) = self.runs().values()
        shutil.rmtree(run)
        return run.parent

    def test_broken_run_directories(self):
        self.succeed(*self.rehearse(SMALL))
        (run,) = self.runs().values()
        good = without_times(read_metrics(run))
        for file in ("config.json", "metrics.jsonl"):
            for text in ("", "{", "\0" * 100):
                (run / file).write_text(text)
                self.assertEqual(self.rows_of_show()["wrn-52-1", "cifar10", ""][2], "")
                self.succeed(*self.rehearse(SMALL))
                self.assertEqual(without_times(read_metrics(run)), good)
        (run / "config.json").unlink()
        (run / "config.json").mkdir()
        self.assertEqual(self.rows_of_show()["wrn-52-1", "cifar10", ""][2], "")
        (run / "config.json").rmdir()
        (run / CHECKPOINT).write_text("no checkpoint")
        result = self.run_program(*self.rehearse(SMALL))
        self.assert_error(result, RUNTIME, ["seed 1: ", run / CHECKPOINT])
        shutil.rmtree(run)
        self.succeed(*self.rehearse(SMALL))

    def rows_of_show(self):
        self.succeed("show", "-o", self.out)
        return self.rows() or {("wrn-52-1", "cifar10", ""): ["", "", ""]}

    def test_output_directory(self):
        self.fail_with(RUNTIME, "show", "-o", self.out, says=[self.out, "holds no tables"])
        self.out.write_text("a file")
        self.fail_with(RUNTIME, *self.rehearse(SMALL), says=["cannot make", self.out, "another with -o"])
        self.out.unlink()
        self.out.mkdir()
        for text in ("", "{", "[]", '{"runs": "x"}'):
            (self.out / "settings.json").write_text(text)
            for args in (self.rehearse(SMALL), ["show", "-o", self.out]):
                self.fail_with(RUNTIME, *args, says=[self.out / "settings.json", "remove it"])
        (self.out / "settings.json").unlink()
        (self.out / "settings.json").symlink_to("settings.json")  # it is there, and cannot be read
        for args in (self.rehearse(SMALL), ["show", "-o", self.out]):
            self.fail_with(RUNTIME, *args, says=["settings.json cannot be read: Too many levels"])
        (self.out / "settings.json").unlink()
        (self.out / "settings.json").mkdir()
        self.fail_with(RUNTIME, "show", "-o", self.out, says=["settings.json cannot be read: Is a directory"])
        (self.out / "settings.json").rmdir()
        (self.out / "runs").write_text("a file")
        self.fail_with(RUNTIME, *self.rehearse(SMALL), says=["cannot make", self.out / "runs"])

    def test_no_wrn_train_beside_it(self):
        alone = self.dir / "wrn_tables"
        shutil.copy(harness.program_path.with_name("wrn_tables"), alone)
        done = subprocess.run([alone, *map(str, self.rehearse(SMALL))], capture_output=True,
                              text=True, timeout=harness.TIME_LIMIT)
        self.assert_error(harness.Result(done.returncode, done.stdout, done.stderr), RUNTIME,
                          ["cannot run", self.dir / "wrn_train"])


if __name__ == "__main__":
    harness.main()
