"""Small models to train, and what is read from them."""

import numpy as np
import tensorflow as tf
from releases import BACKEND


def build_model(optimizer="sgd", **compiled):
    """A small regression network, built, with the same weights each time."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(optimizer, "mse", **compiled)
    return model


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
    """The steps and values of a curve in TensorBoard's files, in order of the steps."""
    from tensorboard.backend.event_processing import event_accumulator

    accumulator = event_accumulator.EventAccumulator(
        str(log_dir), size_guidance={"tensors": 0}
    )
    events = accumulator.Reload().Tensors(tag)
    # TensorBoard reads files of the same second in any order.
    return sorted((e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events)
