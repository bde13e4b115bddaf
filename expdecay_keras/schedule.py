"""The rule as a Keras schedule, and as a function for LearningRateScheduler."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from expdecay_keras import _keras
from expdecay_keras.rule import DecayRule, check_count, illegal


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class WarmupExponentialSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of `DecayRule` as a function of the optimizer's step.

        epoch = floor(step / steps_per_epoch) if staircase else step / steps_per_epoch
        learning_rate = DecayRule(base_lr, ..., n_hold_epochs).learning_rate(epoch)

    With `staircase`, all steps of an epoch have the rate that `WarmupExponentialDecay`
    sets for that epoch, bit for bit. Without it, the rate changes at every step and
    agrees with the staircase at the first step of each epoch. Before step 0 the rate is
    that of step 0; past the end it stays at `target_lr`.

    For a rule that is given in steps ("500 warm-up steps out of 20,000"), pass
    `steps_per_epoch=1` and numbers of steps in place of numbers of epochs.

    The optimizer counts the steps, one per batch. To resume, load its state: with the
    model (`load_model` or a checkpoint), or with the weights, if the optimizer is built
    before `load_weights`:

        model.optimizer.build(model.trainable_variables)
        model.load_weights("model.weights.h5")

    `fit(initial_epoch=...)` does not move the schedule of a fresh optimizer:
    `LearningRateLogger` warns, and `WarmupExponentialDecay` is the better choice. With
    SGD only, the count can be set instead:

        optimizer.variables[0].assign(initial_epoch * steps_per_epoch)

    (with loss scaling, on `optimizer.inner_optimizer`; under Keras 2, `iterations`).
    Adam corrects its bias by this count, so its first steps would be several times too
    large. Keras 3 does not count steps that dynamic loss scaling skips, so a schedule
    lags behind. On TensorFlow, Keras 3 counts one extra step per epoch on a dataset of
    unknown length.

    Args:
        base_lr: Real number, the rate during warm-up and hold and at the start of the
            decay. Finite, between about 1.2e-38 and 3.4e38 (normal in float32).
        target_lr: Real number in the same range, the rate of the last epoch and of all
            epochs after it. A target above `base_lr` makes the rate grow; an equal one
            makes it constant.
        n_epochs: Integer, the number of epochs including warm-up and hold, at least
            `n_warmup_epochs + n_hold_epochs + 2`, at most 2**53.
        n_warmup_epochs: Integer >= 0, the number of warm-up epochs. Default 0.
        warmup_start_lr: Real number, the rate at step 0, where a linear ramp starts.
            Same range as `base_lr`, or 0, which wastes the first step (with
            `staircase`, the first epoch). Requires `n_warmup_epochs` >= 1. Default
            None: warm-up holds `base_lr`.
        n_hold_epochs: Integer >= 0, the number of epochs at `base_lr` between warm-up
            and the start of the decay. Default 0.
        steps_per_epoch: Integer from 1 to 2**31 - 1, the number of steps per epoch:
            the number of training batches, `len(dataset)` or
            `math.ceil(len(x) / batch_size)`, without the rows that `validation_split`
            sets aside. This also holds with `gradient_accumulation_steps`. If
            `train_step` updates the weights several times per batch, it is the number
            of these updates.
        staircase: bool, whether the rate is constant within an epoch. Default True.
        name: String, the name of the schedule's operations. Default
            "WarmupExponentialSchedule".

    Returns:
        When called with a step (a number, an array or a tensor of any shape and any
        integer or floating-point type; fractions are truncated), a schedule returns a
        tensor of the same shape. Its dtype is that of `tf.keras.backend.floatx()` when
        the schedule was created. With a symbolic tensor of Keras 3 on TensorFlow, a
        schedule can have at most 2**16 rates.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its legal range. On JAX and PyTorch, also if
            the schedule has more than 2**23 rates. It has `n_epochs` rates with
            `staircase`, otherwise `n_epochs * steps_per_epoch`.

    Example:

    >>> schedule = WarmupExponentialSchedule(1e-2, 1e-4, 5, 1, steps_per_epoch=100)
    >>> [round(float(schedule(step)), 6) for step in (0, 199, 200, 299, 300, 400)]
    [0.01, 0.01, 0.002154, 0.002154, 0.000464, 0.0001]

    Reference:
        mondrasovic, "Exponential Learning Rate Scheduler", blog post, 2022,
        https://mondrasovic.github.io/research/2022/07/08/learning_rate_scheduler.html
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
        super().__init__()
        self._rule = DecayRule(
            base_lr,
            target_lr,
            n_epochs,
            n_warmup_epochs,
            warmup_start_lr,
            n_hold_epochs,
        )
        self._steps_per_epoch = check_count(
            "steps_per_epoch", steps_per_epoch, 1, 2**31 - 1
        )
        if not isinstance(staircase, (bool, np.bool_)):
            raise illegal(TypeError, "staircase", staircase, "be a bool")
        if not isinstance(name, str):
            raise illegal(TypeError, "name", name, "be a str")
        self._staircase = bool(staircase)
        self.name = name
        self._dtype = tf.keras.backend.floatx()
        self._rates = self._make_table()

    @property
    def rule(self) -> DecayRule:
        """The `DecayRule` of this schedule, read-only."""
        return self._rule

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps per epoch, read-only."""
        return self._steps_per_epoch

    @property
    def staircase(self) -> bool:
        """Whether the rate is constant within an epoch, read-only."""
        return self._staircase

    @property
    def _steps_per_rate(self) -> int:
        return self.steps_per_epoch if self.staircase else 1

    def _make_table(self) -> Any:
        """Returns the table of rates, or None if it is too long for TensorFlow."""
        n_steps = self.rule.n_epochs * self.steps_per_epoch
        if n_steps // self._steps_per_rate <= _keras.LARGEST_TABLE:
            steps = np.arange(0, n_steps, self._steps_per_rate)
            rates = self.rule.rates(steps / self.steps_per_epoch)
            return _keras.table(rates, self._dtype)
        if _keras.BACKEND == "tensorflow":
            return None
        raise ValueError(
            f"A schedule can have at most 2**23 rates on the {_keras.BACKEND} backend: "
            "one per epoch with staircase=True, otherwise one per step. Received: "
            f"n_epochs={self.rule.n_epochs}, steps_per_epoch={self.steps_per_epoch}, "
            f"staircase={self.staircase}"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the table, which may be large, out of copies and pickles."""
        return {key: value for key, value in vars(self).items() if key != "_rates"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._rates = self._make_table()

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __call__(self, step: npt.ArrayLike | tf.Tensor) -> tf.Tensor:
        """Returns the learning rate at `step`; called by Keras's optimizers."""
        n_steps = self.rule.n_epochs * self.steps_per_epoch
        last = (n_steps - 1) // self._steps_per_rate
        with _keras.name_scope(self.name):
            index = _keras.rate_index(step, self._steps_per_rate, last)
            if self._rates is not None:
                return _keras.look_up(self._rates, index)
            epoch = index if self.staircase else index / self.steps_per_epoch
            return self.rule.learning_rate(epoch, self._dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python values."""
        return {
            **dataclasses.asdict(self.rule),
            "steps_per_epoch": self.steps_per_epoch,
            "staircase": self.staircase,
            "name": self.name,
        }


def make_lr_scheduler(
    base_lr: float, target_lr: float, n_epochs: int, n_warmup_epochs: int = 0
) -> Callable[[int, Any], float]:
    """Returns a function `f(epoch, lr)` for `tf.keras.callbacks.LearningRateScheduler`.

        f(epoch, lr) = base_lr               if epoch <= n_warmup_epochs
                       lr * exp(decay_rate)  otherwise, with `DecayRule.decay_rate`

    It multiplies whatever rate the optimizer has, so it can be combined with callbacks
    that change the rate, such as `ReduceLROnPlateau`. That has a price: rounding errors
    add up, so that the last epoch misses `target_lr` slightly; past the end the rate
    keeps falling; and a run that resumes with a fresh optimizer decays from the rate of
    that optimizer, which is wrong. `WarmupExponentialDecay` has none of these faults.

    Args:
        base_lr: Real number, the rate during warm-up and at the start of the decay.
            Finite, between about 1.2e-38 and 3.4e38 (normal in float32).
        target_lr: Real number in the same range, the rate that the last epoch reaches.
        n_epochs: Integer, the number of epochs including warm-up, at least
            `n_warmup_epochs + 2`, at most 2**53.
        n_warmup_epochs: Integer >= 0, the number of warm-up epochs. Default 0.

    Returns:
        A function of the epoch (int, counted from 0) and the current learning rate
        (float) that returns the new learning rate, a Python float.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is outside its legal range.

    Example:

    >>> f = make_lr_scheduler(1e-2, 1e-4, n_epochs=5, n_warmup_epochs=1)
    >>> lr, rates = 0.5, []
    >>> for epoch in range(5):
    ...     lr = f(epoch, lr)
    ...     rates.append(round(lr, 6))
    >>> rates
    [0.01, 0.01, 0.002154, 0.000464, 0.0001]

    Reference:
        mondrasovic, "Exponential Learning Rate Scheduler", blog post, 2022,
        https://mondrasovic.github.io/research/2022/07/08/learning_rate_scheduler.html
    """
    rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs)
    factor = math.exp(rule.decay_rate)

    def f(epoch: int, lr: Any) -> float:
        return rule.base_lr if epoch <= rule.n_warmup_epochs else float(lr) * factor

    return f
