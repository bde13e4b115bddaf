"""What `expdecay-keras train` writes and prints, and what it refuses."""

import json
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from oracle import float32_rates
from runs import (
    OPTIONS,
    RULE,
    assert_same_run,
    contents,
    curves,
    read_history,
    stop_after,
)

from expdecay_keras import DecayRule, WarmupExponentialDecay
from expdecay_keras.command import main

FILES = ["callback.json", "model.keras", "history.csv", "learning_rate.png"]


@pytest.fixture
def run_dir(unbroken, tmp_path):
    """A copy of the finished run, to damage or overwrite."""
    return shutil.copytree(unbroken[0], tmp_path / "run")


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
    assert "learning_rate: 0.2000" in output  # Keras's own line per epoch
    paths = [f"  {run_dir / name}" for name in [*FILES, "tensorboard"]]
    assert output.splitlines()[-6:] == ["Results:", *paths]


def test_a_finished_run_is_not_trained_again(run_dir, unbroken, train):
    """The files that are made from its history are made again if they are missing."""
    before = contents(run_dir)
    shutil.rmtree(run_dir / "tensorboard")
    (run_dir / "learning_rate.png").unlink()
    output = train(run_dir, *OPTIONS)
    assert f"{run_dir} already contains the finished run" in output
    assert "Epoch" not in output
    for name in FILES:
        assert (run_dir / name).read_bytes() == before[run_dir / name]
    assert_same_run(run_dir, unbroken[0])


def rule_of(train, run_dir, *options):
    """The arguments of the rule of a run, which is killed when it has begun."""
    train(run_dir, *options, patch=stop_after("os.replace"), status=-signal.SIGKILL)
    return json.loads((run_dir / "callback.json").read_text())["config"]


def test_defaults_are_those_of_the_help(train, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, value in rule_of(train, tmp_path).items():
        described = text.rpartition(f"--{name.replace('_', '-')} ")[2]
        assert name == "verbose" or f"(default: {value})" in described.split(" --")[0]


def test_a_run_without_warmup(train, tmp_path):
    """The default ramp is left out along with the default warm-up."""
    rule = rule_of(train, tmp_path, "--n-warmup-epochs", 0)
    assert rule["warmup_start_lr"] is None


# Refusals: one line says why, and every file stays as it is.


def test_a_run_of_another_rule_is_refused(unbroken, refused_train):
    run_dir, _ = unbroken
    before = contents(run_dir)
    error = refused_train(run_dir, *OPTIONS, "--n-hold-epochs", 1)
    assert f"{run_dir} contains a run with another rule, WarmupExponential" in error
    assert "target_lr=0.001, n_epochs=4" in error
    assert "Choose another --run-dir, or pass --overwrite" in error
    assert contents(run_dir) == before


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("name", ["model.keras", "history.csv", "tensorboard/events"])
def test_files_that_belong_to_no_run_are_refused(
    name, options, tmp_path, refused_train
):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    error = refused_train(tmp_path, *OPTIONS, *options)
    assert f"{tmp_path / name.split('/')[0]} does not belong to a run" in error
    assert contents(tmp_path) == {file: b"mine"}


def test_a_directory_that_cannot_be_made(tmp_path, refused_train):
    (tmp_path / "file").write_text("mine")
    assert "Not a directory" in refused_train(tmp_path / "file" / "run")
    assert contents(tmp_path) == {tmp_path / "file": b"mine"}


def cut(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def cut_the_last_line(content):
    return content[:-3]


def lose_an_epoch(content):
    lines = content.splitlines(keepends=True)
    return b"".join(lines[:2] + lines[3:])


@pytest.mark.parametrize(
    "name, damage",
    [
        ("model.keras", cut),
        ("model.keras", empty),
        ("callback.json", cut),
        ("callback.json", empty),
        ("history.csv", cut),
        ("history.csv", cut_the_last_line),
        ("history.csv", lose_an_epoch),
        ("history.csv", empty),
    ],
)
def test_a_damaged_run_is_refused(name, damage, run_dir, refused_train):
    damaged = damage((run_dir / name).read_bytes())
    (run_dir / name).write_bytes(damaged)
    before = contents(run_dir)
    error = refused_train(run_dir, *OPTIONS)
    assert f"error: {run_dir / name} " in error
    assert error.endswith("Pass --overwrite to start from scratch\n")
    assert contents(run_dir) == before


def test_overwrite_discards_a_damaged_run(run_dir, train):
    """It does not touch other files in the directory."""
    for name in FILES:
        (run_dir / name).write_bytes(b"\xff")
    (run_dir / "notes.txt").write_text("mine")
    rule = rule_of(train, run_dir, *OPTIONS, "--overwrite")
    assert rule == WarmupExponentialDecay(*RULE).get_config()
    assert not (run_dir / "model.keras").exists()
    assert (run_dir / "notes.txt").read_text() == "mine"
