"""Illegal arguments, each with the whole message of its error."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from strategies import illegal_arguments

from expdecay_keras import (
    DecayRule,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)

LEGAL = {"base_lr": 0.1, "target_lr": 0.01, "n_epochs": 9, "n_warmup_epochs": 3}
REAL = "must be a real number"
POSITIVE = "must be a finite number > 0"
NOT_NEGATIVE = "must be a finite number >= 0"
NORMAL = "must be normal in float32 (1.1754944e-38 to 3.4028234e+38)"
INTEGER = "must be an integer"
FROM_0 = "must be from 0 to 9007199254740992"
FROM_1 = "must be from 1 to 9007199254740992"
FROM_2 = "must be from 2 to 9007199254740992"
ENOUGH = (
    "must be at least n_warmup_epochs + n_hold_epochs + 2 "
    "(one epoch at base_lr and one at target_lr)"
)
NOT_ENOUGH = (
    f"Argument `n_epochs` {ENOUGH}. "
    "Received: n_epochs=4, n_warmup_epochs=3, n_hold_epochs=0"
)


def ids(rows):
    return [f"{name}={value!r:.20}" for *_, name, value, _, _ in rows]


def assert_refused(function, arguments, name, error, constraint):
    with pytest.raises(error) as raised:
        function(**arguments)
    received = f"{name}={arguments[name]!r}"
    assert str(raised.value) == f"Argument `{name}` {constraint}. Received: {received}"


# DecayRule

ILLEGAL = [
    ("base_lr", 0.0, ValueError, POSITIVE),
    ("base_lr", -0.1, ValueError, POSITIVE),
    ("base_lr", float("nan"), ValueError, POSITIVE),
    ("base_lr", float("inf"), ValueError, POSITIVE),
    ("base_lr", 10**400, ValueError, POSITIVE),
    ("base_lr", 1e-38, ValueError, NORMAL),
    ("base_lr", 3.5e38, ValueError, NORMAL),
    ("base_lr", "0.1", TypeError, REAL),
    ("base_lr", True, TypeError, REAL),
    ("base_lr", np.bool_(True), TypeError, REAL),
    ("base_lr", 1j, TypeError, REAL),
    ("base_lr", None, TypeError, REAL),
    ("base_lr", np.array(0.1), TypeError, REAL),
    ("base_lr", tf.constant(0.1), TypeError, REAL),
    ("target_lr", 0.0, ValueError, POSITIVE),
    ("target_lr", [0.1], TypeError, REAL),
    ("n_epochs", 1, ValueError, FROM_2),
    ("n_epochs", 2**53 + 1, ValueError, FROM_2),
    ("n_epochs", 5.0, TypeError, INTEGER),
    ("n_epochs", True, TypeError, INTEGER),
    ("n_epochs", "5", TypeError, INTEGER),
    ("n_epochs", None, TypeError, INTEGER),
    ("n_epochs", np.array(5), TypeError, INTEGER),
    ("n_warmup_epochs", -1, ValueError, FROM_0),
    ("n_warmup_epochs", 1.0, TypeError, INTEGER),
    ("warmup_start_lr", -0.1, ValueError, NOT_NEGATIVE),
    ("warmup_start_lr", float("nan"), ValueError, NOT_NEGATIVE),
    ("warmup_start_lr", 1e-45, ValueError, NORMAL),
    ("warmup_start_lr", False, TypeError, REAL),
    ("n_hold_epochs", -1, ValueError, FROM_0),
    ("n_hold_epochs", 1.0, TypeError, INTEGER),
]


@pytest.mark.parametrize("name, value, error, constraint", ILLEGAL, ids=ids(ILLEGAL))
def test_illegal_argument(name, value, error, constraint):
    assert_refused(DecayRule, {**LEGAL, name: value}, name, error, constraint)


@pytest.mark.parametrize(
    "arguments, message",
    [
        pytest.param({"n_epochs": 4}, NOT_ENOUGH, id="no epoch is left to decay"),
        pytest.param(
            {"n_hold_epochs": 5},
            f"Argument `n_epochs` {ENOUGH}. "
            "Received: n_epochs=9, n_warmup_epochs=3, n_hold_epochs=5",
            id="no epoch is left after the hold",
        ),
        pytest.param(
            {"n_warmup_epochs": 0, "warmup_start_lr": 0.05},
            "Argument `warmup_start_lr` must be None if n_warmup_epochs is 0. "
            "Received: warmup_start_lr=0.05, n_warmup_epochs=0",
            id="a ramp without warm-up",
        ),
    ],
)
def test_arguments_that_disagree(arguments, message):
    with pytest.raises(ValueError) as raised:
        DecayRule(**{**LEGAL, **arguments})
    assert str(raised.value) == message


def test_as_many_epochs_as_warmup_and_hold_need_are_legal():
    rule = DecayRule(**{**LEGAL, "n_hold_epochs": 4})
    assert rule.rates([7, 8]).tolist() == [0.1, 0.01]


@given(illegal_arguments())
@settings(max_examples=200)
def test_illegal_arguments_at_random(drawn):
    arguments, name, error = drawn
    with pytest.raises(error) as raised:
        DecayRule(**arguments)
    message = str(raised.value)
    assert message.startswith(f"Argument `{name}` must be ")
    assert message.endswith(f". Received: {name}={arguments[name]!r}")


@pytest.mark.parametrize(
    "epoch",
    [
        pytest.param(True, id="bool"),
        pytest.param("3", id="string"),
        pytest.param([1j], id="complex"),
        pytest.param(None, id="object"),
        pytest.param(tf.constant(True), id="bool tensor"),
        pytest.param(tf.constant("3"), id="string tensor"),
        pytest.param(tf.constant(1j), id="complex tensor"),
    ],
)
def test_illegal_epoch(epoch):
    with pytest.raises(TypeError) as raised:
        DecayRule(**LEGAL).learning_rate(epoch)
    message = (
        f"Argument `epoch` must contain only real numbers. Received: epoch={epoch!r}"
    )
    assert str(raised.value) == message


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_illegal_dtype(dtype):
    with pytest.raises(TypeError) as raised:
        DecayRule(**LEGAL).learning_rate(1, dtype)
    message = (
        f"Argument `dtype` must be a floating-point dtype. Received: dtype={dtype!r}"
    )
    assert str(raised.value) == message


# What is made with a rule's arguments


REQUIRED = {
    WarmupExponentialDecay: LEGAL,
    make_lr_scheduler: LEGAL,
    WarmupExponentialSchedule: {**LEGAL, "steps_per_epoch": 4},
    LearningRateTensorBoard: {"log_dir": "logs"},
}


@pytest.mark.parametrize(
    "function", [WarmupExponentialDecay, WarmupExponentialSchedule, make_lr_scheduler]
)
def test_the_rule_checks_its_arguments(function):
    arguments = {**REQUIRED[function], "n_epochs": 4}
    with pytest.raises(ValueError) as raised:
        function(**arguments)
    assert str(raised.value) == NOT_ENOUGH


FROM_1_TO_INT32 = "must be from 1 to 2147483647"
ILLEGAL_OTHERS = [
    (WarmupExponentialDecay, "verbose", 2, ValueError, "must be from 0 to 1"),
    (WarmupExponentialDecay, "verbose", -1, ValueError, "must be from 0 to 1"),
    (WarmupExponentialDecay, "verbose", "1", TypeError, INTEGER),
    (WarmupExponentialSchedule, "steps_per_epoch", 0, ValueError, FROM_1_TO_INT32),
    (WarmupExponentialSchedule, "steps_per_epoch", 2**31, ValueError, FROM_1_TO_INT32),
    (WarmupExponentialSchedule, "steps_per_epoch", 4.0, TypeError, INTEGER),
    (WarmupExponentialSchedule, "steps_per_epoch", True, TypeError, INTEGER),
    (WarmupExponentialSchedule, "staircase", 1, TypeError, "must be a bool"),
    (WarmupExponentialSchedule, "staircase", None, TypeError, "must be a bool"),
    (WarmupExponentialSchedule, "name", None, TypeError, "must be a str"),
    (LearningRateTensorBoard, "log_dir", None, TypeError, "must be a path"),
    (LearningRateTensorBoard, "update_freq", "epoch", TypeError, INTEGER),
    (LearningRateTensorBoard, "update_freq", 1.0, TypeError, INTEGER),
    (LearningRateTensorBoard, "update_freq", 0, ValueError, FROM_1),
]


@pytest.mark.parametrize(
    "cls, name, value, error, constraint", ILLEGAL_OTHERS, ids=ids(ILLEGAL_OTHERS)
)
def test_illegal_argument_of_one_class(cls, name, value, error, constraint):
    arguments = {**REQUIRED[cls], name: value}
    assert_refused(cls, arguments, name, error, constraint)
