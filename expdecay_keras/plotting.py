"""The learning rate to look at: a picture, and the text chart of the command `preview`."""

from __future__ import annotations

import csv
import importlib.util
import io
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from expdecay_keras.rule import DecayRule


class _Curve(NamedTuple):
    label: str
    epochs: Any
    rates: Any
    style: dict[str, Any]
    marks: Any  # indices of the rates to write beside the curve
    spans: tuple[tuple[str, int, int], ...] = ()  # name, first epoch and last of what is shaded


def plot_learning_rate(*rules: Any, ax: Any | None = None) -> Any:
    """Draws learning rates over epochs on a log axis, warm-up and hold shaded, ends labelled.

    A rule and a history have a value at every epoch; the callback and a staircase schedule hold it
    up to the next one. Of more than 1000 epochs about 1000, evenly spaced, are drawn.

    Args:
        *rules: One or more `DecayRule`, `WarmupExponentialDecay`, `WarmupExponentialSchedule`,
            `tf.keras.callbacks.History` that holds a learning rate, or path (str or PathLike) of a
            CSV file with the columns `epoch` and `learning_rate`, as `CSVLogger` writes it.
        ax: The matplotlib Axes to draw on. Default None: new Axes of 6 by 4 inches.

    Returns:
        The matplotlib Axes. Nothing is shown or saved.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: An argument is of another kind.
        ValueError: A history or file holds no learning rate.
        OSError: A file cannot be read.

    Example:

    >>> from expdecay_keras import DecayRule
    >>> ax = plot_learning_rate(DecayRule(base_lr=1e-2, target_lr=1e-4, n_epochs=5))
    >>> ax.get_yscale()
    'log'
    """
    if not rules:
        raise TypeError("plot_learning_rate() takes at least one rule. Received: none")
    curves = [curve for rule in rules for curve in _curves(rule)]
    if ax is None:
        _, ax = _matplotlib("pyplot").subplots(figsize=(6, 4), layout="constrained")
    ax.set_yscale("log")
    for curve in curves:
        labels = [re.sub(r" #\d+$", "", label) for label in ax.get_legend_handles_labels()[1]]
        n_same = labels.count(curve.label)
        label = f"{curve.label} #{n_same + 1}" if n_same else curve.label
        # Another kind of line for each, as they may lie on one another.
        dashes = ("-", "--", ":", "-.")[len(ax.get_lines()) % 4]
        rates = np.where(curve.rates > 0, curve.rates, np.nan)  # a log axis has no 0
        (line,) = ax.plot(curve.epochs, rates, linestyle=dashes, label=label, **curve.style)
        _write_rates(ax, curve, line.get_color())
    shaded = {patch.get_gid() for patch in ax.patches}
    for name, first, last in sorted(
        {span for curve in curves for span in curve.spans}, key=lambda span: span[1:]
    ):
        gid = f"{name} {first} {last}"
        if gid not in shaded:
            label = "" if name in ax.get_legend_handles_labels()[1] else name
            alpha = {"warm-up": 0.2, "hold": 0.1}[name]
            ax.axvspan(first, last, color="gray", alpha=alpha, lw=0, label=label, gid=gid)
    ax.margins(y=0.15)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("learning rate")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")
    return ax


def _curves(source: Any) -> list[_Curve]:
    history = getattr(source, "history", None)
    if isinstance(history, dict):
        return _history_curves("history", {"epoch": getattr(source, "epoch", ()), **history})
    if isinstance(source, (str, os.PathLike)):
        try:
            with open(source, newline="") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            rows = [row for row in rows if len(row) == len(header)]  # the last may be half written
            columns = zip(*rows) if rows else [()] * len(header)
            return _history_curves(f"history {os.fspath(source)}", dict(zip(header, columns)))
        except ValueError as error:
            raise ValueError(f"{os.fspath(source)} is no CSV file of a history: {error}") from error
    rule = getattr(source, "rule", source)
    if not isinstance(rule, DecayRule):
        raise TypeError(
            "Argument `rules` must be rules, callbacks, schedules, histories or paths of CSV files. "
            f"Received: {source!r}"
        )
    return [_rule_curve(rule, source)]


def _rule_curve(rule: DecayRule, source: Any) -> _Curve:
    """Returns the curve of a rule, or of the callback or schedule that has it."""
    warm, first, last = rule.n_warmup_epochs, rule._first_epoch, rule.n_epochs - 1
    epochs = np.linspace(0, last, min(rule.n_epochs, 1000)).round()
    style: dict[str, Any] = {"marker": "." if rule.n_epochs <= 100 else ""}
    if source is rule:
        kind = "rule"
    elif getattr(source, "staircase", True):
        kind = "staircase schedule" if hasattr(source, "staircase") else "callback"
        epochs = np.append(epochs, rule.n_epochs)  # the last epoch is trained to its end
        style.update(drawstyle="steps-post", markevery=slice(-1))
    else:
        kind = "continuous schedule"
        epochs, style = np.linspace(0, rule.n_epochs, 1000), {}
    epochs = np.union1d(epochs, [warm, first, first + 1, last])
    rates = rule.learning_rate(epochs, dtype="float64").numpy()
    marks = np.searchsorted(epochs, [0, last] if rule.warmup_start_lr is None else [0, warm, last])
    spans = (("warm-up", 0, warm), ("hold", warm, first))
    shaded = tuple(span for span in spans if span[1] < span[2])
    return _Curve(_label(kind, rule), epochs, rates, style, marks, shaded)


def _label(kind: str, rule: DecayRule) -> str:
    label = f"{kind}: {rule.base_lr:g} to {rule.target_lr:g} in {rule.n_epochs} epochs"
    if rule.n_warmup_epochs:
        label += f", {rule.n_warmup_epochs} of warm-up"
    if rule.warmup_start_lr is not None:
        label += f" from {rule.warmup_start_lr:g}"
    if rule.n_hold_epochs:
        label += f", {rule.n_hold_epochs} of hold"
    return label


def _history_curves(source: str, table: dict[str, Any]) -> list[_Curve]:
    """Returns a curve for each learning rate in a history's columns."""
    names = [name for name in table if name == "lr" or name.startswith("learning_rate")]
    if not names or not len(table.get("epoch", ())):
        raise ValueError(f"there is no learning rate of any epoch. Columns: {', '.join(table)}")
    epochs = np.array(table["epoch"], dtype=float)
    style = {"marker": "." if len(epochs) <= 100 else ""}
    if len(source) > 60:  # the end of a path tells it from others
        source = f"history ...{source[-50:]}"
    source = source.replace("$", r"\$")
    return [
        _Curve(
            source if len(names) == 1 else f"{source}: {name}",
            epochs,
            np.array(table[name], dtype=float),
            style,
            [0, -1],
        )
        for name in names
    ]


def _write_rates(ax: Any, curve: _Curve, color: Any) -> None:
    """Writes the marked rates on the side of the curve where it does not run."""
    rates = [curve.rates[mark] for mark in curve.marks]
    neighbours = [rates[1], *rates[:-1]]
    aligned = ["left", *["center"] * (len(rates) - 2), "right"]
    for mark, rate, neighbour, align in zip(curve.marks, rates, neighbours, aligned):
        epoch, text = curve.epochs[mark], f"{rate:g}"
        near = [other for other in ax.texts if other.xy[0] == epoch]
        near = [other.get_text() for other in near if rate / 3 <= other.xy[1] <= rate * 3]
        if text not in near:
            above = rate >= neighbour
            aside = 34 * len(near) * (-1 if align == "right" else 1)
            ax.annotate(
                text,
                (epoch, rate) if rate else (epoch, 0),
                xycoords="data" if rate else ax.get_xaxis_transform(),
                textcoords="offset points",
                xytext=(aside, 8 if above or not rate else -8),
                ha=align,
                va="bottom" if above or not rate else "top",
                color=color,
                bbox={"color": ax.get_facecolor(), "alpha": 0.7, "pad": 0.5},
            )


def _matplotlib(module: str) -> Any:
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("A picture needs matplotlib: pip install 'expdecay-keras[plot]'")
    return importlib.import_module(f"matplotlib.{module}")


def draw(rule: Any) -> Any:
    """Returns the picture of `plot_learning_rate` as a matplotlib Figure of no window system."""
    figure = _matplotlib("figure").Figure(figsize=(6, 4), layout="constrained")
    plot_learning_rate(rule, ax=figure.subplots())
    return figure


def _svg(rule: DecayRule) -> str | None:
    """Returns the picture for a notebook; without matplotlib None, which leaves it the repr."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    file = io.StringIO()
    draw(rule).savefig(file, format="svg")
    return file.getvalue()


DecayRule._repr_svg_ = _svg


def save_plot(rule: Any, file: Path) -> None:
    """Writes the picture to a file, which is there whole or as it was before."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        draw(rule).savefig(partial, format=file.suffix[1:].lower(), dpi=150)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def text_chart(rule: DecayRule, width: int, ascii_only: bool) -> str:
    """Returns a rule's decay in numbers, then its rates with bars on a log scale.

    Of more than 50 epochs about 50, evenly spaced, are shown. The longest bar ends at `width` columns.
    """
    decay_rate, n_epochs = rule.decay_rate, rule.n_epochs
    factor = math.exp(decay_rate)
    is_steep = round(factor, 12) < 0.1
    symbol, block = ("lambda", "#") if ascii_only else ("\u03bb", "\u2588")
    doubling = "doubling time" if decay_rate > 0 else "half-life"
    lines = [
        f"decay rate {symbol}: {decay_rate:.6g} per epoch",
        f"factor e^{symbol}: {factor:.6g} per epoch",
        f"{doubling}: {math.log(2) / abs(decay_rate) if decay_rate else math.inf:.6g} epochs",
        *["steep: momentum keeps the old rate's size"] * is_steep,
        "",
    ]
    epochs = list(range(min(n_epochs, 50)))
    if n_epochs > 50:
        spaced = {i * (n_epochs - 1) // 47 for i in range(48)}
        first = rule._first_epoch
        epochs = sorted(spaced | {rule.n_warmup_epochs, first, first + 1})
    rates = rule.learning_rate(epochs, dtype="float64").numpy().tolist()
    # Six decimals where they hold the given rates, as in 0.1 to 1e-6, else six digits.
    given = (rule.base_lr, rule.target_lr, rule.warmup_start_lr or 0.0)
    style = ".6f" if all(rate == round(rate, 6) < 1000 for rate in given) else ".6g"
    cells = [("epoch", "rate"), *((f"{epoch}", f"{rate:{style}}") for epoch, rate in zip(epochs, rates))]
    widths = [max(map(len, column)) for column in zip(*cells)]
    header, *starts = [f"{epoch:>{widths[0]}}  {rate:<{widths[1]}}  " for epoch, rate in cells]
    lines.append(header.rstrip())
    low, high = (math.log(end(rate for rate in rates if rate > 0)) for end in (min, max))
    for start, rate in zip(starts, rates):
        bar = ""
        if rate > 0:
            share = (math.log(rate) - low) / (high - low) if low < high else 1.0
            bar = block * round(1 + (width - len(start) - 1) * share)
        lines.append((start + bar).rstrip())
    return "\n".join(lines)
