"""What `expdecay-keras train` writes and prints, and what it refuses."""

import io
import json
import re
import shutil
import signal
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from oracle import float32_rates
from processes import COMMAND
from runs import (
    OPTIONS,
    RULE,
    assert_same_run,
    contents,
    curves,
    patch,
    read_history,
    stop_after,
)

from expdecay_keras import DecayRule, WarmupExponentialDecay

FILES = ["callback.json", "model.keras", "history.csv", "learning_rate.png"]


@pytest.fixture
def run_dir(unbroken, tmp_path):
    """A copy of the finished run, to damage or overwrite."""
    return shutil.copytree(unbroken[0], tmp_path / "run")


@pytest.fixture
def stopped(interrupted, tmp_path):
    """A copy of a run that was stopped when its second epoch was complete."""
    run_dir = shutil.copytree(interrupted[0], tmp_path / "stopped")
    lines = (run_dir / "history.csv").read_bytes().splitlines(keepends=True)
    (run_dir / "history.csv").write_bytes(b"".join(lines[:3]))
    return run_dir


def test_results(unbroken):
    run_dir, output = unbroken
    rows = read_history(run_dir)
    assert [int(row["epoch"]) for row in rows] == list(range(4))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == float32_rates(DecayRule(*RULE), range(4))
    assert float(rows[-1]["val_accuracy"]) > 0.85
    for (part, name), curve in curves(run_dir).items():
        column = name if part == "train" else f"val_{name}"
        assert curve == [(i, np.float32(row[column])) for i, row in enumerate(rows)]
    saved = json.loads((run_dir / "callback.json").read_text())
    callback = tf.keras.utils.deserialize_keras_object(saved)
    assert callback.get_config() == WarmupExponentialDecay(*RULE).get_config()
    assert (run_dir / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in run_dir.iterdir()} == {*FILES, "tensorboard"}
    assert "learning_rate: 0.2000" in output
    assert output.count("- loss: ") == 4  # one line per epoch, without bars
    accuracy, loss = (float(rows[-1][f"val_{name}"]) for name in ("accuracy", "loss"))
    paths = [f"  {run_dir / name}" for name in [*FILES, "tensorboard"]]
    assert output.splitlines()[-7:] == [
        f"Test accuracy: {accuracy:.3f}, test loss: {loss:.3f} (on the last 360 "
        "digits, which are harder than the shuffled ones of the README's comparison)",
        "Results:",
        *paths,
    ]


def test_a_finished_run_is_not_trained_again(run_dir, unbroken, train):
    """What is made from its history is made again, whether or not it is missing."""
    before = contents(run_dir)
    for _ in range(2):
        output = train(run_dir, *OPTIONS)
        assert f"{run_dir} already contains the finished run" in output
        assert output.splitlines()[-7:] == [
            line.replace(str(unbroken[0]), str(run_dir))
            for line in unbroken[1].splitlines()[-7:]
        ]
        assert "Epoch" not in output
        for name in FILES:
            assert (run_dir / name).read_bytes() == before[run_dir / name]
        assert_same_run(run_dir, unbroken[0])
        shutil.rmtree(run_dir / "tensorboard")
        (run_dir / "learning_rate.png").unlink()


def rule_of(train, run_dir, *options):
    """The arguments of the rule of a run, which is killed when it has begun."""
    train(run_dir, *options, patch=stop_after("os.replace"), status=-signal.SIGKILL)
    return json.loads((run_dir / "callback.json").read_text())["config"]


@pytest.mark.parametrize(
    "options, start_lr",
    [
        ("--base-lr 0.001", 0.00005),
        ("--warmup-start-lr 0", 0.0),
        ("--warmup-start-lr 0.3 --n-warmup-epochs 1", 0.3),
        ("--n-warmup-epochs 0", None),
    ],
)
def test_the_rate_at_which_the_ramp_starts(options, start_lr, train, tmp_path):
    """By default a twentieth of the base rate; without warm-up there is no ramp."""
    rule = rule_of(train, tmp_path, *options.split())
    assert rule["warmup_start_lr"] == start_lr


def test_defaults(start, tmp_path):
    """In a fresh folder, the directories are made as well."""
    script = stop_after("os.replace") + COMMAND
    assert start(script, "train", cwd=tmp_path).wait().status == -signal.SIGKILL
    saved = json.loads((tmp_path / "runs/digits/callback.json").read_text())
    expected = WarmupExponentialDecay(0.2, 0.01, 20, 2, 0.01)
    assert saved["config"] == expected.get_config()


# Refusals: one line says why, and every file stays as it is.


@pytest.mark.parametrize(
    "begun, options, others",
    [
        ("", "--n-hold-epochs 1", "--n-hold-epochs 0"),
        ("--n-warmup-epochs 0", "", "--n-warmup-epochs 0"),
        ("", "--n-warmup-epochs 0", "--n-warmup-epochs 2 --warmup-start-lr 0.01"),
        ("--base-lr 0.4", "", "--base-lr 0.4 --warmup-start-lr 0.02"),
    ],
)
def test_a_run_with_other_options_is_refused(begun, options, others, tmp_path, train):
    rule_of(train, tmp_path, *begun.split())
    before = contents(tmp_path)
    assert train(tmp_path, *options.split(), status=2) == (
        f"expdecay-keras train: error: {tmp_path} contains a run with other options: "
        f"{others}. Choose another --run-dir, or pass --overwrite to discard that run\n"
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("name", ["model.keras", "history.csv", "tensorboard/events"])
def test_files_that_belong_to_no_run_are_refused(name, options, tmp_path, train):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    error = train(tmp_path, *OPTIONS, *options, status=2)
    assert f"{tmp_path / name.split('/')[0]} does not belong to a run" in error
    assert contents(tmp_path) == {file: b"mine"}


@pytest.mark.parametrize(
    "name, reason",
    [
        ("file/run", "[Errno 20] Not a directory: '{}'"),
        ("\udcff", "TensorFlow accepts only paths in UTF-8. Received: --run-dir '{}'"),
    ],
)
def test_directories_that_cannot_be_used(name, reason, tmp_path, train):
    (tmp_path / "file").write_text("mine")
    error = train(tmp_path / name, status=2)
    path = repr(str(tmp_path / name)).strip("'")
    assert error == f"expdecay-keras train: error: {reason.format(path)}\n"
    assert contents(tmp_path) == {tmp_path / "file": b"mine"}


def in_a_zip(name):
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr(name, "")
    return file.getvalue()


UNFINISHED = "does not contain every epoch that model.keras was trained for (2)"
FOREIGN = "does not contain a WarmupExponentialDecay"
ILLEGAL = "(Argument `base_lr` must be a finite number > 0. Received: base_lr=-0.2)"
TEXT = "(Argument `base_lr` must be a real number. Received: base_lr='x')"
ENCODING = "can't decode byte 0xff in position"
NUMBER = "(could not convert string to float: 'x.9')"
COLUMNS = "(its columns must be epoch,accuracy,learning_rate,loss,val_accuracy,"
# What is replaced, by what, and the reason that is given.
DAMAGES = [
    ("model.keras", rb"(?s).{200}\Z", b"", "cannot be loaded"),
    ("model.keras", b"(?s).*", b"", "cannot be loaded"),
    ("model.keras", b"(?s).*", in_a_zip("mine"), "config.json"),
    ("callback.json", rb"(?s).{20}\Z", b"", "line 1 column"),
    ("callback.json", b"(?s).*", b"", "(Expecting value: line 1 column 1 (char 0))"),
    ("callback.json", b"(?s).*", b"null", FOREIGN),
    ("callback.json", b"(?s).*", b"{}", ""),
    ("callback.json", b"_lr", b"\xff", ENCODING),
    ("callback.json", b"0.2", b"-0.2", ILLEGAL),
    ("callback.json", b"0.2", b'"x"', TEXT),
    ("history.csv", rb"(?s).{99}\Z", b"", UNFINISHED),
    ("history.csv", rb"(?s).{3}\Z", b"", UNFINISHED),
    ("history.csv", b"(?m)^0,.*\n", b"", UNFINISHED),
    ("history.csv", b"(?s).*", b"", UNFINISHED),
    ("history.csv", b"val_loss", b"val_mse", COLUMNS),
    ("history.csv", b"\n1,[^,]*,", b"\n1,x.9,", NUMBER),
    (
        "history.csv",
        b"\n1,[^,]*,",
        b"\n1,",
        "(each row must have as many values as the header)",
    ),
    ("history.csv", b"val_loss", b"val_\xff", ENCODING),
]


@pytest.mark.parametrize(
    "name, old, new, reason", DAMAGES, ids=[f"{row[0]} {row[3]}" for row in DAMAGES]
)
def test_a_damaged_run_is_refused(name, old, new, reason, stopped, train):
    """Before any epoch is trained, which would change its files."""
    path = stopped / name
    path.write_bytes(re.sub(old, lambda _: new, path.read_bytes(), count=1))
    before = contents(stopped)
    error = train(stopped, *OPTIONS, status=2)
    assert error.startswith(f"expdecay-keras train: error: {path} ")
    assert reason in error
    assert error.endswith(". Pass --overwrite to start from scratch\n")
    assert contents(stopped) == before


LOAD = "tf.keras.models.load_model"
LOADED = "error: {}/model.keras cannot be loaded"
START = "tf.keras.callbacks.CSVLogger.on_train_begin"
NO_FILE = "os.remove(args[0].filename); os.mkdir(args[0].filename)"
OTHERS = [
    (LOAD, "raise ValueError", f"{LOADED} (ValueError). Pass --overwrite to start"),
    (LOAD, "raise KeyError(1)", f"{LOADED} (1). Pass --overwrite to start"),
    (LOAD, "raise OSError('a\\n b')", f"{LOADED} (a). Pass --overwrite to start"),
    ("os.truncate", "raise OSError('a\\n  b')", "error: a b\n"),
    ("Figure.savefig", "raise tf.errors.DataLossError(None, None, 'x')", "error: x\n"),
    (START, NO_FILE, "s a directory"),
]


@pytest.mark.parametrize("name, line, reason", OTHERS)
def test_errors_of_others(name, line, reason, stopped, train):
    error = train(stopped, *OPTIONS, patch=patch(name, line), status=2)
    assert reason.format(stopped) in error


def test_a_directory_in_place_of_the_history(stopped, train):
    path = stopped / "history.csv"
    path.unlink()
    path.mkdir()
    error = train(stopped, *OPTIONS, status=2)
    reason = f"[Errno 21] Is a directory: '{path}'"
    assert error == f"expdecay-keras train: error: {reason}\n"


def test_overwrite_discards_a_damaged_run(run_dir, train):
    """It does not touch other files in the directory."""
    for name in FILES:
        (run_dir / name).write_bytes(b"\xff")
    (run_dir / "notes.txt").write_text("mine")
    rule = rule_of(train, run_dir, *OPTIONS, "--overwrite")
    assert rule == WarmupExponentialDecay(*RULE).get_config()
    assert not (run_dir / "model.keras").exists()
    assert (run_dir / "notes.txt").read_text() == "mine"
