"""What test_distribution.py trains, in the tests' own process and in others."""

import contextlib

import numpy as np
import tensorflow as tf
from models import build_model, evaluate

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

ARGUMENTS = {
    "base_lr": 0.1,
    "target_lr": 1e-3,
    "n_epochs": 5,
    "n_warmup_epochs": 1,
    "warmup_start_lr": 0.02,
}
RULE = DecayRule(**ARGUMENTS)
STEPS_PER_EPOCH = 4
NAMES = ["callback", "staircase", "continuous"]


def rows():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 3)), rng.normal(size=(16, 2))
    return x.astype("float32"), y.astype("float32")


def dataset():
    """The rows in order, again and again, so that every batch is full."""
    return tf.data.Dataset.from_tensor_slices(rows()).repeat().batch(4)


class Training:
    """Trains a small model with the callback, or with one of the schedules."""

    def __init__(self, name, strategy=None):
        if name == "callback":
            self.schedule, rate = None, 0.5
            self.callback = WarmupExponentialDecay(**ARGUMENTS)
        else:
            self.schedule = rate = WarmupExponentialSchedule(
                **ARGUMENTS,
                steps_per_epoch=STEPS_PER_EPOCH,
                staircase=name == "staircase",
            )
            self.callback = LearningRateLogger()
        with strategy.scope() if strategy else contextlib.nullcontext():
            self.model = build_model(tf.keras.optimizers.SGD(rate, momentum=0.9))

    def fit(self, callbacks=(), initial_epoch=0):
        history = self.model.fit(
            dataset(),
            epochs=RULE.n_epochs,
            initial_epoch=initial_epoch,
            steps_per_epoch=STEPS_PER_EPOCH,
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
        for epoch in range(RULE.n_epochs):
            logs = {}
            self.callback.on_epoch_begin(epoch)
            for _ in range(STEPS_PER_EPOCH):
                run_step()
            self.callback.on_epoch_end(epoch, logs)
            rates.append(logs["learning_rate"])
        self.callback.on_train_end()
        return self.report(rates)

    def report(self, rates):
        """What a process prints as JSON: rates of epochs, rates of steps, weights."""
        weights = [weight.tolist() for weight in self.model.get_weights()]
        steps = None
        if self.schedule:
            n_steps = RULE.n_epochs * STEPS_PER_EPOCH
            steps = evaluate(self.schedule, np.arange(n_steps)).tolist()
        return {"rates": rates, "steps": steps, "weights": weights}
