"""What test_distribution.py trains, in the tests' own process and in others."""

import contextlib

import numpy as np
import tensorflow as tf
from models import build_model, decay, planned

from expdecay_keras import LearningRateLogger

SCHEDULES = {"callback": None, "schedule": planned(staircase=False)}

rng = np.random.default_rng(0)
ROWS = tuple(rng.normal(size=(16, n)).astype("float32") for n in (3, 2))


def dataset():
    """The rows in order, again and again, so that every batch is full."""
    return tf.data.Dataset.from_tensor_slices(ROWS).repeat().batch(4)


class Training:
    """Trains a small model with the callback, or with a schedule."""

    def __init__(self, name, strategy=None):
        schedule = SCHEDULES[name]
        self.callback = LearningRateLogger() if schedule else decay()
        with strategy.scope() if strategy else contextlib.nullcontext():
            optimizer = tf.keras.optimizers.SGD(schedule or 0.5, momentum=0.9)
            self.model = build_model(optimizer)

    def fit(self, *callbacks, initial_epoch=0):
        history = self.model.fit(
            dataset(),
            epochs=5,
            initial_epoch=initial_epoch,
            steps_per_epoch=4,
            callbacks=[self.callback, *callbacks],
            shuffle=False,
            verbose=0,
        )
        return self.report(history.history["learning_rate"])

    def loop(self, run_step):
        """Trains in a loop of its own, which calls the callback's hooks by hand."""
        rates = []
        self.callback.set_model(self.model)
        self.callback.on_train_begin()
        for epoch in range(5):
            logs = {}
            self.callback.on_epoch_begin(epoch)
            for _ in range(4):
                run_step()
            self.callback.on_epoch_end(epoch, logs)
            rates.append(logs["learning_rate"])
        return self.report(rates)

    def report(self, rates):
        """The rates of the epochs, and the weights, as they are after JSON."""
        return [rates, [weight.tolist() for weight in self.model.get_weights()]]
