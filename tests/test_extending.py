"""What the README advises for runs that go on longer than planned."""

import numpy as np
import tensorflow as tf
from models import assert_equal_arrays, build_model, train
from releases import BACKEND

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)


def test_extended_during_the_hold():
    """Ten epochs more, all held: what has been trained stays, and no rate jumps."""
    # open_clip#413, nnUNet#901: with more epochs alone, the rate jumps.
    planned = DecayRule(0.1, 1e-4, 20, 2, 0.01, n_hold_epochs=8).rates(range(20))
    extended = DecayRule(0.1, 1e-4, 30, 2, 0.01, n_hold_epochs=18).rates(range(30))
    assert extended.tolist() == [*planned[:10], *[0.1] * 10, *planned[10:]]


def train_both(optimizer, epochs, first, second):
    """Trains with two callbacks in turn, and with schedules replaced as advised.

    Returns the rates, which are the same, and the weights of both.
    """
    options = {"initial_epoch": epochs, "epochs": second[2]}
    own, logger = build_model(optimizer(0.5)), LearningRateLogger()
    rates = train(own, WarmupExponentialDecay(*first), epochs=epochs)
    rates += train(own, WarmupExponentialDecay(*second), **options)
    before, after = (
        WarmupExponentialSchedule(*rule, steps_per_epoch=4) for rule in (first, second)
    )
    model = build_model(optimizer(before))
    logged = train(model, logger, epochs=epochs)
    model.optimizer.learning_rate = after
    model.compile(model.optimizer, "mse")
    assert logged + train(model, logger, **options) == rates
    return rates, model.get_weights(), own.get_weights()


def test_extended_after_the_end():
    """From the old target to a new one, by callback or by schedule."""
    adam = tf.keras.optimizers.Adam
    rates, *weights = train_both(adam, 3, (0.1, 1e-4, 3), (1e-4, 1e-6, 6, 3))
    expected = [0.1, 0.1 * 0.001**0.5, 1e-4, 1e-4, 1e-5, 1e-6]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert rates[2] == rates[3] == np.float32(1e-4) and rates[5] == np.float32(1e-6)
    assert_equal_arrays(*weights)


def test_decide_later_when_to_decay():
    """A rule that only holds the rate, then a cooldown; no warning on the way."""
    # WeatherGenerator#1199, transformers#35453: a run of which the end is not planned.
    e, d = 3, 4
    hold, cool = (0.1, 0.1, 1000, 2), (0.1, 1e-3, e + d, 0, None, e - 1)
    sgd = tf.keras.optimizers.SGD
    rates, *both = train_both(lambda rate: sgd(rate, momentum=0.9), e, hold, cool)
    expected = 0.1 * 0.01 ** (np.arange(1, d + 1) / d)
    np.testing.assert_allclose(rates, [0.1] * e + expected.tolist(), rtol=1e-6)
    assert rates[-1] == np.float32(1e-3)
    if BACKEND != "jax":
        assert_equal_arrays(*both)
    for weight, other in zip(*both, strict=True):
        # XLA compiles the two steps differently, by a last bit here and there.
        np.testing.assert_allclose(weight, other, rtol=1e-5)
