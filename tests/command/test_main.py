"""The front door: options, refusals, what is imported when, and what is put back."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONSOLE_SCRIPT, illegal_arguments
from hypothesis import HealthCheck, given, settings

from expdecay_keras import __version__
from expdecay_keras.command import main


def command(*arguments, **options):
    """Runs the installed command and returns what it did, said and imported."""
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    arguments = [CONSOLE_SCRIPT, *arguments]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, **options)
    lines = done.stderr.splitlines()
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    said = [line for line in lines if not line.startswith("import time:")]
    assert "argparse" in imported
    return done, said, imported


@pytest.mark.parametrize(
    "arguments, status, output",
    [
        (["--help"], 0, "train a network by the rule"),
        (["train", "--help"], 0, "--compare-constant"),
        (["preview", "--help"], 0, "--callback FILE.json"),
        (["--version"], 0, f"expdecay-keras {__version__}"),
        (["train", "--base-lr", "-1"], 2, "Argument `base_lr` must be a finite number > 0. Received"),
        (["train", "--data", "no.npz"], 2, "No such file or directory: 'no.npz'"),
    ],
    ids=["help", "train-help", "preview-help", "version", "illegal-rate", "no-file"],
)
def test_answers_without_tensorflow(arguments, status, output):
    done, said, imported = command(*arguments)
    assert done.returncode == status
    assert output in done.stdout + "\n".join(said)
    assert not {"tensorflow", "numpy"} & imported


def test_the_module_is_the_same_command():
    command = [sys.executable, "-m", "expdecay_keras", "train", "--n-epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "expdecay-keras train: error: "
        f"Argument `n_epochs` must be from 2 to {2**53}. Received: n_epochs=1\n"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: COMMAND"),
        (["bake"], "invalid choice: 'bake'"),
        (["train", "--base-lr", "fast"], "argument --base-lr: invalid float value: 'fast'"),
        (["train", "--target-lr", "nan"], "must be a finite number > 0. Received: target_lr=nan"),
        (["train", "--target-lr", "-1e-4"], "must be a finite number > 0. Received: target_lr=-0.0001"),
        (["train", "--target-lr", "-inf"], "must be a finite number > 0. Received: target_lr=-inf"),
        (
            ["train", "--warmup-start-lr", "-.5"],
            "must be a finite number >= 0. Received: warmup_start_lr=-0.5",
        ),
        (["train", "--n-epochs", "5.0"], "argument --n-epochs: invalid int value: '5.0'"),
        (["train", "--n-warmup-epochs", "-1"], "`n_warmup_epochs` must be from 0 to"),
        (
            ["train", "--n-epochs", "10", "--n-warmup-epochs", "9"],
            "Argument `n_epochs` must be at least n_warmup_epochs + n_hold_epochs + 2, one epoch at "
            "base_lr and one at target_lr. Received: n_epochs=10, n_warmup_epochs=9",
        ),
        (["train", "--n-hold-epochs", "17"], "n_epochs=20, n_warmup_epochs=2, n_hold_epochs=17"),
        (["train", "--batch-size", "0"], "`batch_size` must be from 1 to"),
        (["train", "--seed", "4294967296"], "`seed` must be from 0 to 4294967295"),
        (["train", "--data", "no.npz"], "No such file or directory: 'no.npz'"),
        (["train", "--model", "no.keras"], "No such file or directory: 'no.keras'"),
        (["train", "--model", __file__], "argument --model: not a .keras file"),
        (["train", "--run", "x"], "unrecognized arguments: --run x"),
    ],
)
def test_bad_argument_is_one_line(arguments, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("package", ["filelock", "matplotlib", "sklearn", "tensorboard"])
def test_missing_extra(package, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, package, None)
    assert f"{package} missing: pip install 'expdecay-keras[demo]'" in refused("train")


@pytest.mark.parametrize(
    "n_draws", [pytest.param(50, id="some"), pytest.param(10_000, id="many", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", ["preview", "train"])
def test_illegal_options_at_random(name, n_draws, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]

    @given(illegal_arguments())
    @settings(max_examples=n_draws, deadline=None, suppress_health_check=slow, print_blob=True)
    def check(drawn):
        arguments, illegal, error = drawn
        read = float if illegal.endswith("_lr") else int
        texts = {key: str(value) for key, value in arguments.items() if value is not None}
        if illegal not in texts:
            return  # there is no text for it
        try:
            shown = f"{illegal}={read(texts[illegal])!r}"
        except ValueError:
            option = f"--{illegal.replace('_', '-')}"
            shown = f"argument {option}: invalid {read.__name__} value: {texts[illegal]!r}"
        else:
            if error is TypeError:  # a string of digits, say: on the command line that is a number
                return
        options = [f"--{key.replace('_', '-')}={text}" for key, text in texts.items()]
        assert shown in refused(name, *options)

    check()
    assert os.listdir(tmp_path) == []


def test_console_script_is_installed():
    assert shutil.which("expdecay-keras", path=str(Path(sys.executable).parent))


# What is imported, and what is put back

NAMES = """
import expdecay_keras
from expdecay_keras import *
from expdecay_keras import DecayRule, WarmupExponentialDecay, make_lr_scheduler
for name in expdecay_keras.__all__:
    assert getattr(expdecay_keras, name).__module__.startswith("expdecay_keras.")
import tensorflow as tf
for name in ("WarmupExponentialDecay", "WarmupExponentialSchedule", "LearningRateLogger"):
    assert tf.keras.utils.get_registered_object("expdecay_keras>" + name)
try:
    expdecay_keras.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
"""


@pytest.mark.parametrize("program", ["", "train.py", "expdecay-keras", "/usr/bin/expdecay-keras", "-m"])
def test_every_name_is_there_in_a_process_of_any_name(program, python):
    python(NAMES, program=program)


def test_importing_the_package_registers_its_classes(python):
    script = """
import expdecay_keras
import tensorflow as tf
assert set(expdecay_keras.__all__) <= set(vars(expdecay_keras))
assert tf.keras.utils.get_registered_object("expdecay_keras>WarmupExponentialSchedule")
"""
    python(script)


def test_the_library_does_not_import_the_command(python):
    python("import expdecay_keras; assert 'expdecay_keras.command' not in sys.modules")


def test_what_tensorflow_writes_at_its_start_is_shown_if_it_fails(tmp_path):
    """A module that writes to file descriptor 2 stands for it."""
    written = "import os; os.write(2, b'written at start\\n')"
    (tmp_path / "tensorflow.py").write_text(f"{written}; import no_such_module")
    arguments = [CONSOLE_SCRIPT, "preview", "--base-lr", "1", "--target-lr", "0.1", "--n-epochs", "3"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "written at start\nexpdecay-keras preview: error: No module named 'no_such_module'\n"
    )


def test_signal_handlers_are_put_back(monkeypatch, tmp_path):
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    run = importlib.import_module("expdecay_keras.command.run")
    monkeypatch.setattr(run.RunDirectory, "check", interrupt)
    assert main(["train", "--run-dir", str(tmp_path / "run")]) == 143
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(SystemExit):
        main(["train", "--n-epochs", "1"])
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
