import re
import signal

import pytest
from processes import COMMAND, Process
from runs import OPTIONS, stop_after

from expdecay_keras.command import main


def assert_one_line(command, error):
    assert re.fullmatch(f"expdecay-keras {command}: error: .*\n", error), error


@pytest.fixture
def train(start):
    """Runs `train` after a patch; returns stdout, or stderr if the status is not 0.

    If the status is 2, stderr is the one line that says why.
    """

    def train(run_dir, *options, patch="", status=0, stderr=""):
        options = ("train", "--run-dir", run_dir, *options)
        done = start(patch + COMMAND, *options).wait()
        assert done.status == status, done.stderr
        if status == 0:
            assert done.stderr == stderr
            return done.stdout
        if status == 2:
            assert_one_line("train", done.stderr)
        return done.stderr

    return train


@pytest.fixture
def refused(capsys):
    """Calls main(), which must refuse to start; returns the one line that says why."""

    def refused(command, *arguments):
        assert main([command, *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert_one_line(command, captured.err)
        return captured.err

    return refused


def run_once(tmp_path_factory, name, patch=""):
    run_dir = tmp_path_factory.mktemp(name) / "run"
    options = ("train", "--run-dir", run_dir, *OPTIONS)
    return run_dir, Process(run_dir.parent, patch + COMMAND, *options).wait()


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """The directory of a run that was never stopped, and what it printed."""
    run_dir, done = run_once(tmp_path_factory, "unbroken")
    assert (done.status, done.stderr) == (0, "")
    return run_dir, done.stdout


@pytest.fixture(scope="session")
def interrupted(tmp_path_factory):
    """The directory of a run interrupted after the third row, and what it printed."""
    row = "tf.keras.callbacks.CSVLogger.on_epoch_end"
    patch = stop_after(row, call=3, signum=signal.SIGINT)
    run_dir, done = run_once(tmp_path_factory, "interrupted", patch)
    assert done.status == 130, done.stderr
    return run_dir, done.stderr
