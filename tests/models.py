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


def multiple(default, of_biases):
    """A model whose MultiOptimizer has an optimizer for the kernel and for the bias."""
    optimizers = tf.keras.optimizers
    chosen = optimizers.OptimizerMap(default, {".*bias": of_biases})
    return build_model(optimizers.MultiOptimizer(chosen))


class TrainedByHand(tf.keras.Sequential):
    """Takes several steps per batch, or trains with an optimizer of its own."""

    def train_step(self, data):
        for _ in range(self.n_steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
            weights = self.trainable_variables
            gradients = tape.gradient(loss, weights)
            optimizer = self.own or self.optimizer
            optimizer.apply_gradients(list(zip(gradients, weights, strict=True)))
        return {"loss": loss}


def trained_by_hand(optimizer="sgd", own=None, n_steps=1, **compiled):
    model = TrainedByHand([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(optimizer, "mse", **compiled)
    model.own, model.n_steps = own, n_steps
    if own is not None:
        own.build(model.trainable_variables)
    return model


def train_all(model, *callbacks, **options):
    """Returns all rates in the history, by name, of five epochs of four steps."""
    history = model.fit(X, Y, callbacks=list(callbacks), **{**FIT, **options}).history
    return {name: history[name] for name in history if "rate" in name}


def train(model, *callbacks, **options):
    """Returns the rates in the history of five epochs of four steps."""
    return train_all(model, *callbacks, **options)["learning_rate"]


def unknown_length():
    """The batches of FIT, in a dataset that cannot tell their number."""
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return dataset.filter(lambda x, y: True).batch(16)


def train_on(dataset, model, *callbacks):
    """Returns the rates in the history of five epochs of a dataset."""
    options = {"epochs": 5, "verbose": 0, "shuffle": False}
    history = model.fit(dataset, callbacks=list(callbacks), **options).history
    return history.get("learning_rate")


def warned(function, *args, **options):
    """Returns what a function returns, and the texts of this package's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **options)
    ours = [w for w in caught if "expdecay_keras" in w.filename]
    return result, [str(w.message) for w in ours]


def begin(callback, model, epoch, epochs=None):
    """Calls the hooks of an epoch at which `fit` starts; returns the log."""
    logs = {}
    callback.set_model(model)
    callback.set_params({"epochs": epochs})
    callback.on_train_begin()
    callback.on_epoch_begin(epoch)
    callback.on_epoch_end(epoch, logs)
    return logs


class Interrupt(tf.keras.callbacks.Callback):
    """Interrupts training at a batch, counted from 1 since this was made."""

    def __init__(self, at):
        super().__init__()
        self.at, self.count = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt


class SetCount(tf.keras.callbacks.Callback):
    """Sets the optimizer's count of steps back at the end of an epoch."""

    def __init__(self, at, count):
        super().__init__()
        self.at, self.count = at, count

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.at:
            step_count(self.model.optimizer).assign(self.count)


def step_count(optimizer):
    """The variable in which an optimizer counts the steps of its schedule."""
    return optimizer.variables[0] if IS_KERAS_3 else optimizer.iterations


def evaluate(schedule, steps):
    """The rates of a schedule, whatever the backend, as a NumPy array."""
    rates = schedule(steps)
    if BACKEND == "tensorflow":
        return rates.numpy()
    return tf.keras.ops.convert_to_numpy(rates)


def as_array(steps, dtype):
    exact = np.array(steps, object)  # NumPy would make floats of large integers
    return exact.astype(tf.as_dtype(dtype).as_numpy_dtype)


def compiled_forms(function):
    """A function of tensors, and as each backend compiles it."""
    if BACKEND == "tensorflow":
        graph, xla = tf.function(function), tf.function(function, jit_compile=True)
        return [function, graph, xla]
    if BACKEND == "jax":
        import jax

        return [function, jax.jit(function)]
    import torch

    torch._dynamo.reset()
    return [function, torch.compile(function, fullgraph=True, backend="eager")]


def make_tensor(steps, dtype):
    """A tensor of the backend."""
    if BACKEND == "torch":
        import torch

        return torch.tensor(steps, dtype=getattr(torch, dtype))
    convert = tf.constant if BACKEND == "tensorflow" else tf.keras.ops.convert_to_tensor
    return convert(as_array(steps, dtype))


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
