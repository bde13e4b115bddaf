"""What `expdecay-keras train` writes and prints, and what it refuses."""

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.figure import Figure
from oracle import float32_rates
from runs import OPTIONS, RULE, assert_same_run, contents, curves, read_history, state

from expdecay_keras import DecayRule, WarmupExponentialDecay
from expdecay_keras.command.train import STEPS_PER_EPOCH

FILES = ["callback.json", "model.keras", "history.csv", "learning_rate.png"]


def read_rule(run_dir):
    return json.loads((run_dir / "callback.json").read_text())["config"]


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
    assert state(run_dir)[4] == 4 * STEPS_PER_EPOCH  # what the optimizer has counted
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


def test_a_finished_run_is_not_trained_again(run_dir, unbroken, call):
    """What is made from its history is made again, if it is missing."""
    before = contents(run_dir)
    shutil.rmtree(run_dir / "tensorboard")
    (run_dir / "learning_rate.png").unlink()
    status, output, error = call("train", "--run-dir", run_dir, *OPTIONS)
    assert (status, error) == (0, "")
    assert output.splitlines() == [
        f"{run_dir} already contains the finished run.",
        "Pass --overwrite to train again.",
        *unbroken[1].replace(str(unbroken[0]), str(run_dir)).splitlines()[-7:],
    ]
    for name in FILES:
        assert (run_dir / name).read_bytes() == before[run_dir / name]
    assert_same_run(run_dir, unbroken[0])


@pytest.mark.parametrize(
    "options, start_lr",
    [
        ("", 0.01),
        ("--base-lr 0.001", 0.00005),
        ("--warmup-start-lr 0", 0.0),
        ("--warmup-start-lr 0.3 --n-warmup-epochs 1", 0.3),
        ("--n-warmup-epochs 0", None),
    ],
)
def test_the_ramp_starts_at_a_twentieth_of_the_base_rate_by_default(
    options, start_lr, begin, tmp_path, monkeypatch
):
    """Without warm-up there is no ramp. The default directory is made as well."""
    monkeypatch.chdir(tmp_path)
    begin(*options.split())
    assert read_rule(tmp_path / "runs" / "digits")["warmup_start_lr"] == start_lr


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
def test_a_run_with_other_options_is_refused(
    begun, options, others, tmp_path, begin, refused
):
    begin("--run-dir", tmp_path, *begun.split())
    before = contents(tmp_path)
    assert refused("train", "--run-dir", tmp_path, *options.split()) == (
        f"expdecay-keras train: error: {tmp_path} contains a run with other options: "
        f"{others}. Choose another --run-dir, or pass --overwrite to discard that run\n"
    )
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["model.keras", "history.csv", "tensorboard/events"])
def test_files_that_belong_to_no_run_are_refused(name, tmp_path, refused):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    for options in ([], ["--overwrite"]):
        error = refused("train", "--run-dir", tmp_path, *OPTIONS, *options)
        assert f"{tmp_path / name.split('/')[0]} does not belong to a run" in error
        assert contents(tmp_path) == {file: b"mine"}


def test_directories_that_cannot_be_used(tmp_path, refused):
    (tmp_path / "file").write_text("mine")
    error = refused("train", "--run-dir", tmp_path / "file" / "run")
    assert f"error: [Errno 20] Not a directory: '{tmp_path}/file/run'\n" in error
    error = refused("train", "--run-dir", tmp_path / "\udcff")
    assert "'utf-8' codec can't encode character '\\udcff'" in error
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


EPOCHS = "it does not contain all 4 epochs that model.keras was trained for"
# What is replaced, by what, and the reason that is given.
DAMAGES = [
    ("model.keras", rb"(?s).{200}\Z", b"", "Error: "),
    ("callback.json", b"(?s).*", b"null", "it does not contain a WarmupExponential"),
    ("callback.json", b"0.2", b"-0.2", "Argument `base_lr` must be a finite number > "),
    ("history.csv", b"(?s).*", b"", EPOCHS),
    ("history.csv", b"(?m)^0,.*\n", b"", EPOCHS),
    ("history.csv", b"(?m)^3,.*\n", b"", EPOCHS),
    ("history.csv", b"val_loss", b"val_mse", "KeyError: 'val_loss'"),
    ("history.csv", b"\n1,[^,]*,", b"\n1,", "TypeError: "),
    ("history.csv", b"val_loss", b"val_\xff", "can't decode byte 0xff in position"),
]


@pytest.mark.parametrize(
    "name, old, new, reason", DAMAGES, ids=[f"{row[0]} {row[3]}" for row in DAMAGES]
)
def test_a_damaged_run_is_refused(name, old, new, reason, run_dir, refused):
    path = run_dir / name
    path.write_bytes(re.sub(old, lambda _: new, path.read_bytes(), count=1))
    before = contents(run_dir)
    error = refused("train", "--run-dir", run_dir, *OPTIONS)
    assert error.startswith(f"expdecay-keras train: error: {path} cannot be loaded (")
    assert reason in error
    assert error.endswith("). Pass --overwrite to start from scratch\n")
    assert contents(run_dir) == before


@pytest.mark.parametrize(
    "raised, line",
    [(OSError("a\n  b"), "a b"), (tf.errors.DataLossError(None, None, "x"), "x")],
)
def test_errors_of_others_become_one_line(raised, line, run_dir, refused, monkeypatch):
    def fail(*args, **options):
        raise raised

    monkeypatch.setattr(Figure, "savefig", fail)
    error = refused("train", "--run-dir", run_dir, *OPTIONS)
    assert error == f"expdecay-keras train: error: {line}\n"


def test_overwrite_discards_a_damaged_run(run_dir, begin):
    """It does not touch other files in the directory."""
    for name in FILES:
        (run_dir / name).write_bytes(b"\xff")
    (run_dir / "notes.txt").write_text("mine")
    begin("--run-dir", run_dir, *OPTIONS, "--overwrite")
    assert read_rule(run_dir) == WarmupExponentialDecay(*RULE).get_config()
    assert not (run_dir / "model.keras").exists()
    assert (run_dir / "notes.txt").read_text() == "mine"
