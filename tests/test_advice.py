"""What the README advises in a line or two: runs that are extended, and what Keras does with a rate."""

import csv
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import IS_KERAS_3, build_model, evaluate, float32_rates, needs_tensorflow

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

# Runs that are extended: open_clip#413, ultralytics#19467, nnUNet#901


def test_extended_while_the_rate_is_held(fit):
    """10 epochs more, all of them held: nothing that has been trained changes, and no rate jumps."""
    planned = WarmupExponentialDecay(0.1, 1e-4, 20, 2, 0.01, n_hold_epochs=8)
    extended = WarmupExponentialDecay(0.1, 1e-4, 30, 2, 0.01, n_hold_epochs=18)
    model = build_model()
    with pytest.warns(UserWarning, match="stops before"):
        rates = fit(model, [planned], epochs=10)["learning_rate"]
    rates += fit(model, [extended], epochs=30, initial_epoch=10)["learning_rate"]
    assert rates == float32_rates(extended.rule, range(30))
    assert rates[:10] == float32_rates(planned.rule, range(10))
    assert rates[20:] == float32_rates(planned.rule, range(10, 20))


def test_extended_after_its_end(fit):
    """From the old target at the epoch it resumes at down to a new one."""
    planned = WarmupExponentialDecay(0.1, 1e-4, 20, 2)
    extended = WarmupExponentialDecay(1e-4, 1e-6, 30, n_warmup_epochs=20)
    model = build_model()
    rates = fit(model, [planned], epochs=20)["learning_rate"]
    rates += fit(model, [extended], epochs=30, initial_epoch=20)["learning_rate"]
    assert len(rates) == 30 and rates[19] == rates[20] == float(np.float32(1e-4))
    assert rates[29] == float(np.float32(1e-6))
    assert all(later <= earlier for earlier, later in zip(rates, rates[1:]))


def test_simply_more_epochs_make_the_rate_jump():
    rates = [DecayRule(0.1, 1e-5, n_epochs).learning_rate(5).numpy() for n_epochs in (10, 20)]
    assert [f"{rate:.2g}" for rate in rates] == ["0.0006", "0.0089"]


# What Keras does


@needs_tensorflow
def test_skipped_updates_hold_a_schedule_back_but_not_the_callback(fit):
    # Lightning#18828, accelerate PR 139: under dynamic loss scaling Keras 3 does not count them.
    def train(rate, callback):
        sgd = tf.keras.optimizers.SGD(rate)
        scale = (
            {"initial_scale": 2.0**127} if IS_KERAS_3 else {"dynamic": True, "initial_scale": 2.0**127}
        )
        model = build_model(tf.keras.mixed_precision.LossScaleOptimizer(sgd, **scale))
        rates = fit(model, [callback], epochs=6, batch_size=4)["learning_rate"]
        return rates, int(sgd.iterations.numpy())

    rule = DecayRule(1e-2, 1e-4, 6)
    schedule = WarmupExponentialSchedule(1e-2, 1e-4, 6, steps_per_epoch=4)
    rates, n_updates = train(schedule, LearningRateLogger())
    if not IS_KERAS_3:
        assert n_updates == 24 and rates == float32_rates(rule, range(6))
        return
    assert 0 < n_updates < 24 and rates[-1] > float32_rates(rule, [5])[0]
    rates, n_updates = train(0.5, WarmupExponentialDecay(1e-2, 1e-4, 6))
    assert n_updates < 24 and rates == float32_rates(rule, range(6))


@pytest.mark.skipif(not hasattr(tf.keras.optimizers, "AdamW"), reason="this Keras has no AdamW")
def test_weight_decay_follows_the_rate(model):
    # keras#16517, tf-keras#614: an optimizer of Keras multiplies it by the rate.
    model.compile(tf.keras.optimizers.AdamW(weight_decay=0.5), "mse")
    before = model.get_weights()[0]
    x = np.zeros((4, 3), "float32")  # no gradient for the kernel
    decay = WarmupExponentialDecay(0.1, 0.01, 3)
    model.fit(x, np.zeros((4, 2), "float32"), epochs=3, verbose=0, callbacks=[decay])
    shrunk = before
    for rate in float32_rates(decay.rule, range(3)):
        shrunk = shrunk * (1 - 0.5 * rate)
    np.testing.assert_allclose(model.get_weights()[0], shrunk, rtol=1e-5)


def columns(path):
    with path.open(newline="") as file:
        return {name: values for name, *values in zip(*csv.reader(file))}


def test_csv_logger_invents_a_column(model, data, tmp_path):
    # keras#21173, #21025: without validation data an empty `val_` column for each, from 2.15 on.
    logger = tf.keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    model.fit(*data, epochs=3, verbose=0, callbacks=[WarmupExponentialDecay(0.1, 0.001, 3), logger])
    invented = None if tf.__version__.startswith("2.12.") else ["NA"] * 3
    assert columns(tmp_path / "log.csv").get("val_learning_rate") == invented


def test_csv_logger_with_validation_data_invents_none(model, data, tmp_path):
    logger = tf.keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    callbacks = [WarmupExponentialDecay(0.1, 0.001, 3), logger]
    model.fit(*data, epochs=3, verbose=0, callbacks=callbacks, validation_data=data)
    written = columns(tmp_path / "log.csv")
    assert "val_learning_rate" not in written
    assert [float(rate) for rate in written["learning_rate"]] == model.history.history["learning_rate"]


def test_csv_logger_before_the_callback_has_no_rate(model, data, tmp_path):
    logger = tf.keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    callbacks = [logger, WarmupExponentialDecay(0.1, 0.001, 3)]
    model.fit(*data, epochs=3, verbose=0, callbacks=callbacks, validation_data=data)
    assert "learning_rate" not in columns(tmp_path / "log.csv")
    assert len(model.history.history["learning_rate"]) == 3


@pytest.mark.parametrize("n_rows, batch_size", [(16, 4), (17, 4), (15, 4), (3, 4)])
def test_steps_per_epoch_is_the_number_of_batches_rounded_up(n_rows, batch_size):
    steps_per_epoch = math.ceil(n_rows / batch_size)
    schedule = WarmupExponentialSchedule(0.1, 1e-3, 4, steps_per_epoch=steps_per_epoch)
    model = build_model(tf.keras.optimizers.SGD(schedule))
    x, y = np.ones((n_rows, 3), "float32"), np.ones((n_rows, 2), "float32")
    options = {"epochs": 4, "batch_size": batch_size, "verbose": 0}
    rates = model.fit(x, y, callbacks=[LearningRateLogger()], **options).history["learning_rate"]
    assert rates == float32_rates(schedule.rule, range(4))


def test_the_ramp_that_rises_step_by_step():
    schedule = WarmupExponentialSchedule(0.4, 0.1, 5, 2, 0.0, steps_per_epoch=4, staircase=False)
    rates = evaluate(schedule, np.arange(9))
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4], rtol=1e-7)
