"""Draws the README's picture: `python -m tests.benchmarks.picture`."""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from expdecay_keras import DecayRule

RULE = DecayRule(0.1, 1e-3, 30, 4, warmup_start_lr=0.01, n_hold_epochs=6)
LAST_EPOCH = RULE.n_epochs - 1
PICTURE = Path(__file__).parents[2] / ".github" / "learning_rate.svg"


def cosine(epochs):
    """Returns the ramp of the rule, then a cosine to the same target."""
    n_decay_epochs = LAST_EPOCH - RULE.n_warmup_epochs
    share = np.clip((epochs - RULE.n_warmup_epochs) / n_decay_epochs, 0, 1)
    fall = 0.5 * (1 + np.cos(math.pi * share))
    rates = RULE.target_lr + (RULE.base_lr - RULE.target_lr) * fall
    return np.where(epochs < RULE.n_warmup_epochs, RULE.rates(epochs), rates)


def draw_curves(ax):
    epochs = np.linspace(0, LAST_EPOCH, 500)
    constant = [RULE.base_lr, RULE.base_lr]
    ax.plot([RULE.n_warmup_epochs, LAST_EPOCH], constant, ":", color="0.55")
    ax.plot(epochs, cosine(epochs), "--", color="C1")
    ax.plot(epochs, RULE.rates(epochs), color="C0", linewidth=2.5)
    ax.text(LAST_EPOCH, 0.112, "constant", color="0.45", ha="right")
    ax.text(24.2, 0.0155, "CosineDecay", color="C1")
    ax.text(17.3, 0.0125, "exponential decay", color="C0", ha="right")


def name_arguments(ax):
    style = {"family": "monospace", "color": "C0", "textcoords": "offset points"}
    for name, epoch, offset, alignment in [
        ("warmup_start_lr", 0, (8, -4), "left"),
        ("base_lr", RULE.decay_start, (0, 7), "center"),
        ("target_lr", LAST_EPOCH, (-9, -4), "right"),
    ]:
        point = epoch, RULE.rates(epoch)
        ax.plot(*point, "o", color="C0", markersize=5)
        ax.annotate(name, point, xytext=offset, ha=alignment, **style)


def name_phases(ax):
    """Shades warm-up and hold, as `plot_learning_rate` does."""
    ax.axvspan(0, RULE.n_warmup_epochs, color="gray", alpha=0.2, linewidth=0)
    ax.axvspan(
        RULE.n_warmup_epochs, RULE.decay_start, color="gray", alpha=0.1, linewidth=0
    )
    for name, start, end in [
        ("warm-up", 0, RULE.n_warmup_epochs),
        ("hold", RULE.n_warmup_epochs, RULE.decay_start),
        ("decay", RULE.decay_start, LAST_EPOCH),
    ]:
        ax.text((start + end) / 2, 7.2e-4, name, color="0.35", ha="center")


def main():
    matplotlib.rcParams["svg.hashsalt"] = "expdecay_keras"  # the same file every time
    matplotlib.rcParams["font.size"] = 9
    figure = Figure(figsize=(7, 3.2), layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.set_yscale("log")
    name_phases(ax)
    draw_curves(ax)
    name_arguments(ax)
    ax.set_xlim(-0.7, LAST_EPOCH + 0.7)
    ax.set_ylim(6e-4, 0.19)
    ax.set_xlabel("epoch")
    ax.set_ylabel("learning rate (log scale)")
    figure.savefig(PICTURE, metadata={"Date": None})
    print(PICTURE)


if __name__ == "__main__":
    main()
