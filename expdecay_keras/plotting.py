"""Plots of learning rates."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from expdecay_keras.rule import DecayRule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Curve(NamedTuple):
    label: str
    epochs: npt.NDArray[np.float64]
    rates: npt.NDArray[np.float64]
    is_stepped: bool = False
    rule: DecayRule | None = None


def plot_learning_rate(*rules: Any, ax: Axes | None = None) -> Axes:
    """Plots learning rates over epochs on a log axis.

    Both ends of each curve and its highest point are labelled with their rates;
    warm-up and hold are shaded. A rule or a history is drawn as joined points, one per
    epoch; a callback or a staircase schedule as steps, each lasting until the next
    epoch. If a rule has more than 1000 epochs, about 1000 of them, evenly spaced, are
    drawn. Where a history or a file has no rate (None, NaN, NA), the curve has a gap.

    Args:
        *rules: One or more of the following: a `DecayRule`, a `WarmupExponentialDecay`,
            a `WarmupExponentialSchedule`, a `tf.keras.callbacks.History` that contains
            a learning rate, or the path (str or PathLike) of a CSV file with the
            columns `epoch` and `learning_rate`, as `CSVLogger` writes it.
        ax: The matplotlib Axes to draw on. Default None: new Axes of 6 by 4 inches.

    Returns:
        The matplotlib Axes. Nothing is shown or saved.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: An argument has another type, or none is given.
        ValueError: A history or file contains no learning rate, or a line of a file
            does not match its header; the message names the line.
        OSError: A file cannot be read.

    Example:

    >>> from expdecay_keras import DecayRule
    >>> ax = plot_learning_rate(DecayRule(base_lr=1e-2, target_lr=1e-4, n_epochs=5))
    >>> ax.get_yscale()
    'log'
    """
    if not rules:
        raise TypeError("Argument `rules` must not be empty. Received: rules=()")
    curves = [curve for rule in rules for curve in _curves(rule)]
    if ax is None:
        _check_matplotlib()
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(6, 4), layout="constrained")
    ax.set_yscale("log")
    for curve in curves:
        _draw(curve, ax)
    _shade([curve.rule for curve in curves if curve.rule is not None], ax)
    ax.margins(x=0.12, y=0.15)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("learning rate")
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),  # above the axes
        frameon=False,
        fontsize="small",
    )
    return ax


def _curves(source: Any) -> Iterator[_Curve]:
    """Yields the curves to draw for one argument."""
    if isinstance(source, (str, os.PathLike)):
        label = f"history {os.path.basename(os.fspath(source))}"
        yield from _logged_curves(label, _read_csv(source))
    elif isinstance(source, tf.keras.callbacks.History):
        columns = {**source.history, "epoch": getattr(source, "epoch", [])}
        yield from _logged_curves("history", columns)
    else:
        yield _rule_curve(source)


def _rule_curve(source: Any) -> _Curve:
    """Returns the curve of a rule, or of a callback or schedule that has one."""
    rule = getattr(source, "rule", source)
    if not isinstance(rule, DecayRule):
        raise TypeError(
            "Argument `rules` must contain only rules, callbacks, schedules, histories "
            f"and paths of CSV files. Received: {source!r}"
        )
    last_epoch = rule.n_epochs - 1
    epochs = np.linspace(0, last_epoch, min(rule.n_epochs, 1000)).round()
    epochs = np.union1d(epochs, [rule.n_warmup_epochs, rule.decay_start])
    is_smooth = not getattr(source, "staircase", True)
    is_stepped = source is not rule and not is_smooth
    if is_stepped:  # the last epoch is drawn to its end
        epochs = np.append(epochs, rule.n_epochs)
    if is_smooth:
        epochs = np.union1d(epochs, np.linspace(0, rule.n_epochs, 1000))
    name = type(source).__name__
    label = f"{name}: {rule.base_lr:g} to {rule.target_lr:g} in {rule.n_epochs} epochs"
    if is_smooth:
        label += ", staircase=False"
    return _Curve(label, epochs, rule.rates(epochs), is_stepped, rule)


def _read_csv(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Returns the columns to draw from a file that CSVLogger wrote, or is writing."""
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]  # half written
    rows = list(csv.reader(lines))
    header = rows[0] if rows else []
    names = [name for name in ["epoch", *_rate_names(header)] if name in header]
    columns: dict[str, list[float]] = {name: [] for name in names}
    for number, row in enumerate(rows[1:], start=2):
        where = f"{os.fspath(path)}, line {number}"
        if not row:  # an empty line
            continue
        if len(row) != len(header):
            raise ValueError(
                f"{where} must have {len(header)} values, like the header. "
                f"Received: {len(row)}"
            )
        values = dict(zip(header, row, strict=True))
        for name, column in columns.items():
            try:
                column.append(_number(values[name]))
            except ValueError as error:
                raise ValueError(f"{where}, {name}: {error}") from error
    return columns


def _rate_names(names: Iterable[str]) -> list[str]:
    """Returns the names of learning rates; Keras 2 itself logs `lr`."""
    return [n for n in names if n == "lr" or n.startswith("learning_rate")]


def _logged_curves(label: str, columns: dict[str, Any]) -> Iterator[_Curve]:
    """Yields the curve of each learning rate in the columns of a history."""
    names = _rate_names(columns)
    epochs = columns.get("epoch")
    if not names or not epochs:
        raise ValueError(f"{label} contains no learning rate for any epoch")
    for name in names:
        rates = columns[name]
        if len(rates) != len(epochs):
            raise ValueError(
                f"{label} must have one value of {name} per epoch. "
                f"Received: {len(rates)} values, {len(epochs)} epochs"
            )
        yield _Curve(
            label if len(names) == 1 else f"{label}: {name}",
            np.array(epochs, float),
            np.array([_number(rate) for rate in rates]),
        )


def _number(value: Any) -> float:
    return float("nan") if value in (None, "", "NA") else float(value)


def _draw(curve: _Curve, ax: Axes) -> None:
    """Draws a curve and labels both of its ends and its highest point."""
    rates = np.where(curve.rates > 0, curve.rates, np.nan)  # a log axis has no 0
    n_lines = len(ax.get_lines())
    (line,) = ax.plot(
        curve.epochs,
        rates,
        label=curve.label.replace("$", r"\$"),
        drawstyle="steps-post" if curve.is_stepped else "default",
        linestyle=("-", "--", ":", "-.")[n_lines % 4],  # curves may coincide
        marker="." if len(curve.epochs) <= 100 else "",
    )
    known = np.flatnonzero(np.isfinite(rates))
    if not len(known):
        return
    first, highest, last = known[0], np.nanargmax(rates), known[-1]
    labels = {highest: (0, 4, "center", "bottom")}
    labels[first] = (-4, 0, "right", "center")
    labels[last] = (4, 0, "left", "center")
    for index, (x, y, horizontal, vertical) in labels.items():
        ax.annotate(
            f"{rates[index]:.4g}",
            (curve.epochs[index], rates[index]),
            textcoords="offset points",
            xytext=(x, y),
            ha=horizontal,
            va=vertical,
            color=line.get_color(),
        )


def _shade(rules: list[DecayRule], ax: Axes) -> None:
    """Shades each distinct warm-up and hold once."""
    spans = {(0, rule.n_warmup_epochs, "warm-up", 0.2) for rule in rules}
    spans |= {(rule.n_warmup_epochs, rule.decay_start, "hold", 0.1) for rule in rules}
    labels = ax.get_legend_handles_labels()[1]
    for start, end, name, alpha in sorted(spans):
        if start < end:
            label = "" if name in labels else name
            ax.axvspan(start, end, color="gray", alpha=alpha, linewidth=0, label=label)
            labels.append(name)


def figure_of(rule: DecayRule) -> Figure:
    """Returns the plot of a rule, in a figure that opens no window."""
    _check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    plot_learning_rate(rule, ax=figure.subplots())
    return figure


def svg(rule: DecayRule) -> str:
    """Returns the plot of a rule as SVG."""
    file = io.StringIO()
    figure_of(rule).savefig(file, format="svg")
    return file.getvalue()


def _check_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("A plot needs matplotlib: pip install matplotlib")
