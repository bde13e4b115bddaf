"""Warnings are given when the log alone would mislead, and only then.

What the logger says of schedules is tested in test_logger.
"""

import models
import numpy as np
import pytest
import tensorflow as tf
from models import RATES, build_model, decay, train, trained_by_hand, warned
from releases import needs_keras_3, needs_multi_optimizer, needs_tensorflow

from expdecay_keras import (
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
)

callbacks, optimizers = tf.keras.callbacks, tf.keras.optimizers

# An optimizer that trains nothing


def idle(name, optimizer="optimizer"):
    return (
        f"{name}: the model's {optimizer} has taken no steps so far, so its learning "
        "rate has had no effect. If another optimizer trains the model, compile the "
        "model with that one, or build that one with a WarmupExponentialSchedule."
    )


@needs_tensorflow
def test_an_optimizer_that_trains_nothing(tmp_path):
    """As in generative adversarial networks, another optimizer trains the model."""
    model = trained_by_hand(own=optimizers.SGD(0.5))
    writer = LearningRateTensorBoard(tmp_path)
    rates, messages = warned(train, model, decay(), writer)
    assert rates == RATES
    assert messages == [idle("WarmupExponentialDecay"), idle("LearningRateTensorBoard")]
    assert not list(tmp_path.iterdir())
    model = trained_by_hand(optimizers.SGD(models.planned()), optimizers.SGD(0.5))
    rates, messages = warned(train, model, LearningRateLogger())
    assert rates == [RATES[0]] * 5
    assert messages == [idle("LearningRateLogger")]


@needs_multi_optimizer
def test_each_optimizer_that_trains_nothing_is_named():
    used, default, unused = (optimizers.SGD(0.5, name=name) for name in "abc")
    chosen = optimizers.OptimizerMap(default, {".*": used, "nothing": unused})
    model = build_model(optimizers.MultiOptimizer(chosen))
    _, messages = warned(models.train_all, model, decay())
    assert sorted(messages) == [
        idle("WarmupExponentialDecay", f"optimizer logged as `learning_rate_{name}`")
        for name in "bc"
    ]


@needs_keras_3
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_model_without_trainable_weights_is_not_told_of_its_optimizer():
    model = build_model()
    model.trainable = False
    model.compile("sgd", "mse")
    assert train(model, decay()) == RATES


# Other numbers of epochs than the rule's


def stops(epochs):
    return (
        f"WarmupExponentialDecay: fit(epochs={epochs}) stops before target_lr=0.0001 "
        "is reached, because n_epochs=5. Make the two equal, or continue later with "
        f"fit(initial_epoch={epochs}, epochs=5)."
    )


def goes_past(epochs, cure="make the two equal"):
    return (
        f"WarmupExponentialDecay: fit(epochs={epochs}) goes past n_epochs=5: all "
        "further epochs train at target_lr=0.0001. If that is not intended, "
        f"{cure}."
    )


def test_fit_stops_before_or_goes_past_n_epochs():
    decay_on = "decay from this rate to a new target, with n_warmup_epochs="
    own, held = decay(), WarmupExponentialDecay(0.1, 0.1, 5)
    model = build_model()
    models.step_count(model.optimizer).assign(1)  # it is not idle
    for first, last, expected in [
        (0, 5, []),
        (0, 4, [stops(4)]),
        (1, 3, []),
        (0, 6, [goes_past(6)]),
        (0, 6, [goes_past(6)]),  # once in each `fit`
        (4, 7, [goes_past(7, decay_on + "5")]),  # followed in test_extending
        (6, 7, [goes_past(7, decay_on + "6")]),
    ]:
        _, messages = warned(models.begin, own, model, first, last)
        assert messages == expected
        models.begin(held, model, first, last)  # silent: it may stop at any time


def test_early_stopping_is_not_told():
    stop = callbacks.EarlyStopping("loss", patience=2, min_delta=1e9)
    assert train(build_model(), decay(), stop) == RATES[:3]


# Something else that changes the rate


def changed(before, after):
    return (
        "WarmupExponentialDecay: another callback changed `learning_rate` from "
        f"{before:.6g} to {after:.6g}, but this one sets it again at the start of each "
        "epoch. Remove one of the two; to combine the rule with ReduceLROnPlateau, use "
        "make_lr_scheduler."
    )


@pytest.mark.parametrize("n_epochs", [2, 5], ids=["in-the-last-epoch", "earlier"])
def test_reduce_on_plateau_is_overwritten(n_epochs):
    # keras PR 8829: LearningRateScheduler silently undoes ReduceLROnPlateau.
    reduce = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    own, model = WarmupExponentialDecay(1 / 3, 1 / 3, n_epochs), build_model()
    rates, messages = warned(train, model, reduce, own, epochs=n_epochs)
    assert rates == [float(np.float32(1 / 3))] * n_epochs
    assert messages == [changed(1 / 3, 1 / 6)]


# When a warning is given


def test_warnings_wait_for_the_next_epoch_and_keep_their_order():
    """So they do not tear the progress bar."""
    model, own = build_model(), WarmupExponentialDecay(0.5, 0.25, 2)
    own.set_model(model)
    own.on_epoch_begin(0)
    own.on_epoch_end(0)
    model.optimizer.learning_rate = 0.125
    _, messages = warned(own.on_epoch_begin, 1)
    assert messages == [idle("WarmupExponentialDecay"), changed(0.5, 0.125)]


def test_a_warning_of_an_interrupted_fit_is_not_given_in_the_next():
    model, own = build_model(), decay()
    own.set_model(model)
    own.on_epoch_begin(0)
    own.on_epoch_end(0)  # it is idle, which the next epoch would tell
    assert train(model, own) == RATES
