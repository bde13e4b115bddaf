"""What happens beside other callbacks that change the rate, the weights or the end of training."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from conftest import IS_KERAS_3, build_model, float32_rates

from expdecay_keras import DecayRule, WarmupExponentialDecay

callbacks = tf.keras.callbacks
BOTH_ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])
RULE = DecayRule(0.1, 1e-4, 6, 1)


@pytest.fixture
def decay():
    return WarmupExponentialDecay(0.1, 1e-4, 6, 1)


def warnings_of(fit, *args, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(*args, **options)
    return history, [str(w.message) for w in caught if "WarmupExponentialDecay" in str(w.message)]


@BOTH_ORDERS
def test_early_stopping_cuts_the_curve_short(order, decay, model, fit):
    stop = callbacks.EarlyStopping("loss", patience=2, min_delta=1e9)
    history = fit(model, [decay, stop][::order], epochs=6)
    assert history["learning_rate"] == float32_rates(RULE, range(3))


@BOTH_ORDERS
def test_terminate_on_nan_logs_the_rate_of_the_epoch_it_ends(order, decay, fit):
    class Loss(tf.keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.reduce_mean(y_pred) * float("nan")

    model = build_model()
    model.compile("sgd", Loss())
    stop = callbacks.TerminateOnNaN()
    history = fit(model, [decay, stop][::order], epochs=6, batch_size=4)
    assert history["learning_rate"] == float32_rates(RULE, range(1))


@pytest.mark.skipif(not hasattr(callbacks, "SwapEMAWeights"), reason="this Keras has no SwapEMAWeights")
@BOTH_ORDERS
def test_swapping_averaged_weights_leaves_the_rate_alone(order, decay, fit):
    def train(*others):
        model = build_model(tf.keras.optimizers.SGD(use_ema=True))
        history = fit(model, [decay, *others][::order], epochs=6)
        return model, history

    model, history = train(callbacks.SwapEMAWeights(swap_on_epoch=True))
    _, alone = train()
    assert history["learning_rate"] == alone["learning_rate"] == float32_rates(RULE, range(6))


def test_a_second_copy_warns_and_changes_nothing(decay, model, fit):
    copied = WarmupExponentialDecay.from_config(decay.get_config())
    history, warned = warnings_of(fit, model, [decay, copied], epochs=6)
    assert history["learning_rate"] == float32_rates(RULE, range(6))
    assert len(warned) == 1 and "Something else changed `learning_rate`" in warned[0]


def test_of_two_rules_the_last_one_trains_and_both_warn(decay, model, fit):
    other = WarmupExponentialDecay(0.5, 0.25, 6)
    history, warned = warnings_of(fit, model, [decay, other], epochs=6)
    assert history["learning_rate"] == float32_rates(other.rule, range(6))
    assert len(warned) == 2 and all("Something else changed `learning_rate`" in w for w in warned)


@BOTH_ORDERS
def test_beside_a_learning_rate_scheduler_the_last_one_trains(order, decay, model, fit):
    scheduler = callbacks.LearningRateScheduler(lambda epoch, lr: 0.5)
    trained_with = []
    spy = callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs=None: trained_with.append(
            float(np.asarray(model.optimizer.learning_rate.numpy()))
        )
    )
    history, warned = warnings_of(fit, model, [*[decay, scheduler][::order], spy], epochs=6)
    assert trained_with == (float32_rates(RULE, range(6)) if order == -1 else [0.5] * 6)
    assert len(warned) == 1 and "Something else changed `learning_rate` from" in warned[0]
    if IS_KERAS_3:  # under Keras 2 the scheduler logs another key
        assert history["learning_rate"] == trained_with


def test_compiled_anew_between_two_fits(decay, model, fit):
    fit(model, [decay], epochs=6)
    model.compile(tf.keras.optimizers.Adam(0.5), "mse")
    history = fit(model, [decay], epochs=6)
    assert history["learning_rate"] == float32_rates(RULE, range(6))
    assert model.optimizer.learning_rate.numpy() == np.float32(1e-4)
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(tf.keras.optimizers.SGD(schedule), "mse")
    with pytest.raises(TypeError, match="WarmupExponentialSchedule"):
        fit(model, [decay], epochs=6)
