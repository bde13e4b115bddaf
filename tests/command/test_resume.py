"""The same command resumes a run that was stopped at any moment, bit for bit."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import SECONDS
from runs import (
    CLOSED_PIPE,
    INTERRUPTED,
    OPTIONS,
    assert_same_run,
    contents,
    full_disk_at,
    interrupt,
    read_history,
    stop_before,
)

KILLED, SAVE = -signal.SIGKILL, "tf.keras.Model.save"
ERROR = "expdecay-keras train: error: "
# In this order: a way to stop, the status, the error, and how many epochs are in the
# history afterwards. `os.replace` is called for each file that is complete.
STOPS = [
    (full_disk_at("json.dumps", 100), 2, "File too large", None),
    (stop_before("os.replace"), KILLED, "", None),
    (CLOSED_PIPE, 2, f"{ERROR}[Errno 32] Broken pipe\n", 0),
    (stop_before(SAVE), KILLED, "", 1),  # no model yet, so it starts from scratch
    (stop_before("os.replace", call=5), KILLED, "", 2),  # the second model
    (stop_before("os.replace", signum=signal.SIGINT), 130, INTERRUPTED, 2),
    (full_disk_at("csv.DictWriter", 100), 2, "File too large", 2),
    (full_disk_at(SAVE, 20_000, call=2), 2, "File too large", 3),
    (stop_before("tf.summary.scalar", call=11), KILLED, "", 4),  # it was trained
]


def test_stopped_between_and_while_writing_its_files(unbroken, tmp_path, train):
    """By a kill, Ctrl-C, a full disk or a closed pipe."""
    run_dir = tmp_path / "run"
    for stop, status, error, n_epochs in STOPS:
        assert error in train(status, stop).stderr
        if n_epochs is None:
            assert not (run_dir / "callback.json").exists()
        else:
            assert len(read_history(run_dir)) == n_epochs
    assert "already contains the finished run" in train().stdout
    assert_same_run(run_dir, unbroken[0])


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_the_installed_command_killed_at_random_moments(seed, tmp_path):
    def run(run_dir, seconds=SECONDS):
        """Trains for 40 epochs; kills the command after some seconds."""
        installed = Path(sys.executable).with_name("expdecay-keras")
        options = [*OPTIONS, "--n-epochs", "40"]
        command = [installed, "train", "--run-dir", run_dir, *options]
        subprocess.run(command, check=True, timeout=seconds)

    start = time.monotonic()
    run(tmp_path / "unbroken")
    seconds = time.monotonic() - start
    rng = random.Random(seed)
    for _ in range(6):
        with contextlib.suppress(subprocess.TimeoutExpired):
            run(tmp_path / "broken", seconds * rng.uniform(0.3, 1))
    run(tmp_path / "broken")
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


def test_an_interrupted_overwrite_does_not_mix_two_runs(
    run_dir, begin, refused, monkeypatch
):
    path, model = run_dir / "callback.json", run_dir / "model.keras"
    path.write_text(path.read_text().replace("0.001", "0.002"))
    command = ("--run-dir", run_dir, *OPTIONS)
    before = contents(run_dir)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        begin(*command, "--overwrite")
    del before[model]
    (run_dir / "partial.json").unlink()
    assert contents(run_dir) == before
    error = refused("train", *command)
    assert "contains a run with other options: --target-lr 0.002. " in error
    begin(*command, "--overwrite")
    begin(*command)
    assert json.loads(path.read_text())["config"]["target_lr"] == 0.001
    assert not model.exists()


SECOND = """
replace = os.replace
def patched(*paths):
    assert main(sys.argv[1:]) == main([*sys.argv[1:], "--overwrite"]) == 2
    replace(*paths)
os.replace = patched
"""


def test_a_second_train_is_refused_while_the_first_one_is_at_work(
    unbroken, tmp_path, train
):
    """It is refused, with --overwrite too, and the first one is not disturbed."""
    run_dir = tmp_path / "run"
    error = (
        f"{ERROR}another process is training in {run_dir}. Wait until it ends, or "
        "choose another --run-dir\n"
    )
    assert train(patch=SECOND).stderr == error * 20  # each time a file is complete
    assert_same_run(run_dir, unbroken[0])
