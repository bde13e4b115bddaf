"""Illegal arguments, each with the whole message of its error, and the limits."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from expdecay_keras import (
    DecayRule,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)

LEGAL = {"base_lr": 0.1, "target_lr": 0.01, "n_epochs": 9, "n_warmup_epochs": 3}
RULE = DecayRule(**LEGAL)
REQUIRED = {
    DecayRule: LEGAL,
    RULE.learning_rate: {"epoch": 1},
    RULE.rates: {},
    WarmupExponentialDecay: LEGAL,
    make_lr_scheduler: LEGAL,
    WarmupExponentialSchedule: {**LEGAL, "steps_per_epoch": 4},
    LearningRateTensorBoard: {"log_dir": "logs"},
}
NAN, INF = float("nan"), float("inf")
REAL = TypeError, "must be a real number"
REALS = TypeError, "must contain only real numbers"
POSITIVE = ValueError, "must be a finite number > 0"
NOT_NEGATIVE = ValueError, "must be a finite number >= 0"
NORMAL = (
    ValueError,
    "must be between 1.1754944e-38 and 3.4028234e+38, the normal range of float32",
)
INTEGER = TypeError, "must be an integer"
FLOATING = TypeError, "must be a floating-point dtype"
BOOL = TypeError, "must be a bool"
LARGEST = 2**53


def at_least(number):
    return ValueError, f"must be at least {number}"


def at_most(number):
    return ValueError, f"must be at most {number}"


# Each with the values that are refused.
ILLEGAL = [
    (DecayRule, "base_lr", POSITIVE, 0.0, -0.0, 0, -0.1, NAN, INF, 10**400),
    (DecayRule, "base_lr", NORMAL, 1e-38, 1.1754943e-38, 3.4028235e38, 3.5e38),
    (DecayRule, "base_lr", REAL, "0.1", True, np.True_, 1j, None, np.array(0.1)),
    (DecayRule, "base_lr", REAL, tf.constant(0.1), Decimal("0.1"), b"1"),
    (DecayRule, "target_lr", POSITIVE, 0.0, -1, -INF),
    (DecayRule, "target_lr", NORMAL, 1e-45, Fraction(1, 10**45)),
    (DecayRule, "target_lr", REAL, [0.1], False),
    (DecayRule, "n_epochs", at_least(2), 1, 0, -5, np.int64(1)),
    (DecayRule, "n_epochs", at_most(LARGEST), LARGEST + 1, 10**400),
    (DecayRule, "n_epochs", INTEGER, 5.0, True, "5", None, np.array(5), np.True_),
    (DecayRule, "n_warmup_epochs", at_least(0), -1),
    (DecayRule, "n_warmup_epochs", at_most(LARGEST), LARGEST + 1),
    (DecayRule, "n_warmup_epochs", INTEGER, 1.0, None, False),
    (DecayRule, "warmup_start_lr", NOT_NEGATIVE, -0.1, NAN, INF),
    (DecayRule, "warmup_start_lr", NORMAL, 1e-45, 3.5e38),
    (DecayRule, "warmup_start_lr", REAL, False, "0"),
    (DecayRule, "n_hold_epochs", at_least(0), -1),
    (DecayRule, "n_hold_epochs", at_most(LARGEST), LARGEST + 1),
    (DecayRule, "n_hold_epochs", INTEGER, 1.0, None, False),
    (RULE.learning_rate, "epoch", REALS, True, "3", [1j], None),
    (RULE.learning_rate, "epoch", REALS, tf.constant(True), tf.constant(1j)),
    (RULE.rates, "epoch", REALS, np.True_, ["3"], 1j, None, tf.constant(True)),
    (RULE.learning_rate, "dtype", FLOATING, "int32", "bool", "complex64"),
    (WarmupExponentialDecay, "verbose", at_least(0), -1),
    (WarmupExponentialDecay, "verbose", at_most(1), 2),
    (WarmupExponentialDecay, "verbose", INTEGER, "1", 1.0, None),
    (WarmupExponentialSchedule, "steps_per_epoch", at_least(1), 0, -1),
    (WarmupExponentialSchedule, "steps_per_epoch", at_most(2**31 - 1), 2**31),
    (WarmupExponentialSchedule, "steps_per_epoch", INTEGER, 4.0, True, None),
    (WarmupExponentialSchedule, "staircase", BOOL, 1, None, 0.0, "yes"),
    (WarmupExponentialSchedule, "name", (TypeError, "must be a str"), None, 1, b"x"),
    (LearningRateTensorBoard, "log_dir", (TypeError, "must be a path"), None, 1),
    (LearningRateTensorBoard, "update_freq", INTEGER, "epoch", 1.0, True),
    (LearningRateTensorBoard, "update_freq", at_least(1), 0, -1),
    (LearningRateTensorBoard, "update_freq", at_most(LARGEST), LARGEST + 1),
]
ROWS = [
    (function, name, error, text, value)
    for function, name, (error, text), *values in ILLEGAL
    for value in values
]
IDS = [f"{row[0].__name__} {row[1]}={row[-1]!r:.20}" for row in ROWS]


@pytest.mark.parametrize("function, name, error, text, value", ROWS, ids=IDS)
def test_illegal_argument(function, name, error, text, value):
    with pytest.raises(error) as raised:
        function(**{**REQUIRED[function], name: value})
    assert str(raised.value) == f"Argument `{name}` {text}. Received: {name}={value!r}"


ENOUGH = (
    "Argument `n_epochs` must be at least {}, that is, n_warmup_epochs + n_hold_epochs "
    "+ 2 (one epoch at base_lr and one at target_lr). Received: n_epochs={}, "
    "n_warmup_epochs=3, n_hold_epochs={}"
)
RAMP = (
    "Argument `n_warmup_epochs` must be at least 1 if warmup_start_lr is given, "
    "because a ramp needs warm-up epochs. Received: n_warmup_epochs=0, "
    "warmup_start_lr={}"
)
NO_RAMP = {"n_warmup_epochs": 0}
DISAGREEING = [
    (DecayRule, {"n_epochs": 4}, ENOUGH.format(5, 4, 0)),
    (DecayRule, {"n_hold_epochs": 5}, ENOUGH.format(10, 9, 5)),
    (DecayRule, {**NO_RAMP, "warmup_start_lr": 0.05}, RAMP.format(0.05)),
    (DecayRule, {**NO_RAMP, "warmup_start_lr": 0.0}, RAMP.format(0.0)),
    (make_lr_scheduler, {"n_epochs": 4}, ENOUGH.format(5, 4, 0)),
]


@pytest.mark.parametrize("function, arguments, message", DISAGREEING)
def test_arguments_that_disagree(function, arguments, message):
    with pytest.raises(ValueError) as raised:
        function(**{**REQUIRED[function], **arguments})
    assert str(raised.value) == message


def test_the_fewest_and_the_most_epochs_are_legal():
    rule = DecayRule(**{**LEGAL, "n_hold_epochs": 4})
    assert rule.rates([7, 8]).tolist() == [0.1, 0.01]
    assert DecayRule(**{**LEGAL, "n_epochs": LARGEST}).n_epochs == LARGEST
