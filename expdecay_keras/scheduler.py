"""The rule as a plain function for `tf.keras.callbacks.LearningRateScheduler`."""

import math
from typing import Any, Callable

from expdecay_keras.rule import DecayRule


def make_lr_scheduler(
    base_lr: float, target_lr: float, n_epochs: int, n_warmup_epochs: int
) -> Callable[[int, Any], float]:
    """Returns a function `f(epoch, lr)` for `tf.keras.callbacks.LearningRateScheduler`.

    f(epoch, lr) = base_lr               if epoch <= n_warmup_epochs
                   lr * exp(decay_rate)  otherwise, with `DecayRule.decay_rate`

    It multiplies whatever rate the optimizer holds, so it composes with callbacks that change the
    rate, such as `ReduceLROnPlateau`. That has a price: rounding errors add up and the last epoch
    misses `target_lr` by a little; past the end the rate goes on falling; a run resumed with a
    fresh optimizer goes on from that optimizer's rate, which is the wrong one.
    `WarmupExponentialDecay` has none of these faults.

    Args:
        base_lr, target_lr, n_epochs, n_warmup_epochs: As in `DecayRule`.

    Returns:
        A function of the epoch (int, counted from 0) and the current learning rate (float) that
        returns the new learning rate, a Python float.

    Raises:
        TypeError, ValueError: As in `DecayRule`.

    Example:

    >>> schedule = make_lr_scheduler(base_lr=1e-2, target_lr=1e-4, n_epochs=5, n_warmup_epochs=1)
    >>> lr, rates = 0.5, []
    >>> for epoch in range(5):
    ...     lr = schedule(epoch, lr)
    ...     rates.append(round(lr, 6))
    >>> rates
    [0.01, 0.01, 0.002154, 0.000464, 0.0001]

    Reference:
        "Exponential Learning Rate Scheduler", blog post, 8 July 2022.
    """
    rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs)
    factor = math.exp(rule.decay_rate)

    def schedule(epoch: int, lr: Any) -> float:
        return rule.base_lr if epoch <= rule.n_warmup_epochs else float(lr) * factor

    return schedule
