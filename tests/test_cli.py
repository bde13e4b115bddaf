import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from expdecay_keras import __version__
from expdecay_keras.cli import main

CONSOLE_SCRIPT = str(Path(sys.executable).with_name("expdecay-keras"))
COMMANDS = [
    pytest.param([CONSOLE_SCRIPT], id="script"),
    pytest.param([sys.executable, "-m", "expdecay_keras"], id="module"),
]


def imported(stderr):
    """The modules a process imported, by what `PYTHONPROFILEIMPORTTIME` made it print."""
    return {
        line.split("|")[-1].strip() for line in stderr.splitlines() if line.startswith("import time:")
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "arguments, status, output",
    [
        (["--help"], 0, "train a network by the rule"),
        (["train", "--help"], 0, "--compare-constant"),
        (["--version"], 0, f"expdecay-keras {__version__}"),
        (["train", "--base-lr", "-1"], 2, "Argument `base_lr` must be a finite number > 0. Received"),
        (["train", "--n-epochs", "3"], 2, "Argument `n_epochs` must be from 4 to"),
    ],
    ids=["help", "train-help", "version", "illegal-rate", "illegal-count"],
)
def test_answers_without_tensorflow(command, arguments, status, output):
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == status
    assert output in done.stdout + done.stderr
    assert "argparse" in imported(done.stderr)
    assert not {"tensorflow", "numpy"} & imported(done.stderr)


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: COMMAND"),
        (["bake"], "invalid choice: 'bake'"),
        (["train", "--base-lr", "fast"], "argument --base-lr: invalid float value: 'fast'"),
        (
            ["train", "--target-lr", "nan"],
            "`target_lr` must be a finite number > 0. Received: target_lr=nan",
        ),
        (["train", "--warmup-start-lr", "-1"], "`warmup_start_lr` must be a finite number >= 0"),
        (["train", "--n-epochs", "5.0"], "argument --n-epochs: invalid int value: '5.0'"),
        (["train", "--n-warmup-epochs", "-1"], "`n_warmup_epochs` must be from 0 to"),
        (["train", "--batch-size", "0"], "`batch_size` must be from 1 to"),
        (["train", "--seed", "4294967296"], "`seed` must be from 0 to 4294967295"),
        (["train", "--data", "no.npz"], "argument --data: no such file: no.npz"),
        (["train", "--model", "no.keras"], "argument --model: no such file: no.keras"),
        (["train", "--model", __file__], "argument --model: not a .keras file"),
        (["train", "--run", "x"], "unrecognized arguments: --run x"),
    ],
)
def test_bad_argument_is_one_line(arguments, message, capsys):
    assert message in refused(arguments, capsys)


def test_missing_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = refused(["train"], capsys)
    assert "matplotlib missing: pip install 'expdecay-keras[demo]'" in message


GOOD = {
    "x_train": np.zeros((4, 3)),
    "y_train": np.arange(4),
    "x_test": np.zeros((2, 3)),
    "y_test": np.arange(2),
}


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x_train": np.zeros((4, 3))}, "is no .npz file of x_train, y_train, x_test, y_test"),
        ({**GOOD, "y_test": np.arange(3)}, "x_test has 2 rows and y_test has 3"),
        ({**GOOD, "x_train": np.zeros((0, 3))}, "x_train must be a non-empty array of numbers"),
        ({**GOOD, "y_train": np.array(list("abcd"))}, "y_train must be a non-empty array of numbers"),
        ({**GOOD, "y_train": np.array([None] * 4)}, "Object arrays cannot be loaded"),
        ({**GOOD, "x_test": np.array(1.0)}, "x_test must be a non-empty array of numbers"),
        ({**GOOD, "x_test": np.zeros((2, 0))}, "x_test must be a non-empty array of numbers"),
        ({**GOOD, "x_test": np.zeros((2, 4))}, "a row of x_train has shape (3,) and of x_test (4,)"),
    ],
    ids=["missing", "rows", "empty", "strings", "pickled", "scalar", "no-columns", "shapes"],
)
def test_bad_data_is_one_line(arrays, message, tmp_path, capsys):
    np.savez(tmp_path / "data.npz", **arrays)
    run_dir = tmp_path / "run"
    assert message in refused(
        ["train", "--data", str(tmp_path / "data.npz"), "--run-dir", str(run_dir)], capsys
    )
    assert not run_dir.exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 and then nothing"])
def test_damaged_data_is_one_line(content, tmp_path, capsys):
    (tmp_path / "data.npz").write_bytes(content)
    run_dir = tmp_path / "run"
    message = refused(["train", "--data", str(tmp_path / "data.npz"), "--run-dir", str(run_dir)], capsys)
    assert "is no .npz file of" in message
    assert not run_dir.exists()


def test_run_directory_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    message = refused(["train", "--run-dir", str(tmp_path / "file" / "run")], capsys)
    assert f"Cannot write to {tmp_path / 'file'}" in message
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize(
    "name", ["history.csv", "model.keras", "tensorboard/mine", "state/mine", "state.dropped/mine"]
)
def test_a_users_files_are_not_overwritten(name, options, tmp_path, capsys):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    message = refused(["train", "--run-dir", str(tmp_path), *options], capsys)
    assert "no run of this program wrote it" in message
    assert file.read_text() == "mine"


def test_damaged_archive_member(tmp_path, capsys):
    np.savez_compressed(tmp_path / "data.npz", **{**GOOD, "x_train": np.random.rand(4, 3)})
    content = bytearray((tmp_path / "data.npz").read_bytes())
    start = content.index(b"x_train.npy") + 60
    content[start : start + 40] = b"\xff" * 40
    (tmp_path / "data.npz").write_bytes(content)
    options = ["--data", str(tmp_path / "data.npz"), "--run-dir", str(tmp_path / "run")]
    assert "is no .npz file of" in refused(["train", *options], capsys)


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("content", ["[1", "[]", '{"mine": 1}'])
def test_a_run_json_of_someone_else(content, options, tmp_path, capsys):
    (tmp_path / "run.json").write_text(content)
    message = refused(["train", "--run-dir", str(tmp_path), *options], capsys)
    assert "run.json is there and no run of this program wrote it" in message
    assert (tmp_path / "run.json").read_text() == content


def test_console_script_is_installed():
    assert shutil.which("expdecay-keras", path=str(Path(sys.executable).parent))
