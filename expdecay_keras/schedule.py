"""The rule as what Keras's own arguments take: a schedule for optimizers, a function for a callback."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from expdecay_keras import _keras
from expdecay_keras.rule import DecayRule, as_float64, check_count


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class WarmupExponentialSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of `DecayRule` as a function of the optimizer's step.

    epoch = floor(step / steps_per_epoch) if staircase else step / steps_per_epoch
    learning_rate = DecayRule(base_lr, ..., n_hold_epochs).learning_rate(epoch)

    With `staircase` every step of an epoch has the rate that `WarmupExponentialDecay` sets for that
    epoch, to the bit; without it the rate falls at every step, and agrees with the staircase at the
    first step of each epoch. Before step 0 the rate is that of step 0, past the end it stays at
    `target_lr`.

    The optimizer counts the steps and is saved with the model, so a loaded model resumes where it
    was; `fit(initial_epoch=...)` on a fresh optimizer does not move it. Under dynamic loss scaling
    Keras 3 does not count skipped updates, and the schedule lags behind the epochs; on a dataset of
    unknown length it counts one step too many an epoch on TensorFlow.

    Args:
        base_lr: Real number, the rate of warm-up and of the first real epoch. Finite, > 0 and
            normal in float32 (about 1.2e-38 to 3.4e38).
        target_lr: Real number, the rate of the last epoch and of any after it; same range. Above
            `base_lr` the rate grows, equal to it the rate is constant.
        n_epochs: Integer, the number of epochs, warm-up and hold included; from
            `n_warmup_epochs + n_hold_epochs + 2` to 2**53.
        n_warmup_epochs: Integer >= 0, the number of epochs of warm-up. Default 0.
        warmup_start_lr: Real number, the rate of step 0, from which warm-up is a linear ramp; same
            range as `base_lr`, or 0. Needs `n_warmup_epochs` >= 1. Default None: warm-up holds
            `base_lr`.
        n_hold_epochs: Integer >= 0, the number of epochs at `base_lr` between warm-up and the first
            real epoch. Default 0.
        steps_per_epoch: Integer from 1 to 2**53, the batches of an epoch, ceil(rows / batch size),
            also with `gradient_accumulation_steps`. On JAX and PyTorch at most 2**20 rates:
            `n_epochs` with `staircase`, else `n_epochs * steps_per_epoch`.
        staircase: bool, whether the rate stays the same within an epoch. Default True.
        name: String, the name of the schedule's operations. Default "WarmupExponentialSchedule".

    Returns:
        Called with a step (a number, an array or a tensor of any shape; a fraction is cut off), a
        tensor of its shape and of dtype `tf.keras.backend.floatx()`.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is outside its legal range.

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
        n_hold_epochs: int = 0,
        *,
        steps_per_epoch: int,
        staircase: bool = True,
        name: str = "WarmupExponentialSchedule",
    ) -> None:
        rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs, warmup_start_lr, n_hold_epochs)
        steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch, 1)
        for argument, value, kind in (("staircase", staircase, bool), ("name", name, str)):
            if not isinstance(value, kind):
                raise TypeError(
                    f"Argument `{argument}` must be a {kind.__name__}. Received: {argument}={value!r}"
                )
        rates = rule._table(1 if staircase else steps_per_epoch)
        if rates is None and not _keras.ON_TENSORFLOW:
            n_rates = "`n_epochs`" if staircase else "`n_epochs` times `steps_per_epoch`"
            raise ValueError(
                f"Argument {n_rates} must be at most 2**20 on the backend {_keras.BACKEND}. Received: "
                f"n_epochs={n_epochs!r}, steps_per_epoch={steps_per_epoch!r}, staircase={staircase!r}"
            )
        super().__init__()
        self.rule = rule
        self.steps_per_epoch = steps_per_epoch
        self.staircase = staircase
        self.name = name
        self._rates = rates

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate at `step`, as Keras's optimizers ask for it."""
        n_steps = self.steps_per_epoch
        with _keras.name_scope(self.name):
            if self._rates is not None:
                return _keras.look_up(self._rates, step, n_steps if self.staircase else 1)
            step = _keras.as_int64(step)
            return self.rule.learning_rate(
                step // n_steps if self.staircase else as_float64(step) / n_steps
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order; `n_hold_epochs` only if it is not 0."""
        return {
            **self.rule._config(),
            "steps_per_epoch": self.steps_per_epoch,
            "staircase": self.staircase,
            "name": self.name,
        }


def make_lr_scheduler(
    base_lr: float, target_lr: float, n_epochs: int, n_warmup_epochs: int
) -> Callable[[int, Any], float]:
    """Returns a function `f(epoch, lr)` for `tf.keras.callbacks.LearningRateScheduler`.

    f(epoch, lr) = base_lr               if epoch <= n_warmup_epochs
                   lr * exp(decay_rate)  otherwise, with `DecayRule.decay_rate`

    It multiplies whatever rate the optimizer holds, so it composes with callbacks that change the
    rate, such as `ReduceLROnPlateau`. That has a price: rounding errors add up and the last epoch
    misses `target_lr` by a little; past the end the rate keeps falling; a run resumed with a fresh
    optimizer decays from that optimizer's rate, which is the wrong one.
    `WarmupExponentialDecay` has none of these faults.

    Args:
        base_lr: Real number, the rate of warm-up and of the first real epoch. Finite, > 0 and
            normal in float32 (about 1.2e-38 to 3.4e38).
        target_lr: Real number, the rate that the last epoch comes to; same range.
        n_epochs: Integer, the number of epochs, warm-up included; from `n_warmup_epochs + 2` to
            2**53.
        n_warmup_epochs: Integer >= 0, the number of epochs of warm-up.

    Returns:
        A function of the epoch (int, counted from 0) and the current learning rate (float) that
        returns the new learning rate, a Python float.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: An argument is outside its legal range.

    Example:

    >>> f = make_lr_scheduler(base_lr=1e-2, target_lr=1e-4, n_epochs=5, n_warmup_epochs=1)
    >>> lr, rates = 0.5, []
    >>> for epoch in range(5):
    ...     lr = f(epoch, lr)
    ...     rates.append(round(lr, 6))
    >>> rates
    [0.01, 0.01, 0.002154, 0.000464, 0.0001]

    Reference:
        "Exponential Learning Rate Scheduler", blog post, 8 July 2022.
    """
    rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs)
    factor = math.exp(rule.decay_rate)

    def f(epoch: int, lr: Any) -> float:
        return rule.base_lr if epoch <= rule.n_warmup_epochs else float(lr) * factor

    return f
