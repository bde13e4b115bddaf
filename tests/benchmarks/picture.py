"""Draws the README's picture: `python -m tests.benchmarks.picture`."""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from expdecay_keras import DecayRule

RULE = DecayRule(
    0.1, 1e-3, 30, n_warmup_epochs=4, warmup_start_lr=0.01, n_hold_epochs=6
)
PICTURE = Path(__file__).parents[2] / ".github" / "learning_rate.svg"


def cosine(epochs):
    """Returns the ramp of the rule, then a cosine to the same target."""
    share = np.clip((epochs - RULE.n_warmup_epochs) / (29 - RULE.n_warmup_epochs), 0, 1)
    fall = 0.5 * (1 + np.cos(math.pi * share))
    rates = RULE.target_lr + (RULE.base_lr - RULE.target_lr) * fall
    return np.where(epochs < RULE.n_warmup_epochs, RULE.rates(epochs), rates)


def main():
    matplotlib.rcParams["svg.hashsalt"] = "expdecay_keras"  # the same file every time
    epochs = np.linspace(0, RULE.n_epochs - 1, 500)
    figure = Figure(figsize=(7, 3), layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.set_yscale("log")
    ax.axhline(RULE.base_lr, color="gray", linestyle=":", label="constant")
    ax.plot(epochs, cosine(epochs), color="C1", linestyle="--", label="CosineDecay")
    ax.plot(epochs, RULE.rates(epochs), color="C0", linewidth=2, label="expdecay_keras")
    for text, start, end in [("ramp", 0, 4), ("hold", 4, 10), ("decay", 10, 29)]:
        ax.text((start + end) / 2, 0.13, text, ha="center")
        ax.axvline(end, color="gray", linewidth=0.5, alpha=0.5)
    ax.set_ylim(7e-4, 0.2)
    ax.set_xlabel("epoch")
    ax.set_ylabel("learning rate")
    ax.legend(loc="lower left", frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})
    print(PICTURE)


if __name__ == "__main__":
    main()
