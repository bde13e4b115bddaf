"""The rule as a Keras learning rate schedule."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras.rule import DecayRule, as_float64, check_count


@functools.lru_cache(maxsize=32)
def _rates_of_all_epochs(rule: DecayRule, dtype: str) -> Any:
    """Returns the rates as a NumPy array, evaluated once, not in the graph that looks them up."""
    with tf.init_scope():
        return rule.learning_rate(np.arange(rule.n_epochs), dtype).numpy()


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class WarmupExponentialSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of `DecayRule` as a function of the optimizer's step.

    epoch = floor(step / steps_per_epoch) if staircase else step / steps_per_epoch
    learning_rate = DecayRule(base_lr, ..., warmup_start_lr).learning_rate(epoch)

    With `staircase` every step of an epoch has the rate that `WarmupExponentialDecay` sets for that
    epoch, to the bit; without it the rate falls at every step, and agrees with the staircase at the
    first step of each epoch. Before step 0 the rate is that of step 0, past the end it stays at
    `target_lr`.

    The optimizer counts the steps and is saved with the model, so a loaded model goes on where it
    was; `fit(initial_epoch=...)` on a fresh optimizer does not move it.

    Args:
        base_lr, target_lr, n_epochs, n_warmup_epochs, warmup_start_lr: As in `DecayRule`.
        steps_per_epoch: Integer from 1 to 2**53, the batches of an epoch. Keras counts batches with
            `gradient_accumulation_steps` too, not updates.
        staircase: bool, whether the rate stays the same within an epoch. Default True.
        name: String, the name of the schedule's operations.

    Returns:
        Called with a step (integer or floating, a number or a tensor of any shape), a tensor of its
        shape and of dtype `tf.keras.backend.floatx()`.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or outside its legal range, as in
            `DecayRule`.

    Example:

    >>> schedule = WarmupExponentialSchedule(1e-2, 1e-4, 5, 1, steps_per_epoch=100)
    >>> [round(float(schedule(step)), 6) for step in (0, 199, 200, 299, 300, 400)]
    [0.01, 0.01, 0.002154, 0.002154, 0.000464, 0.0001]

    Reference:
        "Exponential Learning Rate Scheduler", blog post, 8 July 2022.
    """

    def __init__(
        self,
        base_lr: float,
        target_lr: float,
        n_epochs: int,
        n_warmup_epochs: int = 0,
        warmup_start_lr: float | None = None,
        *,
        steps_per_epoch: int,
        staircase: bool = True,
        name: str = "WarmupExponentialSchedule",
    ) -> None:
        rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs, warmup_start_lr)
        steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch, 1)
        for argument, value, kind in (("staircase", staircase, bool), ("name", name, str)):
            if not isinstance(value, kind):
                raise TypeError(
                    f"Argument `{argument}` must be a {kind.__name__}. Received: {argument}={value!r}"
                )
        super().__init__()
        self.rule = rule
        self.steps_per_epoch = steps_per_epoch
        self.staircase = staircase
        self.name = name

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __call__(self, step: Any) -> Any:
        with tf.name_scope(self.name):
            if not self.staircase:
                return self.rule.learning_rate(as_float64(step) / self.steps_per_epoch)
            if not (hasattr(step, "dtype") and tf.as_dtype(step.dtype) in (tf.int32, tf.int64)):
                step = tf.minimum(as_float64(step), 2.0**62)
            # An integer division is exact under XLA as well, which multiplies by 1 / steps_per_epoch.
            epoch = tf.cast(step, tf.int64) // self.steps_per_epoch
            if self.rule.n_epochs > 2**20:  # too many for a constant in the graph
                return self.rule.learning_rate(epoch)
            rates = _rates_of_all_epochs(self.rule, tf.keras.backend.floatx())
            first, last = np.int64(0), np.int64(len(rates) - 1)
            epoch = tf.raw_ops.ClipByValue(t=epoch, clip_value_min=first, clip_value_max=last)
            return tf.gather(rates, epoch)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python values."""
        return {
            **dataclasses.asdict(self.rule),
            "steps_per_epoch": self.steps_per_epoch,
            "staircase": self.staircase,
            "name": self.name,
        }
