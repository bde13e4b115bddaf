"""Where the rate that is logged is not the one that trains, a warning says so; elsewhere none does."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import BACKEND, IS_KERAS_3, build_model, float32_rates, needs_tensorflow

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

RULE = DecayRule(0.1, 1e-4, 5)
X, Y = np.ones((64, 3), "float32"), np.zeros((64, 2), "float32")
IDLE = "`learning_rate` is not logged: `model.optimizer` updated nothing in this epoch"


def schedule(steps_per_epoch=4):
    return WarmupExponentialSchedule(0.1, 1e-4, 5, steps_per_epoch=steps_per_epoch)


def train(optimizer, callback, x=X, y=Y, compiled=None, **options):
    """Returns the rates in the history of 5 epochs, by default of 4 steps, and the count of updates."""
    model = build_model()
    model.compile(optimizer, "mse", **(compiled or {}))
    if y is not None:
        options["batch_size"] = 16
    model.fit(x, y, epochs=5, verbose=0, shuffle=False, callbacks=[callback], **options)
    return model.history.history["learning_rate"], int(np.asarray(model.optimizer.iterations))


# An optimizer of one's own


class OwnOptimizer(tf.keras.Model):
    """Trains with an optimizer that is not `model.optimizer`, as generative adversarial networks do."""

    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(2)
        self.own = tf.keras.optimizers.SGD(0.5)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
        weights = self.trainable_variables
        self.own.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


@needs_tensorflow
@pytest.mark.parametrize(
    "callback", [WarmupExponentialDecay(0.1, 1e-4, 5), LearningRateLogger()], ids=["decay", "logger"]
)
def test_a_rate_that_trained_nothing_is_not_logged(callback):
    model = OwnOptimizer()
    model(X)
    model.own.build(model.trainable_variables)
    model.compile()
    with pytest.warns(UserWarning, match=IDLE) as caught:
        model.fit(X, Y, epochs=5, verbose=0, callbacks=[callback])
    assert sum("not logged" in str(warning.message) for warning in caught) == 1
    assert set(model.history.history) == {"loss"}


@needs_tensorflow
@pytest.mark.parametrize(
    "callback", [WarmupExponentialDecay(0.1, 1e-4, 5), LearningRateLogger()], ids=["decay", "logger"]
)
def test_an_epoch_of_skipped_updates_is_no_reason(callback):
    """Under loss scaling: the steps overflow, and Keras 3 counts none of them."""
    options = {} if IS_KERAS_3 else {"dynamic": True}
    scaled = tf.keras.mixed_precision.LossScaleOptimizer(
        tf.keras.optimizers.SGD(0.1), initial_scale=2.0**127, **options
    )
    rates, n_updates = train(scaled, callback, X[:4], Y[:4] + 1e6)
    assert len(rates) == 5 and n_updates == (0 if IS_KERAS_3 else 5)


# A schedule that drifts


def unknown_length():
    return tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(16)


def test_a_wrong_steps_per_epoch_warns():
    message = "The optimizer counted 4 steps in an epoch, but its schedule has steps_per_epoch=2: "
    with pytest.warns(UserWarning, match=message) as caught:
        rates, _ = train(tf.keras.optimizers.SGD(schedule(2)), LearningRateLogger())
    assert sum("counted" in str(warning.message) for warning in caught) == 1
    assert rates == float32_rates(RULE, [0, 2, 4, 4, 4])


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_dataset_of_unknown_length():
    """Keras 3 counts a step too many an epoch on TensorFlow, and Keras 2 one in all."""
    drifting = tf.keras.optimizers.SGD(schedule()), LearningRateLogger(), unknown_length(), None
    if BACKEND != "tensorflow":
        rates, n_updates = train(*drifting)
        assert n_updates == 20 and rates == float32_rates(RULE, range(5))
        return
    message = "The optimizer counted 5 steps in an epoch, but its schedule has steps_per_epoch=4: "
    with pytest.warns(UserWarning, match=message) as caught:
        _, n_updates = train(*drifting)
    assert sum("counted" in str(warning.message) for warning in caught) == 1
    assert n_updates == (25 if IS_KERAS_3 else 21)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("way_out", ["assert_cardinality", "jit_compile", "callback"])
def test_the_ways_out(way_out):
    optimizer, callback, data, compiled = schedule(), LearningRateLogger(), unknown_length(), {}
    if way_out == "assert_cardinality":
        data = data.apply(tf.data.experimental.assert_cardinality(4))
    elif way_out == "jit_compile":
        if not IS_KERAS_3:
            pytest.skip("Keras 2 counts a step too many with jit_compile, too")
        compiled = {"jit_compile": BACKEND != "torch"}
    else:
        optimizer, callback = 0.1, WarmupExponentialDecay(0.1, 1e-4, 5)
    rates, _ = train(tf.keras.optimizers.SGD(optimizer), callback, data, None, compiled)
    assert rates == float32_rates(RULE, range(5))


# No false alarm: every warning is an error here


@pytest.mark.parametrize("steps_per_execution", [2, 4])
@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no steps_per_execution")
def test_steps_per_execution_is_no_reason(steps_per_execution):
    sgd = tf.keras.optimizers.SGD(schedule())
    compiled = {"steps_per_execution": steps_per_execution}
    rates, _ = train(sgd, LearningRateLogger(), compiled=compiled)
    assert rates == float32_rates(RULE, range(5))


@pytest.mark.parametrize("callback", [LearningRateLogger(), WarmupExponentialDecay(0.1, 1e-4, 5)])
def test_several_fits_and_resumed_ones_are_no_reason(callback):
    rate = schedule() if isinstance(callback, LearningRateLogger) else 0.1
    model = build_model(tf.keras.optimizers.SGD(rate))
    options = {"epochs": 5, "batch_size": 16, "verbose": 0, "callbacks": [callback]}
    model.fit(X, Y, validation_data=(X, Y), **options)
    model.fit(X, Y, initial_epoch=3, sample_weight=np.ones(64), **options)
    assert len(model.history.history["learning_rate"]) == 2


@pytest.mark.parametrize("rate", [0.1, schedule()], ids=["callback", "schedule"])
def test_class_weight_is_no_reason(rate):
    model = build_model()
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(rate), loss)
    callback = WarmupExponentialDecay(0.1, 1e-4, 5) if rate == 0.1 else LearningRateLogger()
    options = {"epochs": 5, "batch_size": 16, "verbose": 0, "class_weight": {0: 1.0, 1: 2.0}}
    model.fit(X, np.arange(64) % 2, callbacks=[callback], **options)
    assert model.history.history["learning_rate"] == float32_rates(RULE, range(5))


def test_an_epoch_cut_short_is_no_reason():
    class Stop(LearningRateLogger):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    rates, n_updates = train(tf.keras.optimizers.SGD(schedule()), Stop())
    assert n_updates == 1 and rates == float32_rates(RULE, [0])
