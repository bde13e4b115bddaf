"""What `expdecay-keras preview` does: shows a rule's rates as a chart, data or plot."""

import csv
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from expdecay_keras.plotting import plot_learning_rate
from expdecay_keras.rule import DecayRule


def preview(rule: DecayRule, format: str, plot: Path | None) -> None:
    """Saves a plot of the rule if a file is given, and prints the rates."""
    if plot is not None:
        save_plot(rule, plot)
    if format == "table":
        is_utf8 = str(sys.stdout.encoding).lower() in ("utf-8", "utf8")
        width = shutil.get_terminal_size().columns
        print(text_chart(rule, width, block="\u2588" if is_utf8 else "#"))
        return
    rows = ((i, float(np.float32(rule.rates(i)))) for i in range(rule.n_epochs))
    if format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["epoch", "learning_rate"])
        writer.writerows(rows)
    else:
        rates = [{"epoch": i, "learning_rate": rate} for i, rate in rows]
        print(json.dumps(rates, indent=1))


def save_plot(rule: DecayRule, path: Path) -> None:
    """Saves a plot in the format that the name of the file ends with."""
    figure: Any = plot_learning_rate(rule).figure
    figure.savefig(path, dpi=150)


def text_chart(rule: DecayRule, width: int, block: str) -> str:
    """Returns the decay in numbers, then the rates with bars on a log scale.

    If there are more than 50 epochs, about 50 of them, evenly spaced, are shown. The
    longest bar ends at column `width`.
    """
    epochs = _shown_epochs(rule)
    rates = rule.rates(epochs).tolist()
    # Six decimals if they show the given rates exactly.
    given = (rule.base_lr, rule.target_lr, rule.warmup_start_lr or 0.0)
    decimals = all(rate < 1000 and rate == round(rate, 6) for rate in given)
    texts = [f"{rate:.6f}" if decimals else f"{rate:.6g}" for rate in rates]
    epoch_width = max(len("epoch"), len(str(epochs[-1])))
    rate_width = max(map(len, texts))
    lines = [*_decay_in_numbers(rule), "", f"{'epoch':>{epoch_width}}  rate"]
    lengths = _bar_lengths(rates, width - epoch_width - rate_width - 4)
    for epoch, text, length in zip(epochs, texts, lengths, strict=True):
        line = f"{epoch:>{epoch_width}}  {text:<{rate_width}}  {block * length}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _shown_epochs(rule: DecayRule) -> list[int]:
    if rule.n_epochs <= 50:
        return list(range(rule.n_epochs))
    spaced = {i * (rule.n_epochs - 1) // 47 for i in range(48)}
    return sorted(spaced | {rule.n_warmup_epochs, rule.decay_start})


def _decay_in_numbers(rule: DecayRule) -> list[str]:
    factor = math.exp(rule.decay_rate)
    lines = [
        f"decay rate: {rule.decay_rate:.6g} per epoch",
        f"factor: {factor:.6g} per epoch",
    ]
    if rule.decay_rate != 0:
        name = "half-life" if rule.decay_rate < 0 else "doubling time"
        duration = f"{math.log(2) / abs(rule.decay_rate):.6g}"
        unit = "epoch" if duration == "1" else "epochs"
        lines.append(f"{name}: {duration} {unit}")
    if round(factor, 12) < 0.1:
        lines.append("note: a steep decay: with momentum, the loss can rise")
    return lines


def _bar_lengths(rates: list[float], width: int) -> list[int]:
    """Returns lengths from 1 to `width` for rates > 0, and 0 for 0."""
    logs = [math.log(rate) for rate in rates if rate > 0]
    high = max(logs)
    spread = (high - min(logs)) or 1.0  # if all are equal, all bars have full length
    lengths = []
    for rate in rates:
        if rate == 0:
            lengths.append(0)
        else:
            share = 1 - (high - math.log(rate)) / spread
            lengths.append(round(1 + (width - 1) * share))
    return lengths
