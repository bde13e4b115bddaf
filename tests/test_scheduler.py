import inspect
import math

import numpy as np
import pytest
import tensorflow as tf
from test_rule import ILLEGAL, LEGAL

from expdecay_keras import DecayRule, make_lr_scheduler


def test_seed_table_in_learning_rate_scheduler(seed_row, seed_rates, model, fit):
    # tensorflow#28631, keras PR 4304: a Python float is what LearningRateScheduler takes everywhere.
    callback = tf.keras.callbacks.LearningRateScheduler(make_lr_scheduler(*seed_row))
    history = fit(model, [callback], epochs=5)
    rates = history.get("learning_rate", history.get("lr"))  # Keras 2 logs `lr`
    assert [round(float(rate), 6) for rate in rates] == seed_rates


@pytest.mark.parametrize("lr", [0.5, np.float32(0.5), np.array(0.5)], ids=["float", "numpy", "0d"])
def test_returns_a_python_float(lr):
    schedule = make_lr_scheduler(0.5, 0.25, 3, 1)
    assert type(schedule(0, lr)) is float and schedule(0, lr) == 0.5
    assert type(schedule(2, lr)) is float and schedule(2, lr) == pytest.approx(0.25)


def test_signature_is_epoch_and_lr():
    # keras#9618: LearningRateScheduler calls it with both.
    assert list(inspect.signature(make_lr_scheduler(0.1, 0.01, 5, 0)).parameters) == ["epoch", "lr"]


def test_it_multiplies_the_rate_it_is_given():
    schedule = make_lr_scheduler(0.1, 0.001, 5, 2)
    assert [schedule(epoch, 7.0) for epoch in range(3)] == [0.1] * 3
    assert schedule(3, 7.0) == pytest.approx(7.0 * math.exp(DecayRule(0.1, 0.001, 5, 2).decay_rate))
    assert schedule(4, 7.0) == schedule(3, 7.0)


def test_composes_with_reduce_lr_on_plateau(model, fit):
    # keras PR 8829: what the other callback did is kept.
    scheduler = tf.keras.callbacks.LearningRateScheduler(make_lr_scheduler(0.8, 0.1, 4, 0))
    reduce = tf.keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=1, min_delta=1e9)
    history = fit(model, [scheduler, reduce], epochs=4)
    # Reduced tenfold at the end of epochs 1, 2 and 3, on top of the decay from 0.8 to 0.1.
    np.testing.assert_allclose(model.optimizer.learning_rate.numpy(), 0.1 * 0.001, rtol=1e-6)
    assert len(history["loss"]) == 4


ARGUMENTS = [row for row in ILLEGAL if row[0] != "warmup_start_lr"]


@pytest.mark.parametrize(
    "name, value, error, constraint", ARGUMENTS, ids=[f"{row[0]}={row[1]!r:.20}" for row in ARGUMENTS]
)
def test_illegal_argument(name, value, error, constraint):
    with pytest.raises(error, match=rf"^Argument `{name}` {constraint}\. Received: {name}="):
        make_lr_scheduler(**{**LEGAL, name: value})
