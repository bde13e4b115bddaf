"""Pictures of the rule."""

from __future__ import annotations

from typing import Any

import numpy as np


def plot_learning_rate(*rules: Any, ax: Any | None = None) -> Any:
    """Draws the learning rate of every epoch on a log axis, warm-up shaded, ends labelled.

    Args:
        *rules: One or more `DecayRule` or `WarmupExponentialDecay`.
        ax: The matplotlib Axes to draw on. Default None: new Axes of 6 by 4 inches.

    Returns:
        The matplotlib Axes. Nothing is shown or saved.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:

    >>> from expdecay_keras import DecayRule
    >>> ax = plot_learning_rate(DecayRule(base_lr=1e-2, target_lr=1e-4, n_epochs=5))
    >>> ax.get_yscale()
    'log'
    """
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError(
                "plot_learning_rate needs matplotlib: pip install 'expdecay-keras[plot]'"
            ) from error
        _, ax = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for rule in rules:
        rule = getattr(rule, "rule", rule)
        epochs = np.arange(rule.n_epochs)
        rates = rule.learning_rate(epochs, dtype="float64").numpy()
        label = f"{rule.base_lr:g} to {rule.target_lr:g} in {rule.n_epochs} epochs"
        (line,) = ax.plot(epochs, rates, marker=".", label=label)
        falling = -1 if rule.decay_rate < 0 else 1
        for epoch, side, align in ((rule.n_warmup_epochs, -falling, "left"), (-1, falling, "right")):
            ax.annotate(
                f"{rates[epoch]:g}",
                (epochs[epoch], rates[epoch]),
                textcoords="offset points",
                xytext=(0, 8 * side),
                ha=align,
                va="bottom" if side > 0 else "top",
                color=line.get_color(),
            )
        if rule.n_warmup_epochs:
            ax.axvspan(0, rule.n_warmup_epochs, color=line.get_color(), alpha=0.1, label="warm-up")
    ax.set_yscale("log")
    ax.margins(y=0.15)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("learning rate")
    ax.legend()
    return ax
