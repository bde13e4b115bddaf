"""The warm-up-then-exponential rule: its equation and the validation of its numbers."""

from __future__ import annotations

import dataclasses
import math
from numbers import Integral, Real
from typing import Any, ClassVar

FLOAT32_SMALLEST_NORMAL = 2.0**-126
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127


def check_rate(name: str, value: Any, may_be_zero: bool = False) -> float:
    """Returns a learning rate as a Python float; raises TypeError or ValueError naming `name`."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"Argument `{name}` must be a real number. Received: {name}={value!r}")
    try:
        rate = float(value)
    except OverflowError:  # an int beyond float64
        rate = math.inf
    if may_be_zero and rate == 0:
        return rate
    if not 0 < rate < math.inf:
        sign = ">= 0" if may_be_zero else "> 0"
        raise ValueError(f"Argument `{name}` must be a finite number {sign}. Received: {name}={value!r}")
    if not FLOAT32_SMALLEST_NORMAL <= rate <= FLOAT32_MAX:
        raise ValueError(
            f"Argument `{name}` must be normal in float32 (1.1754944e-38 to 3.4028234e+38). "
            f"Received: {name}={value!r}"
        )
    return rate


def check_count(name: str, value: Any, minimum: int, maximum: int = 2**53) -> int:
    """Returns a count as a Python int; raises TypeError or ValueError naming `name`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"Argument `{name}` must be an integer. Received: {name}={value!r}")
    if not minimum <= int(value) <= maximum:
        raise ValueError(
            f"Argument `{name}` must be from {minimum} to {maximum}. Received: {name}={value!r}"
        )
    return int(value)


def as_float64(value: Any) -> Any:
    """Returns numbers, an array or a tensor as a float64 tensor."""
    import tensorflow as tf  # here, so that numbers are validated without its seconds of start-up

    # A Python float must not pass through float32, as tf.cast would have it.
    return tf.cast(value, tf.float64) if hasattr(value, "dtype") else tf.constant(value, tf.float64)


@dataclasses.dataclass(frozen=True)
class DecayRule:
    """Holds the learning rate through warm-up, then lets it fall exponentially to its target.

    With epochs counted from 0, the first real epoch and the decay rate per epoch

        first_epoch = n_warmup_epochs + n_hold_epochs
        decay_rate = log(target_lr / base_lr) / (n_epochs - (first_epoch + 1))

    the learning rate is

        base_lr                                             if epoch <= first_epoch
        base_lr * exp(decay_rate * (epoch - first_epoch))   in between
        target_lr                                           if epoch >= n_epochs - 1

    With `warmup_start_lr` the warm-up is a linear ramp instead of a hold: if epoch < n_warmup_epochs,

        warmup_start_lr + (base_lr - warmup_start_lr) * epoch / n_warmup_epochs

    Ramp, hold and decay together are known as WSD, warm-up–stable–decay. The first real epoch has
    `base_lr` and the last one, `n_epochs - 1`, has `target_lr`, both to the bit. Before epoch 0 the
    rate is that of epoch 0; past the end it stays at `target_lr`.

    Args:
        base_lr: Real number, the rate of warm-up and of the first real epoch. Finite, > 0 and
            normal in float32 (about 1.2e-38 to 3.4e38).
        target_lr: Real number, the rate of the last epoch; same range. Above `base_lr` the rate
            grows, equal to it the rate is constant.
        n_epochs: Integer, the number of epochs, warm-up and hold included; from
            `n_warmup_epochs + n_hold_epochs + 2` to 2**53.
        n_warmup_epochs: Integer >= 0, the number of epochs of warm-up. Default 0.
        warmup_start_lr: Real number, the rate of epoch 0; same range as `base_lr`, or 0. Needs
            `n_warmup_epochs` >= 1. Default None: warm-up holds `base_lr`. TensorFlow flushes what a
            ramp from 0 has below 1.2e-38 to 0.
        n_hold_epochs: Integer >= 0, the number of epochs at `base_lr` between warm-up and the first
            real epoch. Default 0.

    Raises:
        TypeError: An argument is of the wrong kind (bool, string, complex, array, tensor).
        ValueError: An argument is outside its legal range.

    Example:

    >>> rule = DecayRule(base_lr=1e-2, target_lr=1e-4, n_epochs=5, n_warmup_epochs=1)
    >>> [round(float(rate), 6) for rate in rule.learning_rate(range(5))]
    [0.01, 0.01, 0.002154, 0.000464, 0.0001]

    Reference:
        "Exponential Learning Rate Scheduler", blog post, 8 July 2022. Ramp, hold and decay: Hu et al.,
        "MiniCPM", 2024, https://arxiv.org/abs/2404.06395.
    """

    base_lr: float
    target_lr: float
    n_epochs: int
    n_warmup_epochs: int = 0
    warmup_start_lr: float | None = None
    n_hold_epochs: int = 0

    _repr_svg_: ClassVar[Any]  # the notebook's picture, which plotting.py adds

    def __post_init__(self) -> None:
        base_lr = check_rate("base_lr", self.base_lr)
        target_lr = check_rate("target_lr", self.target_lr)
        n_epochs = check_count("n_epochs", self.n_epochs, 2)
        n_warmup_epochs = check_count("n_warmup_epochs", self.n_warmup_epochs, 0)
        n_hold_epochs = check_count("n_hold_epochs", self.n_hold_epochs, 0)
        if n_epochs < n_warmup_epochs + n_hold_epochs + 2:
            held = f", n_hold_epochs={n_hold_epochs}" if n_hold_epochs else ""
            raise ValueError(
                "Argument `n_epochs` must be at least n_warmup_epochs + n_hold_epochs + 2, one epoch at "
                "base_lr and one at target_lr. "
                f"Received: n_epochs={n_epochs}, n_warmup_epochs={n_warmup_epochs}{held}"
            )
        warmup_start_lr = self.warmup_start_lr
        if warmup_start_lr is not None:
            warmup_start_lr = check_rate("warmup_start_lr", warmup_start_lr, may_be_zero=True)
            if n_warmup_epochs == 0:
                raise ValueError(
                    "Argument `warmup_start_lr` needs `n_warmup_epochs` >= 1. "
                    f"Received: warmup_start_lr={warmup_start_lr!r}, n_warmup_epochs=0"
                )
        plain = (base_lr, target_lr, n_epochs, n_warmup_epochs, warmup_start_lr, n_hold_epochs)
        for field, value in zip(dataclasses.fields(self), plain):
            object.__setattr__(self, field.name, value)

    @property
    def _first_epoch(self) -> int:
        return self.n_warmup_epochs + self.n_hold_epochs

    @property
    def decay_rate(self) -> float:
        """The exponential decay rate per epoch, a float: negative if the rate falls.

        log(target_lr / base_lr) / (n_epochs - (n_warmup_epochs + n_hold_epochs + 1))

        Example:

        >>> round(DecayRule(base_lr=1e-1, target_lr=1e-6, n_epochs=5).decay_rate, 6)
        -2.878231
        """
        return math.log(self.target_lr / self.base_lr) / (self.n_epochs - (self._first_epoch + 1))

    def learning_rate(self, epoch: Any, dtype: Any = None) -> Any:
        """Returns the learning rate at `epoch`, the equation of the class in `tf.math` ops.

        It is evaluated in float64 and cast once, at the end. Works eagerly, in a `tf.function` and
        under XLA.

        Args:
            epoch: Number, list, NumPy array or tensor of any shape: epochs counted from 0,
                fractions included; exact up to 2**53.
            dtype: Floating dtype of the result. Default None: `tf.keras.backend.floatx()`.

        Returns:
            A tensor of the shape of `epoch`.

        Raises:
            TypeError: `epoch` is of the wrong kind, or `dtype` is not floating.

        Example:

        >>> rule = DecayRule(base_lr=1e-1, target_lr=1e-5, n_epochs=5)
        >>> rule.learning_rate([0, 0.5, 4, 1000], dtype="float64").numpy().round(6).tolist()
        [0.1, 0.031623, 1e-05, 1e-05]
        """
        import tensorflow as tf

        dtype = tf.as_dtype(dtype or tf.keras.backend.floatx())
        if not dtype.is_floating:
            raise TypeError(f"Argument `dtype` must be floating. Received: dtype={dtype.name!r}")
        try:
            epoch = as_float64(epoch)
        except (TypeError, ValueError):
            raise TypeError(
                f"Argument `epoch` must be real numbers. Received: epoch={epoch!r}"
            ) from None
        decayed = tf.maximum(epoch - float(self._first_epoch), 0.0)
        rate = self.base_lr * tf.math.exp(self.decay_rate * decayed)
        rate = tf.where(epoch >= self.n_epochs - 1, as_float64(self.target_lr), rate)
        if self.warmup_start_lr is not None:
            warmed, n_warmup_epochs = tf.maximum(epoch, 0.0), float(self.n_warmup_epochs)
            # The ramp as a weighted mean of its ends: no difference of rates to lose digits in.
            ramp = self.warmup_start_lr * ((n_warmup_epochs - warmed) / n_warmup_epochs)
            ramp += self.base_lr * (warmed / n_warmup_epochs)
            rate = tf.where(epoch < n_warmup_epochs, ramp, rate)
        return tf.cast(rate, dtype)

    def _config(self) -> dict[str, Any]:
        """Returns the arguments in order; without a hold as version 0.1.0 wrote and reads them."""
        config = dataclasses.asdict(self)
        if self.n_hold_epochs == 0:
            del config["n_hold_epochs"]
        return config

    def _table(self, steps_per_epoch: int = 1) -> Any:
        """Returns the rates of all steps of all epochs, a float64 NumPy array to look them up in.

        None if that is more than 2**20 rates, 8 MiB.
        """
        import numpy as np
        import tensorflow as tf

        n_steps = self.n_epochs * steps_per_epoch
        if n_steps > 2**20:
            return None
        with tf.init_scope():  # whatever graph is being built just now
            return self.learning_rate(np.arange(n_steps) / steps_per_epoch, tf.float64).numpy()
