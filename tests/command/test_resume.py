"""The same command resumes a run that was stopped at any moment, bit for bit."""

import random
import shutil
import signal
import subprocess
import time

import pytest
from processes import COMMAND, SECONDS
from runs import (
    CLOSED_PIPE,
    INSTALLED,
    OPTIONS,
    assert_same_run,
    contents,
    full_disk_at,
    patch,
    read_history,
    stop_after,
    stop_before,
)

KILLED = -signal.SIGKILL
FINISHED = "already contains the finished run"
ROW, SAVE = "tf.keras.callbacks.CSVLogger.on_epoch_end", "tf.keras.Model.save"
# The stops, in this order, and how many epochs each leaves in the history.
STOPS = [
    (stop_before("os.replace"), None),  # the rule's file is not in its place yet
    (stop_after("os.replace"), None),
    (stop_after(ROW), 1),
    (stop_after(SAVE, call=2), 2),  # the second model is not in its place yet
    (stop_before("os.truncate"), 2),
    (stop_after("os.truncate"), 1),
    (stop_after("os.replace", call=3), 4),  # the last one is in place
    (stop_before("Figure.savefig"), 4),
    (stop_before("tf.summary.scalar", call=5), 4),
]


def test_killed_at_each_step(unbroken, tmp_path, train):
    """The lock on the directory ends with each process."""
    for stop, n_epochs in STOPS:
        train(tmp_path, *OPTIONS, patch=stop, status=KILLED)
        if n_epochs is None:
            assert not (tmp_path / "history.csv").exists()
        else:
            assert len(read_history(tmp_path)) == n_epochs
    assert FINISHED in train(tmp_path, *OPTIONS)
    assert_same_run(tmp_path, unbroken[0])


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_the_installed_command_killed_at_random_moments(seed, tmp_path):
    def run(run_dir, seconds=SECONDS):
        """Trains for 40 epochs; kills the command after some seconds."""
        options = [*OPTIONS, "--n-epochs", "40"]
        command = [INSTALLED, "train", "--run-dir", run_dir, *options]
        subprocess.run(command, check=True, timeout=seconds)

    start = time.monotonic()
    run(tmp_path / "unbroken")
    seconds = time.monotonic() - start
    rng = random.Random(seed)
    for _ in range(6):
        try:
            run(tmp_path / "broken", seconds * rng.uniform(0.3, 1))
        except subprocess.TimeoutExpired:
            continue
    run(tmp_path / "broken")
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_interrupted(interrupted, tmp_path, train):
    """After the third row, whose epoch is not saved, and before training."""
    run_dir, error = interrupted
    assert len(read_history(run_dir)) == 3
    kept = "to resume after the last complete epoch.\n"
    assert error == f"\nInterrupted. Run the same command {kept}"
    stop = stop_before("os.replace", signum=signal.SIGINT)
    error = train(tmp_path, *OPTIONS, "--overwrite", patch=stop, status=130)
    assert error == f"\nInterrupted. Run the same command without --overwrite {kept}"


def test_output_into_a_pipe_that_is_closed(unbroken, tmp_path, train):
    error = train(tmp_path, *OPTIONS, patch=CLOSED_PIPE, status=2)
    assert error == "expdecay-keras train: error: [Errno 32] Broken pipe\n"
    (tmp_path / "history.csv").write_text("epoch,accu")  # killed while it was written
    train(tmp_path, *OPTIONS)
    assert_same_run(tmp_path, unbroken[0])


def test_interrupted_then_on_a_full_disk(interrupted, unbroken, tmp_path, train):

    def fill_disk(run_dir, name, n_bytes):
        full = full_disk_at(name, n_bytes)
        assert "File too large" in train(run_dir, *OPTIONS, patch=full, status=2)

    fill_disk(tmp_path / "new", "json.dumps", 100)
    run_dir = shutil.copytree(interrupted[0], tmp_path / "run")
    model = (run_dir / "model.keras").read_bytes()
    fill_disk(run_dir, SAVE, 20_000)
    lines = (run_dir / "history.csv").read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    fill_disk(run_dir, ROW, len(b"".join(lines[:3])) + 20)
    assert (run_dir / "model.keras").read_bytes() == model
    output = train(run_dir, *OPTIONS)
    assert "Epoch 3/4" in output
    assert "Epoch 2/4" not in output
    assert_same_run(run_dir, unbroken[0])


def test_a_killed_overwrite_does_not_mix_two_runs(
    interrupted, unbroken, tmp_path, train
):
    run_dir = shutil.copytree(interrupted[0], tmp_path / "run")
    other = (run_dir / "callback.json").read_text().replace("0.001", "0.002")
    (run_dir / "callback.json").write_text(other)  # a run with another rule
    before = contents(run_dir)
    kill = stop_after("pathlib.Path.unlink")
    train(run_dir, *OPTIONS, "--overwrite", patch=kill, status=KILLED)
    del before[run_dir / "model.keras"]
    assert contents(run_dir) == before
    error = train(run_dir, *OPTIONS, status=2)
    assert "contains a run with other options: --target-lr 0.002. " in error
    kill = stop_after("os.replace")
    train(run_dir, *OPTIONS, "--overwrite", patch=kill, status=KILLED)
    assert "Epoch 1/4" in train(run_dir, *OPTIONS)
    assert_same_run(run_dir, unbroken[0])


# Two in one directory

ANOTHER = (
    "expdecay-keras train: error: another process is training in {}. Wait until it "
    "ends, or choose another --run-dir\n"
)


@pytest.mark.parametrize("name", ["os.replace", SAVE, "Figure.savefig"])
def test_a_second_train_while_the_first_one_is_at_work(name, unbroken, tmp_path, train):
    """It is refused, with --overwrite too, and the first one is not disturbed."""
    second = "sys.argv.append('--overwrite'); assert main(sys.argv[1:]) == 2"
    error = ANOTHER.format(tmp_path)
    train(tmp_path, *OPTIONS, patch=patch(name, second), stderr=error)
    assert_same_run(tmp_path, unbroken[0])


def test_two_started_at_once(unbroken, tmp_path, start, train):
    options = ("train", "--run-dir", tmp_path, *OPTIONS)
    processes = [start(COMMAND, *options) for _ in range(2)]
    done = [process.wait() for process in processes]
    first, second = sorted(done, key=lambda one: "Epoch 1/4" not in one.stdout)
    assert (first.status, first.stderr) == (0, "")
    assert "Epoch" not in second.stdout
    assert second.stderr == ANOTHER.format(tmp_path) or FINISHED in second.stdout
    assert FINISHED in train(tmp_path, *OPTIONS)
    assert_same_run(tmp_path, unbroken[0])
