"""Illegal arguments and damaged files, drawn at random, on every face of the package."""

import json
import os
import random
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from strategies import illegal_arguments
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_cli import refused

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)
from expdecay_keras.cli import main

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
COUNTS = [pytest.param(200, id="some"), pytest.param(10_000, id="many", marks=pytest.mark.long)]


FACES = {
    "rule": DecayRule,
    "callback": WarmupExponentialDecay,
    "callback's config": lambda **arguments: WarmupExponentialDecay.from_config(arguments),
    "schedule": lambda **arguments: WarmupExponentialSchedule(**arguments, steps_per_epoch=1),
    "schedule's config": lambda **arguments: WarmupExponentialSchedule.from_config(
        {**arguments, "steps_per_epoch": 1}
    ),
    "function": lambda warmup_start_lr, **arguments: make_lr_scheduler(**arguments),
}


@pytest.mark.parametrize("n_draws", COUNTS)
@pytest.mark.parametrize("face", FACES)
def test_illegal_arguments(face, n_draws):
    @given(illegal_arguments())
    @settings(max_examples=n_draws, deadline=None, suppress_health_check=SLOW)
    def check(drawn):
        arguments, name, error = drawn
        if face == "function" and name == "warmup_start_lr":
            return
        with pytest.raises(error) as raised:
            FACES[face](**arguments)
        assert type(raised.value) is error
        message = str(raised.value)
        assert message.startswith(f"Argument `{name}` ")
        assert f"Received: {name}={arguments[name]!r}" in message

    check()


@pytest.mark.parametrize("n_draws", COUNTS)
@pytest.mark.parametrize("command", ["preview", "train"])
def test_illegal_options(command, n_draws, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @given(illegal_arguments())
    @settings(max_examples=n_draws, deadline=None, suppress_health_check=SLOW)
    def check(drawn):
        arguments, name, error = drawn
        read = float if name.endswith("_lr") else int
        given = {key: str(value) for key, value in arguments.items() if value is not None}
        if name not in given:
            return  # there is no text for it
        options = [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]
        value = given[name]
        try:
            shown = f"{name}={read(value)!r}"
        except ValueError:
            shown = f"argument --{name.replace('_', '-')}: invalid {read.__name__} value: {value!r}"
        else:
            if error is TypeError:  # a string of digits, say: on the command line that is a number
                return
        assert shown in refused([command, *options], capsys)

    check()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", [WarmupExponentialDecay, WarmupExponentialSchedule, LearningRateLogger])
def test_a_config_with_an_unknown_key_names_it(kind):
    with pytest.raises(TypeError, match="unexpected keyword argument 'momentum'"):
        kind.from_config({"momentum": 0.9})


@pytest.mark.parametrize("kind", [WarmupExponentialDecay, WarmupExponentialSchedule])
@pytest.mark.parametrize("key", ["base_lr", "target_lr", "n_epochs"])
def test_a_config_with_a_missing_key_names_it(kind, key):
    config = {"base_lr": 0.1, "target_lr": 0.01, "n_epochs": 5}
    if kind is WarmupExponentialSchedule:
        config["steps_per_epoch"] = 1
    del config[key]
    with pytest.raises(TypeError, match=f"missing 1 required .* argument: '{key}'"):
        kind.from_config(config)
    with pytest.raises(TypeError, match="steps_per_epoch"):
        WarmupExponentialSchedule.from_config({"base_lr": 0.1, "target_lr": 0.01, "n_epochs": 5})


# Damaged files


def damaged(content, rng):
    """The bytes, cut short, with flipped bits, with a stretch of noise or without one."""
    content, at = bytearray(content), rng.randrange(len(content))
    how = rng.randrange(4)
    if how == 0:
        del content[at:]
    elif how == 1:
        for _ in range(rng.choice([1, 3, 20])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == 2:
        content[at : at + 400] = rng.randbytes(rng.randrange(1, 400))
    else:
        del content[at : at + rng.randrange(1, 200)]
    return bytes(content)


N_DAMAGES = [pytest.param(6, id="some"), pytest.param(100, id="many", marks=pytest.mark.long)]


@pytest.fixture
def files(tmp_path, model, data):
    """A model, its callback and data, as a user keeps them."""
    model.save(tmp_path / "model.keras")
    x, y = data
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    saved = tf.keras.utils.serialize_keras_object(WarmupExponentialDecay(0.1, 0.01, 3))
    (tmp_path / "callback.json").write_text(json.dumps(saved))
    return tmp_path


@pytest.mark.parametrize("n_damages", N_DAMAGES)
@pytest.mark.parametrize("name", ["model.keras", "data.npz", "callback.json"])
def test_damaged_files(name, n_damages, files, capsys):
    content, rng = (files / name).read_bytes(), random.Random(0)
    n_refused = 0
    for _ in range(n_damages):
        left = damaged(content, rng)
        (files / name).write_bytes(left)
        if name == "callback.json":
            arguments = ["preview", "--callback", str(files / name)]
        else:
            paths = ["--model", files / "model.keras", "--data", files / "data.npz"]
            arguments = ["train", *map(str, paths), "--run-dir", str(files / "run"), "--n-epochs", "4"]
        try:
            assert main([*arguments]) == 0  # the damage may be where nobody looks
        except SystemExit as stopped:
            n_refused += 1
            assert stopped.code == 2
            assert capsys.readouterr().err.count("\n") == 1
            assert not (files / "run").exists()
        else:
            shutil.rmtree(files / "run", ignore_errors=True)
        assert (files / name).read_bytes() == left
    assert n_refused > n_damages / 3


def test_event_files_given_as_data_and_model(files, capsys):
    with tf.summary.create_file_writer(str(files / "logs")).as_default():
        tf.summary.scalar("rate", 0.1, step=0)
    (events,) = (files / "logs").iterdir()
    options = ["--run-dir", str(files / "run")]
    assert "is no .npz file of" in refused(["train", "--data", str(events), *options], capsys)
    assert "not a .keras file" in refused(["train", "--model", str(events), *options], capsys)
    assert "holds no WarmupExponentialDecay" in refused(["preview", "--callback", str(events)], capsys)
    assert not (files / "run").exists()


def test_damaged_event_files_of_a_run_are_written_anew(files, monkeypatch):
    def stop(*args):
        raise KeyError

    arguments = ["train", "--run-dir", str(files / "run"), "--n-epochs", "4"]
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr("expdecay_keras.training.save_plot", stop)
        main(arguments)
    for events in (files / "run" / "tensorboard" / "train").iterdir():
        events.write_bytes(damaged(events.read_bytes(), random.Random(1)))
    assert main(arguments) == 0
    logs = EventAccumulator(str(files / "run" / "tensorboard" / "train")).Reload()
    assert [event.step for event in logs.Tensors("epoch_learning_rate")] == [0, 1, 2, 3]
