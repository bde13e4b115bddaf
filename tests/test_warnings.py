"""Warnings are given when the log alone would mislead, and only then.

What the logger says of schedules is tested in test_logger.
"""

import re

import models
import numpy as np
import pytest
import tensorflow as tf
from models import RATES, build_model, decay, scheduled, train, trained_by_hand, warned
from oracle import float32_rates
from releases import (
    needs_keras_2,
    needs_keras_3,
    needs_multi_optimizer,
    needs_tensorflow,
)

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
    assert messages == [
        idle("WarmupExponentialDecay"),
        idle("LearningRateTensorBoard"),
    ]
    assert not list(tmp_path.iterdir())
    model = trained_by_hand(optimizers.SGD(models.planned()), optimizers.SGD(0.5))
    rates, messages = warned(train, model, LearningRateLogger())
    assert rates == [RATES[0]] * 5
    assert messages == [idle("LearningRateLogger")]


@needs_multi_optimizer
def test_each_optimizer_that_trains_nothing_is_named():
    used, *idle_ones = (optimizers.SGD(0.5, name=name) for name in "abc")
    chosen = optimizers.OptimizerMap(
        idle_ones[0], {".*": used, "nothing": idle_ones[1]}
    )
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


class Without:
    """An optimizer without a rate."""


def without_a_rate():
    model = build_model()
    model.optimizer = Without()
    return model


def of_tensorflow_1():
    return build_model(tf.compat.v1.train.AdamOptimizer(0.5))


@pytest.mark.parametrize(
    "build, received",
    [
        (lambda: tf.keras.Sequential([tf.keras.layers.Dense(2)]), "None"),
        (without_a_rate, "<.*Without object at .*>"),
        pytest.param(of_tensorflow_1, "<.*TFOptimizer .*>", marks=needs_keras_2),
    ],
)
def test_an_optimizer_that_cannot_be_served(build, received, tmp_path):
    message = re.escape(
        "The model has no optimizer with a `learning_rate` that could be set or "
        "logged. Compile the model with the optimizer that trains it, or build that "
        "optimizer with a WarmupExponentialSchedule. Received: model.optimizer="
    )
    for callback in (decay(), LearningRateLogger(), LearningRateTensorBoard(tmp_path)):
        callback.set_model(build())
        with pytest.raises(TypeError, match=f"^{message}{received}$"):
            callback.on_train_begin()


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


def decay_on(n_warmup_epochs):
    """The cure that is followed in test_extending: a run that has begun."""
    return (
        f"decay from this rate to a new target, with n_warmup_epochs={n_warmup_epochs}"
    )


def begin(callback, first, last):
    """Calls the hooks as `fit` does."""
    callback.set_params({"epochs": last})
    callback.on_train_begin()
    callback.on_epoch_begin(first)
    callback.on_epoch_end(first)


def test_other_numbers_of_epochs():
    own, held = decay(), WarmupExponentialDecay(0.1, 0.1, 5)
    model = build_model()
    models.step_count(model.optimizer).assign(1)  # it is not idle
    own.set_model(model)
    held.set_model(model)
    for first, last, expected in [
        (0, 5, []),
        (0, 4, [stops(4)]),
        (1, 3, []),
        (0, 6, [goes_past(6)]),
        (0, 6, [goes_past(6)]),  # once in each `fit`
        (4, 7, [goes_past(7, decay_on(5))]),
        (6, 7, [goes_past(7, decay_on(6))]),
    ]:
        _, messages = warned(begin, own, first, last)
        assert messages == expected
        begin(held, first, last)  # silent: it may stop at any time


def test_one_fit_per_epoch():
    # keras#888: without `initial_epoch` each `fit` starts at epoch 0.
    model, own = build_model(), decay()
    for epoch in range(3):
        options = {"initial_epoch": epoch, "epochs": epoch + 1}
        rates, messages = warned(train, model, own, **options)
        assert rates == [RATES[epoch]]
        assert messages == ([stops(1)] if epoch == 0 else [])


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
    assert float(np.asarray(model.optimizer.learning_rate)) == np.float32(1 / 6)


def test_of_two_rules_the_last_one_trains_and_both_warn_in_each_fit():
    first, last = decay(), WarmupExponentialDecay(0.5, 0.25, 5)
    trained_with, model = [], build_model()

    def spy(batch, logs=None):
        trained_with.append(float(model.optimizer.learning_rate.numpy()))

    listed = [first, last, callbacks.LambdaCallback(on_train_batch_begin=spy)]
    for _ in range(2):
        trained_with.clear()
        rates, messages = warned(train, model, *listed, batch_size=64)
        assert rates == trained_with == float32_rates(last.rule, range(5))
        assert messages == [changed(0.1, 0.5), changed(0.5, RATES[1])]


# When a warning is given


def test_warnings_are_given_in_the_order_found():
    model, own = build_model(), WarmupExponentialDecay(0.5, 0.25, 2)
    own.set_model(model)
    own.on_epoch_begin(0)
    own.on_epoch_end(0)
    model.optimizer.learning_rate = 0.125
    _, messages = warned(own.on_epoch_begin, 1)
    assert messages == [idle("WarmupExponentialDecay"), changed(0.5, 0.125)]


def test_a_warning_of_an_interrupted_fit_is_not_given_in_the_next():
    class InterruptEpochEnd(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    logger = LearningRateLogger()
    with pytest.raises(KeyboardInterrupt):
        train(scheduled(2), logger, InterruptEpochEnd())
    assert train(scheduled(), logger) == RATES


def test_a_warning_does_not_tear_the_progress_bar():
    """What an epoch's end shows is told when the next one begins."""
    counts = []
    with pytest.warns(UserWarning, match="took 4 steps") as caught:
        count = callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: counts.append(
                sum("took 4 steps" in str(w.message) for w in caught)
            )
        )
        train(scheduled(2), LearningRateLogger(), count, epochs=3)
    assert counts == [0, 1, 1]


# No false alarm


def test_early_stopping():
    stop = callbacks.EarlyStopping("loss", patience=2, min_delta=1e9)
    assert train(build_model(), decay(), stop) == RATES[:3]
