"""The rule: its equation, and the checks of its arguments."""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tensorflow as tf

FLOAT32 = np.finfo(np.float32)


def illegal(error: type[Exception], name: str, value: Any, must: str) -> Exception:
    """Returns the error that says what an argument must be, and what it is."""
    return error(f"Argument `{name}` must {must}. Received: {name}={value!r}")


def check_rate(name: str, value: Any, may_be_zero: bool = False) -> float:
    """Returns a learning rate as a Python float, or raises an error that names it."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise illegal(TypeError, name, value, "be a real number")
    try:
        rate = float(value)
    except OverflowError:  # an int beyond float64
        rate = math.inf
    if may_be_zero and rate == 0:
        return rate
    if not 0 < rate < math.inf:
        bound = ">= 0" if may_be_zero else "> 0"
        raise illegal(ValueError, name, value, f"be a finite number {bound}")
    if not float(FLOAT32.tiny) <= rate <= float(FLOAT32.max):
        normal = "between 1.1754944e-38 and 3.4028234e+38, the normal range of float32"
        raise illegal(ValueError, name, value, f"be {normal}")
    return rate


def check_count(name: str, value: Any, minimum: int, maximum: int = 2**53) -> int:
    """Returns a count as a Python int, or raises an error that names it."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise illegal(TypeError, name, value, "be an integer")
    count = int(value)
    if count < minimum:
        raise illegal(ValueError, name, value, f"be at least {minimum}")
    if count > maximum:
        raise illegal(ValueError, name, value, f"be at most {maximum}")
    return count


@dataclasses.dataclass(frozen=True)
class DecayRule:
    """Ramps or holds the learning rate, then decays it exponentially.

    Epochs are counted from 0. The epoch at which the decay starts and the decay rate
    per epoch are

        decay_start = n_warmup_epochs + n_hold_epochs
        decay_rate = log(target_lr / base_lr) / (n_epochs - (decay_start + 1))

    and the learning rate is

        base_lr                                             if epoch <= decay_start
        base_lr * exp(decay_rate * (epoch - decay_start))   in between
        target_lr                                           if epoch >= n_epochs - 1

    With `warmup_start_lr`, warm-up is a linear ramp: if epoch < n_warmup_epochs,
    the learning rate is

        warmup_start_lr + (base_lr - warmup_start_lr) * epoch / n_warmup_epochs

    Ramp, hold and decay together are known as WSD (warm-up, stable, decay). The rate is
    exactly `base_lr` at the epoch at which the decay starts, and exactly `target_lr` at
    the last epoch, `n_epochs - 1`. Before epoch 0 it is that of epoch 0; past the end
    it stays at `target_lr`.

    Args:
        base_lr: Real number, the rate during warm-up and hold and at the start of the
            decay. Finite, between about 1.2e-38 and 3.4e38 (normal in float32).
        target_lr: Real number in the same range, the rate of the last epoch. A target
            above `base_lr` makes the rate grow; an equal one makes it constant.
        n_epochs: Integer, the number of epochs including warm-up and hold, at least
            `n_warmup_epochs + n_hold_epochs + 2`, at most 2**53.
        n_warmup_epochs: Integer >= 0, the number of warm-up epochs. Default 0.
        warmup_start_lr: Real number, the rate at epoch 0, where the ramp starts. Same
            range as `base_lr`, or 0. Requires `n_warmup_epochs` >= 1. Default None:
            warm-up holds `base_lr`.
        n_hold_epochs: Integer >= 0, the number of epochs at `base_lr` between warm-up
            and the start of the decay. Default 0.

    Raises:
        TypeError: An argument has the wrong type (bool, string, complex, array,
            tensor).
        ValueError: An argument is outside its legal range.

    Example:

    >>> rule = DecayRule(base_lr=1e-2, target_lr=1e-4, n_epochs=5, n_warmup_epochs=1)
    >>> rule.rates(range(5)).round(6).tolist()
    [0.01, 0.01, 0.002154, 0.000464, 0.0001]

    Reference:
        mondrasovic, "Exponential Learning Rate Scheduler", blog post, 2022,
        https://mondrasovic.github.io/research/2022/07/08/learning_rate_scheduler.html
        For ramp, hold and decay: Hu et al., "MiniCPM", 2024,
        https://arxiv.org/abs/2404.06395
    """

    base_lr: float
    target_lr: float
    n_epochs: int
    n_warmup_epochs: int = 0
    warmup_start_lr: float | None = None
    n_hold_epochs: int = 0

    def __post_init__(self) -> None:
        checked = {
            "base_lr": check_rate("base_lr", self.base_lr),
            "target_lr": check_rate("target_lr", self.target_lr),
            "n_epochs": check_count("n_epochs", self.n_epochs, 2),
            "n_warmup_epochs": check_count("n_warmup_epochs", self.n_warmup_epochs, 0),
            "n_hold_epochs": check_count("n_hold_epochs", self.n_hold_epochs, 0),
        }
        if self.warmup_start_lr is not None:
            checked["warmup_start_lr"] = check_rate(
                "warmup_start_lr", self.warmup_start_lr, may_be_zero=True
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
        minimum = self.decay_start + 2
        if self.n_epochs < minimum:
            raise ValueError(
                f"Argument `n_epochs` must be at least {minimum}, that is, "
                "n_warmup_epochs + n_hold_epochs + 2 (one epoch at base_lr and one at "
                f"target_lr). Received: n_epochs={self.n_epochs}, "
                f"n_warmup_epochs={self.n_warmup_epochs}, "
                f"n_hold_epochs={self.n_hold_epochs}"
            )
        if self.warmup_start_lr is not None and self.n_warmup_epochs == 0:
            raise ValueError(
                "Argument `n_warmup_epochs` must be at least 1 if warmup_start_lr is "
                "given, because a ramp needs warm-up epochs. Received: "
                f"n_warmup_epochs=0, warmup_start_lr={self.warmup_start_lr!r}"
            )

    @property
    def decay_start(self) -> int:
        """The epoch at which the decay starts, the last one at `base_lr`."""
        return self.n_warmup_epochs + self.n_hold_epochs

    @property
    def decay_rate(self) -> float:
        """The exponential decay rate per epoch, a float: negative if the rate falls.

            log(target_lr / base_lr) / (n_epochs - (decay_start + 1))

        Example:

        >>> round(DecayRule(base_lr=1e-1, target_lr=1e-6, n_epochs=5).decay_rate, 6)
        -2.878231
        """
        n_decay_epochs = self.n_epochs - (self.decay_start + 1)
        return math.log(self.target_lr / self.base_lr) / n_decay_epochs

    def learning_rate(
        self, epoch: npt.ArrayLike | tf.Tensor, dtype: tf.DType | str | None = None
    ) -> tf.Tensor:
        """Returns the learning rate at `epoch`, by the equation of the class.

        The equation is evaluated in float64 and the result is cast once. For a tensor,
        TensorFlow ops evaluate it (eagerly, in a `tf.function` or under XLA); for
        anything else, NumPy does.

        Args:
            epoch: Number, list, NumPy array or tensor of any shape: epochs counted from
                0, which may be fractions. Integers are exact up to 2**53.
            dtype: Floating-point dtype of the result. Default None:
                `tf.keras.backend.floatx()`.

        Returns:
            A TensorFlow tensor of the shape of `epoch`.

        Raises:
            TypeError: `epoch` is not made of real numbers, or `dtype` is not a
                floating-point dtype.

        Example:

        >>> rule = DecayRule(base_lr=1e-1, target_lr=1e-5, n_epochs=5)
        >>> rates = rule.learning_rate([0, 0.5, 4, 1000], dtype="float64")
        >>> rates.numpy().round(6).tolist()
        [0.1, 0.031623, 1e-05, 1e-05]
        """
        dtype = tf.as_dtype(dtype or tf.keras.backend.floatx())
        if not dtype.is_floating:
            raise illegal(TypeError, "dtype", dtype.name, "be a floating-point dtype")
        if not tf.is_tensor(epoch):
            return tf.cast(self.rates(epoch), dtype)
        epochs = tf.convert_to_tensor(cast(tf.Tensor, epoch))
        if not (epochs.dtype.is_integer or epochs.dtype.is_floating):
            raise illegal(TypeError, "epoch", epoch, "contain only real numbers")
        return tf.cast(self._evaluate(tf, tf.cast(epochs, tf.float64)), dtype)

    def rates(self, epoch: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Returns the learning rate at `epoch`, evaluated by NumPy.

        Args:
            epoch: Number, list, NumPy array or eager tensor of any shape: epochs
                counted from 0, which may be fractions. Integers are exact up to 2**53.

        Returns:
            A NumPy array of float64, of the shape of `epoch`.

        Raises:
            TypeError: `epoch` is not made of real numbers.

        Example:

        >>> rule = DecayRule(base_lr=1e-1, target_lr=1e-5, n_epochs=5)
        >>> rule.rates(range(5)).round(6).tolist()
        [0.1, 0.01, 0.001, 0.0001, 1e-05]
        """
        epochs = np.asarray(epoch)
        if epochs.dtype.kind not in "iuf":
            raise illegal(TypeError, "epoch", epoch, "contain only real numbers")
        return self._evaluate(np, epochs.astype(np.float64))

    def _evaluate(self, xp: Any, epoch: Any) -> Any:
        """Returns the rates at float64 epochs; `xp` is the module `tf` or `numpy`."""
        last_epoch = self.n_epochs - 1.0
        epoch = xp.minimum(xp.maximum(epoch, 0.0), last_epoch)
        decayed = xp.maximum(epoch - self.decay_start, 0.0)
        rate = self.base_lr * xp.exp(self.decay_rate * decayed)
        rate = xp.where(epoch >= last_epoch, np.float64(self.target_lr), rate)
        if self.warmup_start_lr is not None:
            n_warmup_epochs = self.n_warmup_epochs
            # The ramp as a weighted mean: a difference of rates would lose digits.
            ramp = self.warmup_start_lr * ((n_warmup_epochs - epoch) / n_warmup_epochs)
            ramp += self.base_lr * (epoch / n_warmup_epochs)
            rate = xp.where(epoch < n_warmup_epochs, ramp, rate)
        return rate
