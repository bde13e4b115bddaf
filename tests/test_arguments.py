"""Illegal arguments: every kind of them once, and each face of the rule with some drawn at random."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import illegal_arguments
from hypothesis import HealthCheck, given, settings

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)

LEGAL = {"base_lr": 0.1, "target_lr": 0.01, "n_epochs": 9, "n_warmup_epochs": 3}
NUMBER = "must be a finite number > 0"
NORMAL = "must be normal in float32 (1.1754944e-38 to 3.4028234e+38)"
ENOUGH = (
    "must be at least n_warmup_epochs + n_hold_epochs + 2, one epoch at base_lr and one at target_lr"
)
ILLEGAL = [
    ("base_lr", 0.0, ValueError, NUMBER),
    ("base_lr", -0.1, ValueError, NUMBER),
    ("base_lr", float("nan"), ValueError, NUMBER),
    ("base_lr", 10**400, ValueError, NUMBER),
    ("base_lr", 1e-38, ValueError, NORMAL),
    ("base_lr", 3.5e38, ValueError, NORMAL),
    ("base_lr", "0.1", TypeError, "must be a real number"),
    ("base_lr", True, TypeError, "must be a real number"),
    ("base_lr", 1j, TypeError, "must be a real number"),
    ("base_lr", None, TypeError, "must be a real number"),
    ("base_lr", np.array(0.1), TypeError, "must be a real number"),
    ("base_lr", tf.constant(0.1), TypeError, "must be a real number"),
    ("base_lr", np.bool_(True), TypeError, "must be a real number"),
    ("target_lr", float("inf"), ValueError, NUMBER),
    ("target_lr", [0.1], TypeError, "must be a real number"),
    ("n_epochs", 1, ValueError, "must be from 2 to 9007199254740992"),
    ("n_epochs", -1, ValueError, "must be from 2 to 9007199254740992"),
    ("n_epochs", 2**53 + 1, ValueError, "must be from 2 to 9007199254740992"),
    ("n_epochs", 5.0, TypeError, "must be an integer"),
    ("n_epochs", True, TypeError, "must be an integer"),
    ("n_epochs", "5", TypeError, "must be an integer"),
    ("n_epochs", None, TypeError, "must be an integer"),
    ("n_warmup_epochs", -1, ValueError, "must be from 0 to 9007199254740992"),
    ("n_warmup_epochs", 1.0, TypeError, "must be an integer"),
    ("n_warmup_epochs", np.array(1), TypeError, "must be an integer"),
    ("n_hold_epochs", -1, ValueError, "must be from 0 to 9007199254740992"),
    ("n_hold_epochs", 1.0, TypeError, "must be an integer"),
    ("n_hold_epochs", True, TypeError, "must be an integer"),
    ("warmup_start_lr", -0.1, ValueError, "must be a finite number >= 0"),
    ("warmup_start_lr", float("nan"), ValueError, "must be a finite number >= 0"),
    ("warmup_start_lr", 1e-45, ValueError, NORMAL),
    ("warmup_start_lr", False, TypeError, "must be a real number"),
    ("warmup_start_lr", "0", TypeError, "must be a real number"),
]


@pytest.mark.parametrize(
    "name, value, error, constraint", ILLEGAL, ids=[f"{row[0]}={row[1]!r:.20}" for row in ILLEGAL]
)
def test_illegal_argument(name, value, error, constraint):
    with pytest.raises(error) as raised:
        DecayRule(**{**LEGAL, name: value})
    assert str(raised.value) == f"Argument `{name}` {constraint}. Received: {name}={value!r}"


DISAGREEING = [
    ({"n_epochs": 4}, f"Argument `n_epochs` {ENOUGH}. Received: n_epochs=4, n_warmup_epochs=3"),
    ({"n_warmup_epochs": 8}, f"Argument `n_epochs` {ENOUGH}. Received: n_epochs=9, n_warmup_epochs=8"),
    (
        {"n_hold_epochs": 5},
        f"Argument `n_epochs` {ENOUGH}. Received: n_epochs=9, n_warmup_epochs=3, n_hold_epochs=5",
    ),
    (
        {"n_warmup_epochs": 0, "warmup_start_lr": 0.05},
        "Argument `warmup_start_lr` needs `n_warmup_epochs` >= 1. "
        "Received: warmup_start_lr=0.05, n_warmup_epochs=0",
    ),
]


@pytest.mark.parametrize("arguments, message", DISAGREEING)
def test_arguments_that_disagree(arguments, message):
    with pytest.raises(ValueError) as raised:
        DecayRule(**{**LEGAL, **arguments})
    assert str(raised.value) == message


FACES = {
    "rule": DecayRule,
    "callback": WarmupExponentialDecay,
    "callback's config": lambda **arguments: WarmupExponentialDecay.from_config(arguments),
    "schedule": lambda **arguments: WarmupExponentialSchedule(**arguments, steps_per_epoch=1),
    "schedule's config": lambda **arguments: WarmupExponentialSchedule.from_config(
        {**arguments, "steps_per_epoch": 1}
    ),
    "function": lambda warmup_start_lr=None, n_hold_epochs=0, **arguments: make_lr_scheduler(
        **arguments
    ),
}


@pytest.mark.parametrize("face", FACES)
def test_every_face_says_what_the_rule_says(face):
    with pytest.raises(ValueError) as raised:
        FACES[face](**{**LEGAL, "n_epochs": 4})
    assert str(raised.value) == DISAGREEING[0][1]
    with pytest.raises(TypeError) as raised:
        FACES[face](**{**LEGAL, "target_lr": "0.1"})
    assert str(raised.value) == "Argument `target_lr` must be a real number. Received: target_lr='0.1'"


@pytest.mark.parametrize(
    "n_draws", [pytest.param(50, id="some"), pytest.param(10_000, id="many", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("face", FACES)
def test_illegal_arguments_at_random(face, n_draws):
    @given(illegal_arguments())
    @settings(
        max_examples=n_draws,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
    def check(drawn):
        arguments, name, error = drawn
        if face == "function":
            if name in ("warmup_start_lr", "n_hold_epochs"):
                return
            if name == "n_epochs" and error is ValueError:
                arguments["n_warmup_epochs"] += arguments["n_hold_epochs"]
        with pytest.raises(error) as raised:
            FACES[face](**arguments)
        assert type(raised.value) is error
        message = str(raised.value)
        assert message.startswith(f"Argument `{name}` ")
        assert f"Received: {name}={arguments[name]!r}" in message

    check()


OTHERS = [
    (WarmupExponentialDecay, "verbose", 2, ValueError, "must be from 0 to 1"),
    (WarmupExponentialDecay, "verbose", -1, ValueError, "must be from 0 to 1"),
    (WarmupExponentialDecay, "verbose", "1", TypeError, "must be an integer"),
    (WarmupExponentialSchedule, "steps_per_epoch", 0, ValueError, f"must be from 1 to {2**53}"),
    (WarmupExponentialSchedule, "steps_per_epoch", 4.0, TypeError, "must be an integer"),
    (WarmupExponentialSchedule, "steps_per_epoch", True, TypeError, "must be an integer"),
    (WarmupExponentialSchedule, "staircase", 1, TypeError, "must be a bool"),
    (WarmupExponentialSchedule, "staircase", None, TypeError, "must be a bool"),
    (WarmupExponentialSchedule, "name", None, TypeError, "must be a str"),
    (LearningRateTensorBoard, "log_dir", 1, TypeError, "must be a path"),
    (LearningRateTensorBoard, "log_dir", None, TypeError, "must be a path"),
    (LearningRateTensorBoard, "update_freq", "epoch", TypeError, "must be an integer"),
    (LearningRateTensorBoard, "update_freq", 1.0, TypeError, "must be an integer"),
    (LearningRateTensorBoard, "update_freq", 0, ValueError, f"must be from 1 to {2**53}"),
]
REQUIRED = {
    WarmupExponentialDecay: LEGAL,
    WarmupExponentialSchedule: {**LEGAL, "steps_per_epoch": 4},
    LearningRateTensorBoard: {"log_dir": "logs"},
}


@pytest.mark.parametrize(
    "kind, name, value, error, constraint", OTHERS, ids=[f"{row[1]}={row[2]!r}" for row in OTHERS]
)
def test_illegal_argument_of_one_class(kind, name, value, error, constraint):
    with pytest.raises(error) as raised:
        kind.from_config({**REQUIRED[kind], name: value})
    assert str(raised.value) == f"Argument `{name}` {constraint}. Received: {name}={value!r}"


@pytest.mark.parametrize("kind", [*REQUIRED, LearningRateLogger])
def test_a_config_with_an_unknown_key_names_it(kind):
    with pytest.raises(TypeError, match="unexpected keyword argument 'momentum'"):
        kind.from_config({"momentum": 0.9})


@pytest.mark.parametrize(
    "kind, key",
    [
        *(
            (kind, key)
            for kind in REQUIRED
            for key in ("base_lr", "target_lr", "n_epochs")
            if kind is not LearningRateTensorBoard
        ),
        (WarmupExponentialSchedule, "steps_per_epoch"),
        (LearningRateTensorBoard, "log_dir"),
    ],
)
def test_a_config_with_a_missing_key_names_it(kind, key):
    config = {name: value for name, value in REQUIRED[kind].items() if name != key}
    with pytest.raises(TypeError, match=f"missing 1 required .*argument: '{key}'"):
        kind.from_config(config)
