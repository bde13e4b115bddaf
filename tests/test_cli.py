import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import float32_rates

from expdecay_keras import DecayRule, __version__
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
        (["preview", "--help"], 0, "--callback FILE.json"),
        (["--version"], 0, f"expdecay-keras {__version__}"),
        (["train", "--base-lr", "-1"], 2, "Argument `base_lr` must be a finite number > 0. Received"),
        (["train", "--n-epochs", "3"], 2, "Argument `n_epochs` must be from 4 to"),
    ],
    ids=["help", "train-help", "preview-help", "version", "illegal-rate", "illegal-count"],
)
def test_answers_without_tensorflow(command, arguments, status, output):
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == status
    assert output in done.stdout + done.stderr
    assert "argparse" in imported(done.stderr)
    assert not {"tensorflow", "numpy"} & imported(done.stderr)


def refused(arguments, capsys):
    """Runs a command that has to be refused; returns the one line it says."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert stopped.value.code == 2 and captured.out == ""
    assert captured.err.count("\n") == 1 and len(captured.err.splitlines()) == 1
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


# preview


def preview(*options, **environment):
    """Runs the command as a user does, with stdout taken as UTF-8 of 80 columns."""
    environment = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment}
    command = [CONSOLE_SCRIPT, "preview", *options]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def options_of(base_lr, target_lr, n_epochs, n_warmup_epochs):
    numbers = {
        "base-lr": base_lr,
        "target-lr": target_lr,
        "n-epochs": n_epochs,
        "n-warmup-epochs": n_warmup_epochs,
    }
    return [text for name, value in numbers.items() for text in (f"--{name}", str(value))]


def test_preview_of_the_seed_table(seed_row, seed_rates):
    lines = preview(*options_of(*seed_row)).splitlines()
    shown = [line.split()[:2] for line in lines[-5:]]
    assert shown == [[str(epoch), f"{rate:.6f}"] for epoch, rate in enumerate(seed_rates)]
    assert "λ" in lines[0] and "█" in lines[-1] and max(map(len, lines)) == 80
    ascii_lines = preview(*options_of(*seed_row), PYTHONIOENCODING="latin-1", COLUMNS="50").splitlines()
    assert [line.split()[:2] for line in ascii_lines[-5:]] == shown
    assert "".join(ascii_lines).isascii() and max(map(len, ascii_lines)) == 50


def test_preview_as_csv_and_json_reads_back_to_the_bit(seed_row, seed_rates, capsys):
    rates = float32_rates(DecayRule(*seed_row), range(5))
    assert [round(rate, 6) for rate in rates] == seed_rates
    assert main(["preview", *options_of(*seed_row), "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(int(row["epoch"]), float(row["learning_rate"])) for row in rows] == list(enumerate(rates))
    assert main(["preview", *options_of(*seed_row), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["epoch"], row["learning_rate"]) for row in rows] == list(enumerate(rates))


@pytest.mark.parametrize("form", ["csv", "json"])
def test_preview_shows_every_epoch(form, capsys, monkeypatch):
    numbers = (0.1, 1e-4, 100_003, 2)
    assert main(["preview", *options_of(*numbers), "--format", form]) == 0
    shown = capsys.readouterr().out
    rows = json.loads(shown) if form == "json" else list(csv.DictReader(shown.splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(100_003))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == float32_rates(DecayRule(*numbers), range(100_003))


def test_preview_of_a_ramp(capsys):
    options = [*options_of(0.1, 1e-4, 5, 2), "--warmup-start-lr", "0.02", "--format", "csv"]
    assert main(["preview", *options]) == 0
    assert "0,0.0199999" in capsys.readouterr().out


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_preview_draws(suffix, start, tmp_path, capsys):
    file = tmp_path / f"rates{suffix}"
    options = [*options_of(0.1, 1e-4, 5, 2), "--plot", str(file), "--format", "csv"]
    assert main(["preview", *options]) == 0
    assert file.read_bytes().startswith(start)
    assert len(capsys.readouterr().out.splitlines()) == 6


def save_callback(path, *arguments):
    from expdecay_keras import WarmupExponentialDecay

    saved = tf.keras.utils.serialize_keras_object(WarmupExponentialDecay(*arguments))
    path.write_text(json.dumps(saved))
    return saved


def test_preview_of_a_saved_callback(tmp_path, capsys):
    numbers = (0.1, 1e-4, 5, 2, 0.02, 1)
    saved = save_callback(tmp_path / "callback.json", *numbers)
    rates = float32_rates(DecayRule(*numbers[:5]), range(5))
    for name in ("WarmupExponentialDecay", "expdecay_keras>WarmupExponentialDecay"):
        (tmp_path / "callback.json").write_text(json.dumps({**saved, "class_name": name}))
        options = ["--callback", str(tmp_path / "callback.json"), "--format", "csv"]
        assert main(["preview", *options]) == 0
        rows = csv.DictReader(capsys.readouterr().out.splitlines())
        assert [float(row["learning_rate"]) for row in rows] == rates


@pytest.mark.parametrize("form", ["table", "csv"])
def test_preview_into_a_pipe_that_closes(form):
    options = [*options_of(0.1, 1e-4, 2**53, 2), "--format", form]
    command = [CONSOLE_SCRIPT, "preview", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if form == "csv":
        assert process.stdout.readline() == "epoch,learning_rate\n"
    process.stdout.close()
    assert process.wait() == 0
    stderr = process.stderr.read()
    process.stderr.close()
    assert "Broken" not in stderr and "Error" not in stderr


PREVIEW = ["preview", *options_of(0.1, 1e-4, 5, 2)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["preview"], "required: --base-lr, --target-lr, --n-epochs (or --callback)"),
        ([*PREVIEW[:-4], "--n-epochs", "1"], "`n_epochs` must be from 2 to"),
        ([*PREVIEW, "--base-lr", "inf"], "`base_lr` must be a finite number > 0. Received: base_lr=inf"),
        ([*PREVIEW, "--warmup-start-lr", "-1"], "`warmup_start_lr` must be a finite number >= 0"),
        ([*PREVIEW, "--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (
            [*PREVIEW, "--plot", "rates.gif"],
            "argument --plot: must end in .png, .svg or .pdf",
        ),
        ([*PREVIEW, "--plot", "rates"], "argument --plot: must end in .png, .svg or .pdf: rates"),
        ([*PREVIEW, "--plot", "no/rates.png"], "No such file or directory: no/rates.png"),
        ([*PREVIEW, "--plot", "here.png"], "Is a directory: here.png"),
        ([*PREVIEW, "--plot", "a.png", "--target-lr", "0"], "`target_lr` must be a finite number > 0"),
        (["preview", "--callback", "no.json"], "argument --callback: no such file: no.json"),
        ([*PREVIEW, "--callback", "here.json"], "--callback: not allowed with --base-lr, --target-lr"),
    ],
)
def test_preview_refuses_without_tensorflow(arguments, message, tmp_path):
    (tmp_path / "here.png").mkdir()
    (tmp_path / "here.json").write_text("{}")
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    command = [CONSOLE_SCRIPT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2 and done.stdout == ""
    assert len(said) == 1 and message in said[0]
    assert not {"tensorflow", "numpy"} & imported(done.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.json", "here.png"]


SCHEDULE = '{"class_name": "ExponentialDecay", "config": {"initial_learning_rate": 0.1}}'


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "maximum recursion depth"),
        ("\udc80", "invalid start byte"),
        ("[]", "class_name is None"),
        ("null", "class_name is None"),
        (SCHEDULE, "class_name is 'ExponentialDecay'"),
        (
            '{"class_name": "WarmupExponentialDecay"}',
            "config is None",
        ),
        ('{"class_name": "WarmupExponentialDecay", "config": {}}', "base_lr"),
        ({"base_lr": -1}, "Argument `base_lr` must be a finite number > 0. Received: base_lr=-1"),
        ({"base_lr": float("nan")}, "Argument `base_lr` must be a finite number > 0"),
        ({"line\nbreak": 1}, "unexpected keyword argument 'line break'"),
    ],
)
def test_preview_of_a_file_that_holds_no_callback(content, message, tmp_path, capsys):
    file = tmp_path / "callback.json"
    if isinstance(content, dict):
        saved = save_callback(file, 0.1, 1e-4, 5)
        content = json.dumps({**saved, "config": {**saved["config"], **content}})
    file.write_text(content, errors="surrogateescape", encoding="utf-8")
    said = refused(["preview", "--callback", str(file), "--plot", str(tmp_path / "a.png")], capsys)
    assert f"{file} holds no WarmupExponentialDecay: " in said and message in said
    assert [path.name for path in tmp_path.iterdir()] == ["callback.json"]


def test_preview_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused([*PREVIEW, "--plot", str(tmp_path / "a.png")], capsys)
    assert "matplotlib missing: pip install 'expdecay-keras[plot]'" in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", ["table", "csv"])
def test_preview_into_a_full_disk(form):
    with open("/dev/full", "w") as full:
        command = [CONSOLE_SCRIPT, *PREVIEW, "--format", form]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "expdecay-keras preview: error: No space left on device: standard output"
    )
    assert "Traceback" not in done.stderr


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, capsys):
    from matplotlib.figure import Figure

    def fill(self, file, **options):
        file.write_text("half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fill)
    (tmp_path / "rates.png").write_text("mine")
    said = refused([*PREVIEW, "--plot", str(tmp_path / "rates.png")], capsys)
    assert said.endswith(f"No space left on device: {tmp_path / 'rates.png'}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]
    assert (tmp_path / "rates.png").read_text() == "mine"
