"""Small models to train, how they are trained, and what is read from them."""

import warnings

import numpy as np
import tensorflow as tf
from oracle import float32_rates
from releases import BACKEND, IS_KERAS_3

from expdecay_keras import DecayRule, WarmupExponentialDecay, WarmupExponentialSchedule

RULE = DecayRule(0.1, 1e-4, 5)
RATES = float32_rates(RULE, range(5))
X, Y = np.ones((64, 3), "float32"), np.zeros((64, 2), "float32")
FIT = {"epochs": 5, "batch_size": 16, "verbose": 0, "shuffle": False}  # 4 steps


def build_model(optimizer="sgd", **compiled):
    """A small regression network, built, with the same weights each time."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(optimizer, "mse", **compiled)
    return model


def decay(**options):
    """The callback of RULE."""
    return WarmupExponentialDecay(0.1, 1e-4, 5, **options)


def planned(steps_per_epoch=4, n_epochs=5, **options):
    """The schedule of RULE, for the batches of FIT."""
    return WarmupExponentialSchedule(
        0.1, 1e-4, n_epochs, steps_per_epoch=steps_per_epoch, **options
    )


def scheduled(steps_per_epoch=4, optimizer=tf.keras.optimizers.SGD, **options):
    """A model whose optimizer has the schedule of RULE."""
    return build_model(optimizer(planned(steps_per_epoch), **options))


def train(model, *callbacks, **options):
    """Returns the rates in the history of five epochs of four steps."""
    history = model.fit(X, Y, callbacks=list(callbacks), **{**FIT, **options})
    return history.history["learning_rate"]


def warned(function, *args, **options):
    """Returns what a function returns, and the texts of this package's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **options)
    ours = [w for w in caught if "expdecay_keras" in w.filename]
    return result, [str(w.message) for w in ours]


class Interrupt(tf.keras.callbacks.Callback):
    """Interrupts training at a batch, counted from 1 since this was made."""

    def __init__(self, at):
        super().__init__()
        self.at, self.count = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt


def step_count(optimizer):
    """The variable in which an optimizer counts the steps of its schedule."""
    return optimizer.variables[0] if IS_KERAS_3 else optimizer.iterations


def evaluate(schedule, steps):
    """The rates of a schedule, whatever the backend, as a NumPy array."""
    rates = schedule(steps)
    if BACKEND == "tensorflow":
        return rates.numpy()
    return tf.keras.ops.convert_to_numpy(rates)


def assert_equal_arrays(arrays, expected):
    arrays, expected = list(arrays), list(expected)
    assert len(arrays) == len(expected) > 0
    for array, other in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, other)


def scalars(log_dir, tag="learning_rate"):
    """The steps and values of a curve in the order in which TensorBoard draws them."""
    from tensorboard.backend.event_processing import event_accumulator

    accumulator = event_accumulator.EventAccumulator(
        str(log_dir), size_guidance={"tensors": 0}
    )
    events = accumulator.Reload().Tensors(tag)
    return [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events]
