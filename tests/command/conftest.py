import re
import shutil

import pytest
import tensorflow as tf
from processes import COMMAND, Process
from runs import INTERRUPTED, OPTIONS, interrupt

from expdecay_keras.command import main


@pytest.fixture
def call(capsys, monkeypatch):
    """Calls main(); returns its status, and what it has printed to stdout and stderr.

    `train` would turn on op determinism, in this process for good.
    """
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)

    def call(*arguments):
        status = main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(call):
    """Calls main(), which must refuse to start; returns the one line that says why."""

    def refused(command, *arguments):
        status, out, error = call(command, *arguments)
        assert (status, out) == (2, "")
        assert re.fullmatch(f"expdecay-keras {command}: error: .*\n", error), error
        return error

    return refused


@pytest.fixture
def begin(call, monkeypatch):
    """Begins a run, which is interrupted when it makes its model."""

    def begin(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(tf.keras.Model, "compile", interrupt)
            assert call("train", *arguments) == (130, "", INTERRUPTED)

    return begin


@pytest.fixture
def train(start, tmp_path):
    """Runs `train` in another process, after a patch, in a directory `run`."""

    def train(status=0, patch=""):
        options = ("train", "--run-dir", tmp_path / "run", *OPTIONS)
        done = start(patch + COMMAND, *options).wait()
        assert done.status == status, done.stderr
        return done

    return train


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """The directory of a run that was never stopped, and what it printed."""
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    options = ("train", "--run-dir", run_dir, *OPTIONS)
    done = Process(run_dir.parent, COMMAND, *options).wait()
    assert (done.status, done.stderr) == (0, "")
    return run_dir, done.stdout


@pytest.fixture
def run_dir(unbroken, tmp_path):
    """A copy of the finished run, to damage or overwrite."""
    return shutil.copytree(unbroken[0], tmp_path / "run")
